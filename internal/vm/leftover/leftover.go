// Package leftover finds what is on the host of VMs that have no record, and what a machine left of VMs that do not run.
package leftover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vmm"
)

// Dirs names the directories of VMs.
type Dirs interface {
	VMsDir() string                 // parent of the durable ones
	VMDir(id banger.VMID) string    // durable
	VMRunDir(id banger.VMID) string // sockets
}

// Finder finds leftovers.
type Finder struct {
	List    func(context.Context) ([]banger.VM, error)
	Drivers map[string]vmm.Driver
	Dirs    Dirs
	Log     *slog.Logger
	// Lock takes a VM's lock for action, and returns the record as it is under the lock.
	Lock func(ctx context.Context, id banger.VMID, action string) (under context.Context, vm banger.VM, unlock func(), err error)
	// Detach ends what a VM that does not run has on the host, under its lock.
	Detach func(context.Context, banger.VM) error
	// Remove ends and removes everything of a VM that has no record.
	Remove func(context.Context, banger.VM) error
}

// Find returns what there is. It may be asked at any time: what belongs to an operation under way is no leftover. Mending removes
// it, machine first.
func (f *Finder) Find(ctx context.Context) ([]preflight.Problem, error) {
	ids, err := f.traced()
	if err != nil {
		return nil, err
	}
	// A record is written before anything of its VM is made, so one that is missing now was missing when the traces were seen.
	vms, err := f.List(ctx)
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
			if left := f.left(ctx, id, true); left != "" {
				found = append(found, unclaimed(vm, left, func(ctx context.Context) error { return f.Remove(ctx, vm) }))
			}
		case !vm.State.Live() && !vm.Pending:
			if left := f.stale(ctx, vm); left != "" {
				found = append(found, f.notRunning(vm, left))
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

func (f *Finder) notRunning(vm banger.VM, left string) preflight.Problem {
	return preflight.Problem{
		Detail: fmt.Sprintf("vm %q is %s, but there is %s", vm.Name, vm.State, left), Minor: true,
		Fix: "end and remove it: `banger doctor --fix`",
		Mend: func(ctx context.Context) (string, error) {
			ctx, vm, unlock, err := f.Lock(ctx, vm.ID, "being cleaned up")
			if err != nil {
				return "", err
			}
			defer unlock()
			if vm.State.Live() {
				return "nothing, since the VM was started meanwhile", nil
			}
			return "removed", f.Detach(ctx, vm)
		},
	}
}

// traced returns the ids for which there is a directory, or a process that mentions one.
func (f *Finder) traced() (map[banger.VMID]bool, error) {
	ids := map[banger.VMID]bool{}
	add := func(name string) {
		if isID(name) {
			ids[banger.VMID(name)] = true
		}
	}
	runs := filepath.Dir(f.Dirs.VMRunDir("x"))
	for _, dir := range []string{f.Dirs.VMsDir(), runs} {
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
func (f *Finder) stale(ctx context.Context, vm banger.VM) string {
	const patience = time.Second
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ctx, now, unlock, err := f.Lock(bounded, vm.ID, "being checked")
	if err != nil {
		return ""
	}
	defer unlock()
	if now.State.Live() {
		return ""
	}
	return f.left(ctx, vm.ID, false)
}

// left says what there is of a VM: its process, its run directory and, if that is asked for, its durable directory.
func (f *Finder) left(ctx context.Context, id banger.VMID, durable bool) string {
	dir, runDir := f.Dirs.VMDir(id), f.Dirs.VMRunDir(id)
	var left []string
	for _, d := range f.Drivers {
		finder, ok := d.(vmm.Finder)
		if !ok {
			continue
		}
		if h, err := finder.Find(ctx, id, dir, runDir); err == nil {
			left = append(left, fmt.Sprintf("the process %d", h.PID))
		} else if !errkind.Is(err, api.KindNotFound) {
			f.Log.Warn("look for a machine", "id", id, "err", err)
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

// isID reports whether a directory's name is one that we give to VMs.
func isID(name string) bool {
	if len(name) != len(banger.NewID[banger.VMID]()) {
		return false
	}
	for _, c := range name {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
