package vm

import (
	"context"
	"errors"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vm/capability"
	"github.com/banger-vm/banger/internal/vm/leftover"
	"github.com/banger-vm/banger/internal/vmm"
)

// HandleReader finds the durable handle of a VM's machine. Kind not-found: there is none.
type HandleReader func(dir string) (vmm.Handle, error)

// Reconcile makes the state right after the daemon was away, whatever it was doing when it went: machines that live are
// adopted, interrupted creations are removed, interrupted starts undone, interrupted stops finished, the dead cleaned up,
// and directories that no record claims removed. A failure is logged with the VM's name and does not keep the others back.
func (s *Service) Reconcile(ctx context.Context, handles HandleReader) error {
	vms, err := s.List(ctx)
	if err != nil {
		return err
	}
	for _, vm := range vms {
		if err := s.reconcile(ctx, vm, handles); err != nil {
			s.log.Error("reconcile", "vm", vm.Name, "err", err)
		}
	}
	return s.removeLeftovers(ctx, handles)
}

func (s *Service) reconcile(ctx context.Context, vm banger.VM, handles HandleReader) error {
	if vm.Pending {
		s.log.Info("removing a vm whose creation was interrupted", "vm", vm.Name)
		return s.killAndRemove(ctx, vm, handles)
	}
	if !vm.State.Live() {
		return nil
	}
	run, err := s.newRun(ctx, vm, opstate.Discard)
	if err != nil {
		return err
	}
	adoptErr := s.adopt(ctx, run, handles)
	switch {
	case adoptErr == nil && vm.State != banger.Starting:
		return s.readopt(ctx, run)
	case adoptErr != nil && !errkind.Is(adoptErr, api.KindNotFound):
		return adoptErr // no proof of death: leave everything as it is
	}
	reason := "the daemon stopped while the vm was " + vm.State.String()
	if vm.State == banger.Running || vm.State == banger.Paused {
		reason = "its machine ended while the daemon was away"
	}
	s.log.Info("vm does not run any more", "vm", vm.Name, "reason", reason)
	detachErr := s.cfg.Chain.Detach(ctx, run)
	_, err = s.setState(ctx, vm.ID, banger.Stopped, func(v *banger.VM) {
		v.LastError, v.Stopped = reason, time.Now().UTC()
		if v.Workspace != nil {
			v.Workspace.Changes = banger.ChangesUnknown
		}
	})
	if vm.Spec.Ephemeral {
		s.leases.Expect(vm.ID)
	}
	return errors.Join(detachErr, err)
}

// adopt attaches run to its live machine. Kind not-found: there is none, which is proven.
func (s *Service) adopt(ctx context.Context, run *capability.Run, handles HandleReader) error {
	h, err := handles(run.Dir)
	if err != nil {
		return err
	}
	driver, err := s.driver(h.Driver)
	if err != nil {
		return err
	}
	run.Driver = driver
	run.Machine, err = driver.Adopt(ctx, h)
	return err
}

// readopt makes an adopted machine's VM usable again. A stop that was interrupted goes on, from its beginning: the guest may
// not have been asked yet.
func (s *Service) readopt(ctx context.Context, run *capability.Run) error {
	if run.VM.State == banger.Paused {
		if err := s.pauseAgain(ctx, run); err != nil {
			s.log.Error("pause an adopted vm", "vm", run.VM.Name, "err", err)
		}
	}
	conds := s.cfg.Chain.Reattach(ctx, run)
	s.setRun(run.VM.ID, run)
	s.watch(run)
	if run.VM.Spec.Ephemeral {
		s.leases.Expect(run.VM.ID)
	}
	s.log.Info("vm adopted", "vm", run.VM.Name, "pid", run.Machine.Handle().PID)
	_, err := s.cfg.Store.UpdateVM(ctx, run.VM.ID, func(v *banger.VM) error {
		v.Conditions = conds
		if v.State == banger.Stopping {
			v.State = banger.Running
		}
		return nil
	})
	if err == nil && run.VM.State == banger.Stopping {
		s.bg.Go(func() { s.stopAgain(run) })
	}
	return err
}

func (s *Service) stopAgain(run *capability.Run) {
	if _, err := s.Stop(s.ctx, string(run.VM.ID), 0, opstate.Discard); err != nil && s.ctx.Err() == nil {
		s.log.Error("finish an interrupted stop", "vm", run.VM.Name, "err", err)
	}
}

func (s *Service) killAndRemove(ctx context.Context, vm banger.VM, handles HandleReader) error {
	run := s.Bare(vm, opstate.Discard)
	if err := s.adopt(ctx, run, handles); err != nil && !errkind.Is(err, api.KindNotFound) {
		return err
	}
	if err := s.cfg.Chain.Detach(ctx, run); err != nil {
		return err
	}
	return s.remove(ctx, vm)
}

// Leftovers finds what is on the host of VMs that have no record, and what a machine left of VMs that do not run.
func (s *Service) Leftovers(ctx context.Context, handles HandleReader) ([]preflight.Problem, error) {
	f := leftover.Finder{
		List: s.List, Drivers: s.cfg.Drivers, Dirs: s.cfg.Dirs, Log: s.log,
		Lock: func(ctx context.Context, id banger.VMID, action string) (context.Context, banger.VM, func(), error) {
			return s.lock(ctx, string(id), action, opstate.Discard)
		},
		Detach: func(ctx context.Context, vm banger.VM) error {
			return s.cfg.Chain.Detach(ctx, s.Bare(vm, opstate.Discard))
		},
		Remove: func(ctx context.Context, vm banger.VM) error { return s.killAndRemove(ctx, vm, handles) },
	}
	return f.Find(ctx)
}

// removeLeftovers puts right what [Service.Leftovers] finds. A failure is logged and does not keep the others back.
func (s *Service) removeLeftovers(ctx context.Context, handles HandleReader) error {
	found, err := s.Leftovers(ctx, handles)
	for _, p := range found {
		s.log.Info("removing leftovers", "what", p.Detail)
		if _, err := p.Mend(ctx); err != nil {
			s.log.Error("remove leftovers", "what", p.Detail, "err", err)
		}
	}
	return err
}
