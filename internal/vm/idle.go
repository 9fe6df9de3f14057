package vm

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/vm/usage"
)

// AutoStop is how long a VM may run unused before it is stopped; zero is for ever.
func (s *Service) AutoStop(vm banger.VM) time.Duration {
	if vm.Spec.AutoStop != nil {
		return *vm.Spec.AutoStop
	}
	return s.cfg.Defaults.AutoStop
}

// Use records that somebody uses the VM that ref names, until done is called.
func (s *Service) Use(ctx context.Context, ref string) (done func()) {
	vm, err := s.Get(ctx, ref)
	if err != nil {
		return func() {} // deleted just now
	}
	mark := func(change int) {
		if s.idle.Use(vm.ID, change) {
			s.storeUse(context.WithoutCancel(ctx), vm.ID)
		}
	}
	mark(+1)
	return sync.OnceFunc(func() { mark(-1) })
}

// storeUse does not fail: the record is for people, and for the reaper after a restart.
func (s *Service) storeUse(ctx context.Context, id banger.VMID) {
	_, err := s.cfg.Store.UpdateVM(ctx, id, func(v *banger.VM) error { v.LastUsed = time.Now().UTC(); return nil })
	if err != nil {
		s.log.Warn("record use", "id", id, "err", err)
	}
}

// ReapIdle stops running VMs that nobody uses, until ctx ends.
func (s *Service) ReapIdle(ctx context.Context) {
	for {
		warn, stop, again := s.idle.Due()
		for _, id := range warn {
			s.warnIdle(ctx, id)
		}
		for _, id := range stop {
			s.bg.Go(func() { s.stopIdle(ctx, id) })
		}
		timer := time.NewTimer(again)
		select {
		case <-timer.C:
		case <-s.idle.Poked():
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func (s *Service) warnIdle(ctx context.Context, id banger.VMID) {
	vm, err := s.Get(ctx, string(id))
	if err != nil {
		return // deleted just now
	}
	if s.inSession(ctx, id) {
		return
	}
	after := s.AutoStop(vm)
	err = s.cfg.Store.AddEvent(ctx, api.Event{Type: api.EventVMIdle, ID: string(id), Name: vm.Name, State: vm.State.String(),
		Message: fmt.Sprintf("it will be stopped in %s unless it is used", min(usage.Warning, after/2))})
	if err != nil {
		s.log.Error("warn of an idle vm", "vm", vm.Name, "err", err)
	}
}

// inSession reports whether a session runs in a VM, which is then in use.
func (s *Service) inSession(ctx context.Context, id banger.VMID) bool {
	run := s.Run(id)
	if run == nil || !usage.InSession(ctx, run.Link) {
		return false
	}
	s.idle.Use(id, +1)
	s.idle.Use(id, -1)
	return true
}

// stopIdle stops a VM unless it was used while its lock was waited for.
func (s *Service) stopIdle(ctx context.Context, id banger.VMID) {
	vm, err := s.Get(ctx, string(id))
	if err != nil {
		return // deleted just now
	}
	err = s.cfg.Ops.Do(ctx, api.MethodVMStop, vm.Name, func(ctx context.Context, op *opstate.Op) error {
		ctx, vm, unlock, err := s.lock(ctx, string(id), "being stopped, because nobody uses it", op)
		if err != nil {
			return err
		}
		defer unlock()
		if !s.idle.Expired(id) || vm.State == banger.Paused {
			return nil // who paused it will say when it goes on
		}
		if s.inSession(ctx, id) { // one was started since the warning
			return nil
		}
		return s.stopLocked(ctx, vm, 0, fmt.Sprintf("stopped because it was not used for %s", s.AutoStop(vm)), op)
	})
	if err != nil {
		s.log.Error("stop an idle vm", "vm", vm.Name, "err", err)
	}
}
