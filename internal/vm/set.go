package vm

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/opstate"
)

// Set changes what a VM is to be. The record is changed at once and whole; processors, memory, disks, network and environment
// take effect at the next start, so a running VM must be restarted for them (p.Restart), else they are refused with kind
// precondition. Disks are grown by the start that follows, and the guest then grows its file systems.
func (s *Service) Set(ctx context.Context, p api.VMSet, r opstate.Reporter) (banger.VM, error) {
	if err := s.checkSet(p); err != nil {
		return banger.VM{}, err
	}
	vm, unlock, err := s.lock(ctx, p.Ref.Ref, "being changed", r)
	if err != nil {
		return vm, err
	}
	defer unlock()
	next, err := s.changed(vm.Spec, p)
	if err != nil {
		return vm, fmt.Errorf("set vm %q: %w", vm.Name, err)
	}
	restart := s.Run(vm.ID) != nil && needsStart(vm.Spec, next)
	if restart && !p.Restart {
		return vm, errkind.WithHint(errkind.New(api.KindPrecondition, "vm %q runs: that takes effect at a start only", vm.Name),
			"add --restart, which stops it, changes it and starts it again; or stop it first")
	}
	if restart {
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

func (s *Service) record(ctx context.Context, id banger.VMID, name string, spec banger.Spec) (banger.VM, error) {
	vm, err := s.cfg.Store.UpdateVM(ctx, id, func(v *banger.VM) error {
		v.Name, v.Spec = or(name, v.Name), spec
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
	return checkEnv(p.Env)
}

// changed returns spec with the changes of p.
func (s *Service) changed(spec banger.Spec, p api.VMSet) (banger.Spec, error) {
	if err := s.checkSize(spec.VMM, p.VCPU, p.MemMiB); err != nil {
		return spec, err
	}
	spec.VCPU, spec.MemMiB = or(p.VCPU, spec.VCPU), or(p.MemMiB, spec.MemMiB)
	for _, d := range []struct {
		what string
		size *int64
		want int64
	}{{"root disk", &spec.RootSize, p.RootSize}, {"work disk", &spec.WorkSize, p.DiskSize}} {
		if d.want != 0 && d.want < *d.size {
			return spec, errkind.WithHint(errkind.New(api.KindInvalid, "%d bytes are less than the %s has, %d", d.want, d.what, *d.size),
				"disks only grow; for a smaller one make another VM")
		}
		*d.size = or(d.want, *d.size)
	}
	if p.NAT != nil {
		spec.NAT = *p.NAT
	}
	var err error
	if spec.Env, err = mergeEnv(spec.Env, p.Env, p.UnsetEnv); err != nil {
		return spec, err
	}
	switch {
	case p.AutoStopMS == nil:
	case *p.AutoStopMS == -1:
		spec.AutoStop = nil
	default:
		spec.AutoStop = durationMS(p.AutoStopMS)
	}
	return spec, nil
}

// mergeEnv returns env with the entries of set, NAME=VALUE, in place of those of the same name or at the end, and without the
// names in unset. A name to unset that is not there is an error.
func mergeEnv(env, set, unset []string) ([]string, error) {
	env = slices.Clone(env)
	find := func(name string) int {
		return slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
	}
	for _, name := range unset {
		i := find(name)
		if i < 0 {
			return nil, errkind.New(api.KindNotFound, "there is no variable %q to unset", name)
		}
		env = slices.Delete(env, i, i+1)
	}
	for _, e := range set {
		name, _, _ := strings.Cut(e, "=")
		if i := find(name); i >= 0 {
			env[i] = e
			continue
		}
		env = append(env, e)
	}
	return env, nil
}

// needsStart reports whether a running VM must be started anew to be as next says.
func needsStart(now, next banger.Spec) bool {
	now.AutoStop, next.AutoStop = nil, nil
	return !reflect.DeepEqual(now, next)
}
