package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vmm"
)

// Leftovers finds what is on the host of VMs that have no record, and what a machine left of VMs that do not run. It may be
// asked at any time: what belongs to an operation under way is no leftover. Mending removes it, machine first.
func (s *Service) Leftovers(ctx context.Context, handles HandleReader) ([]preflight.Problem, error) {
	ids, err := s.traced()
	if err != nil {
		return nil, err
	}
	// A record is written before anything of its VM is made, so one that is missing now was missing when the traces were seen.
	vms, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	known := map[banger.VMID]banger.VM{}
	for _, vm := range vms {
		known[vm.ID] = vm
	}
	var found []preflight.Problem
	for id := range ids {
		vm, ok := known[id]
		switch {
		case !ok:
			vm = banger.VM{ID: id, Name: string(id)}
			if left := s.left(ctx, id, true); left != "" {
				found = append(found, unclaimed(vm, left, func(ctx context.Context) error { return s.killAndRemove(ctx, vm, handles) }))
			}
		case !vm.State.Live() && !vm.Pending:
			if left := s.stale(ctx, vm); left != "" {
				found = append(found, s.notRunning(vm, left))
			}
		}
	}
	return found, nil
}

func unclaimed(vm banger.VM, left string, remove func(context.Context) error) preflight.Problem {
	return preflight.Problem{
		Detail: fmt.Sprintf("no VM has the id %s, but there is %s", vm.ID, left), Minor: true,
		Fix:  "remove it: `banger doctor --fix`",
		Mend: func(ctx context.Context) (string, error) { return "removed", remove(ctx) },
	}
}

func (s *Service) notRunning(vm banger.VM, left string) preflight.Problem {
	return preflight.Problem{
		Detail: fmt.Sprintf("vm %q is %s, but there is %s", vm.Name, vm.State, left), Minor: true,
		Fix: "end and remove it: `banger doctor --fix`",
		Mend: func(ctx context.Context) (string, error) {
			ctx, vm, unlock, err := s.lock(ctx, string(vm.ID), "being cleaned up", opstate.Discard)
			if err != nil {
				return "", err
			}
			defer unlock()
			if vm.State.Live() {
				return "nothing, since the VM was started meanwhile", nil
			}
			return "removed", s.cfg.Chain.Detach(ctx, s.Bare(vm, opstate.Discard))
		},
	}
}

// traced returns the ids for which there is a directory, or a process that mentions one.
func (s *Service) traced() (map[banger.VMID]bool, error) {
	ids := map[banger.VMID]bool{}
	add := func(name string) {
		if isID(name) {
			ids[banger.VMID(name)] = true
		}
	}
	runs := filepath.Dir(s.cfg.Dirs.VMRunDir("x"))
	for _, dir := range []string{s.cfg.Dirs.VMsDir(), runs} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			add(e.Name())
		}
	}
	names, err := host.MentionedBelow(runs)
	for _, name := range names {
		add(name)
	}
	return ids, err
}

// stale is what a machine left of a VM whose record says that it does not run. A VM that is busy is passed over.
func (s *Service) stale(ctx context.Context, vm banger.VM) string {
	const patience = time.Second
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ctx, now, unlock, err := s.lock(bounded, string(vm.ID), "being checked", opstate.Discard)
	if err != nil {
		return ""
	}
	defer unlock()
	if now.State.Live() {
		return ""
	}
	return s.left(ctx, vm.ID, false)
}

// left says what there is of a VM: its process, its run directory and, if that is asked for, its durable directory.
func (s *Service) left(ctx context.Context, id banger.VMID, durable bool) string {
	dir, runDir := s.cfg.Dirs.VMDir(id), s.cfg.Dirs.VMRunDir(id)
	var left []string
	for _, d := range s.cfg.Drivers {
		f, ok := d.(vmm.Finder)
		if !ok {
			continue
		}
		if h, err := f.Find(ctx, id, dir, runDir); err == nil {
			left = append(left, fmt.Sprintf("the process %d", h.PID))
		} else if !errkind.Is(err, api.KindNotFound) {
			s.log.Warn("look for a machine", "id", id, "err", err)
		}
	}
	paths := []string{runDir}
	if durable {
		paths = append(paths, dir)
	}
	for _, path := range paths {
		if _, err := os.Lstat(path); err == nil {
			left = append(left, "the directory "+path)
		}
	}
	return strings.Join(left, " and ")
}

// removeLeftovers puts right what [Service.Leftovers] finds. A failure is logged and does not keep the others back.
func (s *Service) removeLeftovers(ctx context.Context, handles HandleReader) error {
	found, err := s.Leftovers(ctx, handles)
	for _, p := range found {
		s.log.Info("removing leftovers", "what", p.Detail)
		if _, err := p.Mend(ctx); err != nil {
			s.log.Error("remove leftovers", "what", p.Detail, "err", err)
		}
	}
	return err
}
