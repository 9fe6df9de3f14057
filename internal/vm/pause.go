package vm

import (
	"context"
	"errors"
	"fmt"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/vm/capability"
	"github.com/banger-vm/banger/internal/vmm"
)

// Pause halts the processors of a VM that runs; its memory stays. One that is paused is left alone.
func (s *Service) Pause(ctx context.Context, ref string, r opstate.Reporter) (banger.VM, error) {
	ctx, vm, unlock, err := s.lock(ctx, ref, "being paused", r)
	if err != nil {
		return vm, err
	}
	defer unlock()
	if vm.State == banger.Paused {
		return vm, nil
	}
	run := s.Run(vm.ID)
	if run == nil || vm.State != banger.Running {
		return vm, notRunning(vm)
	}
	machine, err := pauser(run)
	if err != nil {
		return vm, err
	}
	// The record comes first: a daemon that finds it pauses the machine again.
	if _, err := s.setState(ctx, vm.ID, banger.Paused, nil); err != nil {
		return vm, err
	}
	err = s.step(ctx, stepPaused)
	if err == nil {
		err = machine.Pause(ctx)
	}
	if err != nil {
		return vm, errors.Join(fmt.Errorf("pause vm %q: %w", vm.Name, err), s.goOn(ctx, run))
	}
	return s.Get(ctx, string(vm.ID))
}

// Resume lets a paused VM go on. One that runs is left alone.
func (s *Service) Resume(ctx context.Context, ref string, r opstate.Reporter) (banger.VM, error) {
	ctx, vm, unlock, err := s.lock(ctx, ref, "being resumed", r)
	if err != nil {
		return vm, err
	}
	defer unlock()
	if vm.State == banger.Running {
		return vm, nil
	}
	run := s.Run(vm.ID)
	if run == nil || vm.State != banger.Paused {
		return vm, notRunning(vm)
	}
	if err := s.resume(ctx, run); err != nil {
		return vm, fmt.Errorf("resume vm %q: %w", vm.Name, err)
	}
	return s.Get(ctx, string(vm.ID))
}

// resume lets the machine of a paused VM go on, and records that it does. A daemon that adopted it paused has not met its guest yet.
func (s *Service) resume(ctx context.Context, run *capability.Run) error {
	machine, err := pauser(run)
	if err != nil {
		return err
	}
	if err := machine.Resume(ctx); err != nil {
		return err
	}
	if err := s.step(ctx, stepResumed); err != nil {
		return err
	}
	if _, err := s.setState(ctx, run.VM.ID, banger.Running, nil); err != nil {
		return err
	}
	s.idle.Watch(run.VM.ID, s.AutoStop(run.VM))
	if run.Hello.VMID != "" {
		return nil
	}
	conn, err := run.Link.Get(ctx)
	if err != nil {
		return err
	}
	return conn.Call(ctx, guestapi.MethodHello, nil, &run.Hello)
}

func pauser(run *capability.Run) (vmm.Pauser, error) {
	if p, ok := run.Machine.(vmm.Pauser); ok {
		return p, nil
	}
	return nil, errkind.New(api.KindUnavailable, "%s does not pause machines", run.Driver.Name())
}

// pauseAgain pauses the machine of a VM whose record says that it is paused: a daemon that ended in between may not have come to it.
func (s *Service) pauseAgain(ctx context.Context, run *capability.Run) error {
	machine, err := pauser(run)
	if err != nil {
		return err
	}
	return machine.Pause(ctx)
}
