package vm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/vm/capability"
	"github.com/banger-vm/banger/internal/vm/logfile"
	"github.com/banger-vm/banger/internal/vm/vmlock"
	"github.com/banger-vm/banger/internal/vmm"
)

// Start starts a VM that does not run. One that runs is left alone. When ctx ends before the guest is up, the start is
// undone.
func (s *Service) Start(ctx context.Context, ref string, r opstate.Reporter) (banger.VM, error) {
	ctx, vm, unlock, err := s.lock(ctx, ref, "starting", r)
	if err != nil {
		return vm, err
	}
	defer unlock()
	if vm.State == banger.Running {
		return vm, nil
	}
	if vm.State == banger.Paused {
		return vm, notRunning(vm)
	}
	if err := s.startLocked(ctx, vm, r); err != nil {
		return vm, fmt.Errorf("start vm %q: %w", vm.Name, err)
	}
	return s.Get(ctx, string(vm.ID))
}

// lock takes the lock of the VM that ref names, for action, and returns the record as it is under the lock. r is the work that
// the lock is held for.
func (s *Service) lock(ctx context.Context, ref, action string, r opstate.Reporter) (under context.Context, vm banger.VM, unlock func(), err error) {
	if vm, err = s.Get(ctx, ref); err != nil {
		return ctx, vm, nil, err
	}
	under, unlock, err = s.locks.Lock(ctx, vm.ID, vmlock.Holder{VM: vm.Name, Action: action, Op: r.ID()})
	if err != nil {
		return ctx, vm, nil, err
	}
	if vm, err = s.Get(under, string(vm.ID)); err != nil {
		unlock()
		return ctx, vm, nil, err // deleted while we waited
	}
	return under, vm, unlock, nil
}

// setState moves a VM to a state and applies changes in the same transaction.
func (s *Service) setState(ctx context.Context, id banger.VMID, state banger.State, change func(*banger.VM)) (banger.VM, error) {
	return s.cfg.Store.UpdateVM(ctx, id, func(vm *banger.VM) error {
		vm.State = state
		if change != nil {
			change(vm)
		}
		return nil
	})
}

// startLocked starts vm. The caller holds its lock. On error the VM is back in the state it came from.
func (s *Service) startLocked(ctx context.Context, vm banger.VM, rep opstate.Reporter) error {
	before := vm.State
	if !before.CanBecome(banger.Starting) {
		return errkind.New(api.KindPrecondition, "it is %s", before)
	}
	run, err := s.newRun(ctx, vm, rep)
	if err != nil {
		return err
	}
	if err := s.cfg.Chain.Check(ctx, run); err != nil {
		return err
	}
	if run.VM, err = s.setState(ctx, vm.ID, banger.Starting, s.enterNetwork); err != nil {
		return err
	}
	begun := time.Now()
	err = errors.Join(s.step(ctx, stepStarting), logfile.Forget(s.logPath(vm.ID, "console")))
	var how banger.Start
	if err == nil {
		run, how, err = s.attach(ctx, run)
	}
	if err != nil {
		return errors.Join(err, s.startFailed(ctx, vm, err))
	}
	s.setRun(vm.ID, run)
	_, err = s.setState(ctx, vm.ID, banger.Running, func(v *banger.VM) {
		v.Started, v.LastUsed, v.LastError, v.Conditions, v.Start = time.Now().UTC(), time.Now().UTC(), "", nil, how
		if v.Workspace != nil {
			v.Workspace.Changes = ""
		}
	})
	if err != nil {
		s.setRun(vm.ID, nil)
		return errors.Join(err, s.cfg.Chain.Detach(context.WithoutCancel(ctx), run), s.startFailed(ctx, vm, err))
	}
	s.watch(run)
	s.log.Info("vm started", "vm", vm.Name, "engine", run.Machine.Handle().Engine, "warm", how.Warm, "took", time.Since(begun))
	if !how.Warm {
		s.cfg.Templates.Want(run)
	}
	return nil
}

// attach starts a run from a template, if there is one, and by a boot where that fails or there is none. It returns the run that was
// started.
func (s *Service) attach(ctx context.Context, run *capability.Run) (*capability.Run, banger.Start, error) {
	template, why := s.cfg.Templates.Find(run)
	if template != nil {
		run.Template = template
		err := s.cfg.Chain.Attach(ctx, run)
		awake := run.Hello.VMID == string(run.VM.ID) // what fails from then on fails after a boot too
		if err == nil || awake || ctx.Err() != nil {
			return run, banger.Start{Warm: true}, err
		}
		s.cfg.Templates.Distrust(template, err)
		why = "from its template it did not start: " + err.Error()
		cold := s.Bare(run.VM, run.Report)
		cold.Image, cold.Kernel, cold.Driver = run.Image, run.Kernel, run.Driver
		run = cold
	}
	return run, banger.Start{Why: why}, s.cfg.Chain.Attach(ctx, run)
}

// enterNetwork gives a VM an address in the host's network as it is now: the mode may have changed since the VM was made.
func (s *Service) enterNetwork(vm *banger.VM) { vm.Network = s.cfg.Defaults.Network }

