package vm

import (
	"context"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/opstate"
	"golang.org/x/sync/errgroup"
)

// guestPatience bounds what one guest may take of a question to many: a hanging one is told and does not keep the others back.
const guestPatience = 2 * time.Second

// Stats measures the VMs that refs name, or all that run, at once.
func (s *Service) Stats(ctx context.Context, refs []string) ([]api.VMStats, error) {
	vms, err := s.named(ctx, refs)
	if err != nil {
		return nil, err
	}
	stats := make([]api.VMStats, len(vms))
	var g errgroup.Group
	for i, vm := range vms {
		g.Go(func() error { stats[i] = s.measure(ctx, vm); return nil })
	}
	return stats, g.Wait()
}

// named returns the VMs that refs name; without refs, all that run.
func (s *Service) named(ctx context.Context, refs []string) ([]banger.VM, error) {
	var vms []banger.VM
	for _, ref := range refs {
		vm, err := s.Get(ctx, ref)
		if err != nil {
			return nil, err
		}
		vms = append(vms, vm)
	}
	if len(refs) > 0 {
		return vms, nil
	}
	all, err := s.List(ctx)
	for _, vm := range all {
		if vm.State == banger.Running {
			vms = append(vms, vm)
		}
	}
	return vms, err
}

func (s *Service) measure(ctx context.Context, vm banger.VM) api.VMStats {
	st := api.VMStats{
		ID: string(vm.ID), Name: vm.Name, State: vm.State.String(), At: time.Now().UTC(), VCPU: vm.Spec.VCPU, Mem: int64(vm.Spec.MemMiB) << 20,
	}
	u, err := s.cfg.Chain.Measure(s.bareRun(vm, opstate.Discard))
	if err != nil {
		s.log.Debug("measure disks", "vm", vm.Name, "err", err) // one is just being made or removed
	}
	st.RootAllocated, st.DiskAllocated = u.Root, u.Work
	run := s.Run(vm.ID)
	if run == nil {
		return st
	}
	// A process that has just ended is found out by its watcher, and uses nothing.
	if p, err := host.ProcessUsage(run.Machine.Handle().PID); err == nil {
		st.CPUMS, st.MemResident = p.CPU.Milliseconds(), p.Resident
	}
	ctx, cancel := context.WithTimeout(ctx, guestPatience)
	defer cancel()
	var guest guestapi.Stats
	conn, err := run.Link.Get(ctx)
	if err == nil {
		err = conn.Call(ctx, guestapi.MethodStats, nil, &guest)
	}
	if err != nil {
		st.GuestError = err.Error()
		return st
	}
	st.Guest = &guest
	return st
}

// Ping measures how long the agent of a running VM takes to answer.
func (s *Service) Ping(ctx context.Context, ref string) (time.Duration, error) {
	_, conn, err := s.Guest(ctx, ref)
	if err != nil {
		return 0, err
	}
	var hello guestapi.Hello
	begun := time.Now()
	err = conn.Call(ctx, guestapi.MethodHello, nil, &hello)
	return time.Since(begun), err
}

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
		if u, err := s.cfg.Chain.Measure(s.bareRun(vm, opstate.Discard)); err == nil {
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
