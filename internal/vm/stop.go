package vm

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/vm/capability"
	"github.com/banger-vm/banger/internal/vmm"
)

// DefaultStopTimeout is how long a guest may take to power off before it is killed.
const DefaultStopTimeout = 20 * time.Second

// Stop asks the guest to sync and power off, and kills the machine if that takes longer than timeout (zero: the default).
// A VM that does not run is left alone. When ctx ends while the guest is still busy with it, the VM goes on as running until
// the guest has ended: it was asked, and what it has not written yet is not thrown away.
func (s *Service) Stop(ctx context.Context, ref string, timeout time.Duration, r opstate.Reporter) (banger.VM, error) {
	ctx, vm, unlock, err := s.lock(ctx, ref, "stopping", r)
	if err != nil {
		return vm, err
	}
	defer unlock()
	if err := s.stopLocked(ctx, vm, timeout, "", r); err != nil {
		return vm, fmt.Errorf("stop vm %q: %w", vm.Name, err)
	}
	return s.Get(ctx, string(vm.ID))
}

// stopLocked stops vm, whose lock the caller holds. A reason is given for a stop that nobody asked for, and is recorded.
func (s *Service) stopLocked(ctx context.Context, vm banger.VM, timeout time.Duration, reason string, r opstate.Reporter) error {
	if timeout == 0 {
		timeout = DefaultStopTimeout
	}
	if run := s.Run(vm.ID); run != nil && vm.State == banger.Paused {
		if err := s.resume(ctx, run); err != nil { // its guest has to power off
			return err
		}
	}
	return s.end(ctx, vm, reason, func(ctx context.Context, run *capability.Run) (banger.Changes, error) {
		r.Stage("look for unexported work")
		changes := s.changes(ctx, run)
		r.Stage("power off guest")
		return changes, s.powerOff(ctx, run, timeout)
	})
}

// Kill ends the machine by a signal to its process, SIGKILL if sig is zero. What the guest had not written is lost, as when the power
// fails; but by SIGTERM and the like a VMM still writes what it holds itself. A machine that does not end by another signal
// within killPatience is killed.
func (s *Service) Kill(ctx context.Context, ref string, sig syscall.Signal, r opstate.Reporter) (banger.VM, error) {
	ctx, vm, unlock, err := s.lock(ctx, ref, "being killed", r)
	if err != nil {
		return vm, err
	}
	defer unlock()
	err = s.end(ctx, vm, "", func(ctx context.Context, run *capability.Run) (banger.Changes, error) {
		return banger.ChangesUnknown, s.signal(ctx, run, sig)
	})
	if err != nil {
		return vm, fmt.Errorf("kill vm %q: %w", vm.Name, err)
	}
	return s.Get(ctx, string(vm.ID))
}

const killPatience = 10 * time.Second

// signal sends a signal other than SIGKILL, and waits. The caller kills what is left.
func (s *Service) signal(ctx context.Context, run *capability.Run, sig syscall.Signal) error {
	if sig == 0 || sig == syscall.SIGKILL {
		return nil
	}
	p, ok := run.Machine.(vmm.Signaler)
	if !ok {
		return errkind.New(api.KindUnavailable, "%s takes no signals", run.Driver.Name())
	}
	if err := p.Signal(sig); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	select {
	case <-run.Machine.Exited():
	case <-bounded.Done():
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.log.Warn("machine did not end by the signal", "vm", run.VM.Name, "signal", sig)
	}
	return nil
}

// Restart stops a VM that runs, as [Service.Stop] does, and starts it, under one lock.
func (s *Service) Restart(ctx context.Context, ref string, timeout time.Duration, r opstate.Reporter) (banger.VM, error) {
	ctx, vm, unlock, err := s.lock(ctx, ref, "restarting", r)
	if err != nil {
		return vm, err
	}
	defer unlock()
	if err := s.stopLocked(ctx, vm, timeout, "", r); err != nil {
		return vm, fmt.Errorf("restart vm %q: %w", vm.Name, err)
	}
	if vm, err = s.Get(ctx, string(vm.ID)); err != nil {
		return vm, err
	}
	if err := s.startLocked(ctx, vm, r); err != nil {
		return vm, fmt.Errorf("restart vm %q: it was stopped, and does not start: %w", vm.Name, err)
	}
	return s.Get(ctx, string(vm.ID))
}

// end brings a VM's run to its end: prepare may ask the guest nicely; detaching the machine then kills what is left. When
// prepare fails, the run goes on.
func (s *Service) end(ctx context.Context, vm banger.VM, reason string,
	prepare func(context.Context, *capability.Run) (banger.Changes, error)) error {
	run := s.Run(vm.ID)
	if run == nil {
		return nil
	}
	if _, err := s.setState(ctx, vm.ID, banger.Stopping, nil); err != nil {
		return err
	}
	err := s.step(ctx, stepStopping)
	var changes banger.Changes
	if err == nil {
		changes, err = prepare(ctx, run)
	}
	if err == nil {
		err = s.step(ctx, stepPoweredOff)
	}
	if err != nil {
		return errors.Join(err, s.goOn(ctx, run))
	}
	// From here on the machine may be down: what follows is finished even when the caller is gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	if err := s.finish(ctx, run, banger.Stopped, reason, changes); err != nil {
		return err
	}
	s.log.Info("vm stopped", "vm", vm.Name, "reason", reason)
	return nil
}

// goOn takes a stop back that was given up. If the machine has ended all the same, its watcher finds that when the lock is
// free.
func (s *Service) goOn(ctx context.Context, run *capability.Run) error {
	_, err := s.setState(context.WithoutCancel(ctx), run.VM.ID, banger.Running, nil)
	return err
}

// powerOff asks the agent to power off and waits for the machine to end. A guest that does not is no failure: the caller kills
// what is left. The error is ctx's, when that ended first.
func (s *Service) powerOff(ctx context.Context, run *capability.Run, timeout time.Duration) error {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := run.Link.Get(bounded)
	if err == nil {
		err = conn.Call(bounded, guestapi.MethodPowerOff, nil, nil)
	}
	if err != nil {
		s.log.Warn("power off", "vm", run.VM.Name, "err", err)
	}
	select {
	case <-run.Machine.Exited():
	case <-bounded.Done():
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.log.Warn("guest did not power off in time", "vm", run.VM.Name, "timeout", timeout)
	}
	return nil
}

// Delete removes a VM and its disks. Without force a running VM, and one whose workspace has changes that were not
// exported, is refused with kind precondition.
func (s *Service) Delete(ctx context.Context, ref string, force bool, r opstate.Reporter) error {
	ctx, vm, unlock, err := s.lock(ctx, ref, "being deleted", r)
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
	run := s.Bare(vm, opstate.Discard)
	for _, do := range []func() error{
		func() error { return s.step(ctx, stepDeleting) },
		func() error { return s.cfg.Chain.Destroy(ctx, run) },
		func() error { return s.step(ctx, stepDestroyed) },
		func() error { return errors.Join(host.RemoveDir(run.RunDir), host.RemoveDir(run.Dir)) },
		func() error { return s.step(ctx, stepRemoved) },
	} {
		if err := do(); err != nil {
			return err
		}
	}
	return s.cfg.Store.DeleteVM(ctx, vm.ID)
}
