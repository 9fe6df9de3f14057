package vm

import (
	"context"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/opstate"
)

// Prune deletes the VMs that do not run, hold nothing unexported, and were left alone for as long as p says. What it keeps of
// those that do not run is listed with the reason.
func (s *Service) Prune(ctx context.Context, p api.VMPrune, r opstate.Reporter) (api.VMPruned, error) {
	out := api.VMPruned{Deleted: []api.PrunedVM{}, Kept: []api.PrunedVM{}}
	vms, err := s.List(ctx)
	if err != nil {
		return out, err
	}
	r.Stage("delete VMs")
	for i, vm := range vms {
		r.Progress(int64(i), int64(len(vms)), "VMs")
		if vm.State.Live() || vm.Pending || s.Run(vm.ID) != nil {
			continue
		}
		if unused := time.Since(lastTouched(vm)); unused < time.Duration(p.OlderThanMS)*time.Millisecond {
			continue
		}
		item := api.PrunedVM{ID: string(vm.ID), Name: vm.Name}
		if u, err := s.cfg.Chain.Measure(s.Bare(vm, opstate.Discard)); err == nil {
			item.Freed = u.Root + u.Work
		}
		if err := s.prune(ctx, vm, p.DryRun, r); err != nil {
			if ctx.Err() != nil {
				return out, context.Cause(ctx)
			}
			item.Reason, item.Freed = err.Error(), 0
			out.Kept = append(out.Kept, item)
			continue
		}
		out.Deleted = append(out.Deleted, item)
	}
	return out, nil
}

func (s *Service) prune(ctx context.Context, vm banger.VM, dryRun bool, r opstate.Reporter) error {
	if dryRun {
		return s.mayDelete(ctx, vm, s.Run(vm.ID))
	}
	err := s.Delete(ctx, string(vm.ID), false, r)
	if errkind.Is(err, api.KindNotFound) {
		return nil // somebody else did
	}
	return err
}

// lastTouched is when a VM that does not run was last made, started, stopped or used.
func lastTouched(vm banger.VM) time.Time {
	last := vm.Created
	for _, t := range []time.Time{vm.Started, vm.Stopped, vm.LastUsed} {
		if t.After(last) {
			last = t
		}
	}
	return last
}
