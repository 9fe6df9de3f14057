package vm

import (
	"cmp"
	"context"
	"fmt"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/vm/spec"
)

// Set changes what a VM is to be. The record is changed at once and whole; processors, memory, disks, network and environment
// take effect at the next start, so a running VM must be restarted for them (p.Restart), else they are refused with kind
// precondition. Disks are grown by the start that follows, and the guest then grows its file systems.
func (s *Service) Set(ctx context.Context, p api.VMSet, r opstate.Reporter) (banger.VM, error) {
	if err := s.checkSet(p); err != nil {
		return banger.VM{}, err
	}
	ctx, vm, unlock, err := s.lock(ctx, p.Ref.Ref, "being changed", r)
	if err != nil {
		return vm, err
	}
	defer unlock()
	err = s.checkSize(vm.Spec.VMM, p.VCPU, p.MemMiB)
	var next banger.Spec
	if err == nil {
		next, err = spec.Change(vm.Spec, p)
	}
	if err != nil {
		return vm, fmt.Errorf("set vm %q: %w", vm.Name, err)
	}
	restart := s.Run(vm.ID) != nil && spec.NeedsStart(vm.Spec, next)
	if restart && !p.Restart {
		return vm, errkind.WithHint(errkind.New(api.KindPrecondition, "vm %q runs: that takes effect at a start only", vm.Name),
			"add --restart, which stops it, changes it and starts it again; or stop it first")
	}
	if restart {
		if err := s.cfg.Ports.Check(vm.ID, next.Publish); err != nil {
			return vm, fmt.Errorf("set vm %q: %w", vm.Name, err)
		}
		if err := s.stopLocked(ctx, vm, 0, "", r); err != nil {
			return vm, fmt.Errorf("set vm %q: %w", vm.Name, err)
		}
	}
	if vm, err = s.record(ctx, vm.ID, p.Name, next); err != nil {
		return vm, fmt.Errorf("set vm %q: %w", vm.Name, err)
	}
	if s.Run(vm.ID) != nil && p.AutoStopMS != nil {
		s.idle.Watch(vm.ID, s.AutoStop(vm))
	}
	if restart {
		if err := s.startLocked(ctx, vm, r); err != nil {
			return vm, fmt.Errorf("vm %q was stopped and changed, and does not start: %w", vm.Name, err)
		}
	}
	return s.Get(ctx, string(vm.ID))
}

func (s *Service) record(ctx context.Context, id banger.VMID, name string, next banger.Spec) (banger.VM, error) {
	vm, err := s.cfg.Store.UpdateVM(ctx, id, func(v *banger.VM) error {
		v.Name, v.Spec = cmp.Or(name, v.Name), next
		return nil
	})
	if err != nil {
		return vm, err
	}
	return vm, s.step(ctx, stepSet)
}

// checkSet checks what does not depend on the VM.
func (s *Service) checkSet(p api.VMSet) error {
	if p.Name != "" {
		if err := banger.CheckName("vm", p.Name); err != nil {
			return err
		}
	}
	if p.AutoStopMS != nil && *p.AutoStopMS < -1 {
		return errkind.New(api.KindInvalid, "a VM cannot be stopped %d ms before it is used", -*p.AutoStopMS)
	}
	for _, size := range []int64{p.RootSize, p.DiskSize} {
		if size < 0 || size%disk.SectorSize != 0 {
			return errkind.New(api.KindInvalid, "disk size of %d bytes is not a multiple of %d above zero", size, disk.SectorSize)
		}
	}
	return spec.CheckEnv(p.Env)
}