// startFailed puts a VM whose start was undone back: one that never ran is as created, any other stopped.
func (s *Service) startFailed(ctx context.Context, vm banger.VM, cause error) error {
	back := banger.Stopped
	if vm.Started.IsZero() {
		back = banger.Created
	}
	_, err := s.setState(context.WithoutCancel(ctx), vm.ID, back, func(v *banger.VM) { v.LastError = cause.Error() })
	return err
}

// newRun returns the run of a VM that is about to start, to be re-attached or to be cleaned.
func (s *Service) newRun(ctx context.Context, vm banger.VM, rep opstate.Reporter) (*capability.Run, error) {
	run := s.Bare(vm, rep)
	var err error
	if run.Image, err = s.cfg.Images.Get(ctx, string(vm.Spec.ImageID)); err != nil {
		return nil, err
	}
	if run.Kernel, err = s.cfg.Kernels.Get(ctx, string(vm.Spec.KernelID)); err != nil {
		return nil, err
	}
	if run.Driver, err = s.driver(vm.Spec.VMM); err != nil {
		return nil, err
	}
	return run, nil
}

// Bare returns a run that is good for cleaning up only: detach and destroy need nothing but the record.
func (s *Service) Bare(vm banger.VM, rep opstate.Reporter) *capability.Run {
	return &capability.Run{
		VM: vm, Report: rep, Dir: s.cfg.Dirs.VMDir(vm.ID), RunDir: s.cfg.Dirs.VMRunDir(vm.ID),
	}
}

// watch waits for the end of a run's machine and records it, unless a stop is doing so. Meanwhile it notes when the guest is
// halted.
func (s *Service) watch(run *capability.Run) {
	s.bg.Go(func() {
		for {
			why, changed := halted(run.Machine)
			s.noteHalt(run, why)
			select {
			case <-run.Machine.Exited():
				s.exited(run)
				return
			case <-changed:
			case <-s.ctx.Done():
				return
			}
		}
	})
}

// halted returns why a machine's guest is halted, and a channel that is closed when that changes; a machine that is never halted has
// none.
func halted(m vmm.Machine) (why string, changed <-chan struct{}) {
	if h, ok := m.(vmm.Halter); ok {
		return h.Halted()
	}
	return "", nil
}

// noteHalt notes why a run's guest is halted, or that it is not. It is kept in memory, as the disk that is full may be the
// database's; for the same reason the event that tells of it may be missing.
func (s *Service) noteHalt(run *capability.Run, why string) {
	if why == "" {
		if run.Halted.Swap(nil) == nil {
			return
		}
	} else {
		run.Halted.Store(&banger.Condition{Type: "disk", Message: why, Since: time.Now().UTC()})
	}
	err := s.cfg.Store.AddEvent(s.ctx, api.Event{Type: api.EventVMCondition, ID: string(run.VM.ID), Name: run.VM.Name,
		State: banger.Running.String(), Message: why})
	if err != nil && s.ctx.Err() == nil {
		s.log.Warn("tell of a halted guest", "vm", run.VM.Name, "err", err)
	}
}

// Conditions returns what is wrong with a VM that runs all the same: what is recorded, and what is true now.
func (s *Service) Conditions(vm banger.VM) []banger.Condition {
	if run := s.Run(vm.ID); run != nil {
		if c := run.Halted.Load(); c != nil {
			return append(slices.Clone(vm.Conditions), *c)
		}
	}
	return vm.Conditions
}

// exited cleans up after a machine that ended by itself.
func (s *Service) exited(run *capability.Run) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), cleanTimeout)
	defer cancel()
	ctx, unlock, err := s.locks.Lock(ctx, run.VM.ID, vmlock.Holder{VM: run.VM.Name, Action: "being cleaned up"})
	if err != nil {
		s.log.Error("clean up after exit", "vm", run.VM.Name, "err", err)
		return
	}
	defer unlock()
	if s.Run(run.VM.ID) != run {
		return // stopped or deleted meanwhile, which cleaned up
	}
	exit := run.Machine.Exit()
	s.log.Info("vm exited", "vm", run.VM.Name, "reason", exit.Reason, "clean", exit.Clean)
	state, lastError := banger.Stopped, ""
	if !exit.Clean {
		state, lastError = banger.Failed, exit.Reason
	}
	if err := s.finish(ctx, run, state, lastError, banger.ChangesUnknown); err != nil {
		s.log.Error("clean up after exit", "vm", run.VM.Name, "err", err)
	}
}

const cleanTimeout = time.Minute

// finish detaches a run whose machine is to end or has ended, and records the state that follows.
func (s *Service) finish(ctx context.Context, run *capability.Run, state banger.State, lastError string, changes banger.Changes) error {
	s.setRun(run.VM.ID, nil)
	detachErr := s.cfg.Chain.Detach(ctx, run)
	if detachErr != nil && lastError == "" {
		lastError = detachErr.Error()
	}
	_, err := s.setState(ctx, run.VM.ID, state, func(v *banger.VM) {
		v.Stopped, v.LastError = time.Now().UTC(), lastError
		if v.Workspace != nil {
			v.Workspace.Changes = changes
		}
	})
	return errors.Join(detachErr, err)
}
