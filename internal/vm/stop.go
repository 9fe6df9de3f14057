package vm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/vm/capability"
)

// DefaultStopTimeout is how long a guest may take to power off before it is killed.
const DefaultStopTimeout = 20 * time.Second

// Stop asks the guest to sync and power off, and kills the machine if that takes longer than timeout (zero: the default).
// A VM that does not run is left alone.
func (s *Service) Stop(ctx context.Context, ref string, timeout time.Duration) (banger.VM, error) {
	if timeout == 0 {
		timeout = DefaultStopTimeout
	}
	return s.end(ctx, ref, "stopping", func(ctx context.Context, run *capability.Run) banger.Changes {
		changes := s.changes(ctx, run)
		s.powerOff(ctx, run, timeout)
		return changes
	})
}

// Kill ends the machine at once. What the guest had not written is lost, as when the power fails.
func (s *Service) Kill(ctx context.Context, ref string) (banger.VM, error) {
	return s.end(ctx, ref, "killing", func(context.Context, *capability.Run) banger.Changes {
		return banger.ChangesUnknown
	})
}

// end brings a run to its end: prepare may ask the guest nicely; detaching the machine then kills what is left.
func (s *Service) end(ctx context.Context, ref, action string, prepare func(context.Context, *capability.Run) banger.Changes) (banger.VM, error) {
	vm, unlock, err := s.lock(ctx, ref, action)
	if err != nil {
		return vm, err
	}
	defer unlock()
	run := s.Run(vm.ID)
	if run == nil {
		return vm, nil
	}
	if _, err := s.setState(ctx, vm.ID, banger.Stopping, nil); err != nil {
		return vm, err
	}
	changes := prepare(ctx, run)
	// From here on the machine may be down: what follows is finished even when the caller is gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	if err := s.finish(ctx, run, banger.Stopped, "", changes); err != nil {
		return vm, fmt.Errorf("stop vm %q: %w", vm.Name, err)
	}
	s.log.Info("vm stopped", "vm", vm.Name)
	return s.Get(ctx, string(vm.ID))
}

// powerOff asks the agent to power off and waits for the machine to end. It does not fail: the caller kills what is left.
func (s *Service) powerOff(ctx context.Context, run *capability.Run, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := run.Link.Get(ctx)
	if err == nil {
		err = conn.Call(ctx, guestapi.MethodPowerOff, nil, nil)
	}
	if err != nil {
		s.log.Warn("power off", "vm", run.VM.Name, "err", err)
	}
	select {
	case <-run.Machine.Exited():
	case <-ctx.Done():
		s.log.Warn("guest did not power off in time", "vm", run.VM.Name, "timeout", timeout)
	}
}

// Delete removes a VM and its disks. Without force a running VM, and one whose workspace has changes that were not
// exported, is refused with kind precondition.
func (s *Service) Delete(ctx context.Context, ref string, force bool) error {
	vm, unlock, err := s.lock(ctx, ref, "deleting")
	if err != nil {
		return err
	}
	defer unlock()
	run := s.Run(vm.ID)
	if !force {
		if err := s.mayDelete(ctx, vm, run); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	if run != nil {
		if _, err := s.setState(ctx, vm.ID, banger.Stopping, nil); err != nil {
			return err
		}
		if err := s.finish(ctx, run, banger.Stopped, "", banger.ChangesUnknown); err != nil {
			return fmt.Errorf("delete vm %q: %w", vm.Name, err)
		}
	}
	if err := s.remove(ctx, vm); err != nil {
		return fmt.Errorf("delete vm %q: %w", vm.Name, err)
	}
	s.log.Info("vm deleted", "vm", vm.Name, "id", vm.ID)
	return nil
}

func (s *Service) mayDelete(ctx context.Context, vm banger.VM, run *capability.Run) error {
	if vm.Workspace != nil {
		changes := vm.Workspace.Changes
		if run != nil {
			changes = s.changes(ctx, run)
		}
		if err := unexported(vm, changes); err != nil {
			return err
		}
	}
	if run == nil {
		return nil
	}
	return errkind.WithHint(errkind.New(api.KindPrecondition, "vm %q is running", vm.Name),
		"stop it first: `banger vm stop %s`, or use --force", vm.Name)
}

func unexported(vm banger.VM, c banger.Changes) error {
	switch c {
	case banger.ChangesClean:
		return nil
	case banger.ChangesPresent:
		return errkind.WithHint(errkind.New(api.KindPrecondition, "vm %q has changes in its workspace that were not exported", vm.Name),
			"export them: `banger vm workspace export %s`, or use --force to lose them", vm.Name)
	}
	return errkind.WithHint(
		errkind.New(api.KindPrecondition, "vm %q did not stop cleanly, so it may have workspace changes that were not exported", vm.Name),
		"start it and export them: `banger vm start %[1]s && banger vm workspace export %[1]s`, or use --force to lose them", vm.Name)
}

// remove destroys what a stopped VM has on disk, and then its record: a crash in between leaves a record that can be
// deleted again.
func (s *Service) remove(ctx context.Context, vm banger.VM) error {
	run := s.bareRun(vm, opstate.Discard)
	if err := s.cfg.Chain.Destroy(ctx, run); err != nil {
		return err
	}
	return errors.Join(removeDir(run.RunDir), removeDir(run.Dir), s.cfg.Store.DeleteVM(ctx, vm.ID))
}
