package vm

import (
	"context"
	"reflect"
	"time"

	"github.com/banger-vm/banger/internal/banger"
)

// inspectEvery is how often running VMs are looked at. It is too seldom for a guest that writes without pause, and meant for
// disks that fill up slowly.
const inspectEvery = 10 * time.Second

// InspectRunning keeps the conditions of running VMs true to what their capabilities find, until ctx ends.
func (s *Service) InspectRunning(ctx context.Context) {
	for tick := time.NewTicker(inspectEvery); ; {
		for _, id := range s.running() {
			s.inspect(ctx, id)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// inspect looks at one VM. Its record is written only when something is new.
func (s *Service) inspect(ctx context.Context, id banger.VMID) {
	vm, err := s.Get(ctx, string(id))
	run := s.Run(id)
	if err != nil || run == nil || vm.State != banger.Running {
		return // on its way out
	}
	seen := s.cfg.Chain.Inspect(ctx, run)
	if ctx.Err() != nil || reflect.DeepEqual(seen.Update(vm.Conditions), vm.Conditions) {
		return
	}
	s.log.Warn("conditions have changed", "vm", vm.Name, "found", seen.Found)
	_, err = s.cfg.Store.UpdateVM(ctx, id, func(v *banger.VM) error {
		if v.State == banger.Running {
			v.Conditions = seen.Update(v.Conditions)
		}
		return nil
	})
	if err != nil {
		s.log.Error("record conditions", "vm", vm.Name, "err", err)
	}
}
