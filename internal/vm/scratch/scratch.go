// Package scratch boots guests that are nobody's VM, for work whose result is their disks.
//
// A guest of it has a directory "ID" of [Maker], with its disks as plain files, and no record: it is in no list, and what a daemon finds
// in that directory when it starts is what an earlier one left, machine included. Its network is the VMM's user-mode stack,
// whatever the mode of the others, so that nothing of it is on the host but its process and its files.
package scratch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/failpoint"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/vm/capability"
	"github.com/banger-vm/banger/internal/vm/spec"
	"github.com/banger-vm/banger/internal/vmm"
)

// Kernels finds kernels by name, id or unique id prefix, and provides the one to take where none is named.
type Kernels interface {
	Get(ctx context.Context, ref string) (banger.Kernel, error)
	EnsureDefault(ctx context.Context, r opstate.Reporter) (banger.Kernel, error)
}

// Config is what a Maker works with.
type Config struct {
	Dir          string                      // of the guests' directories
	RunDir       func(id banger.VMID) string // for the sockets of their machines
	Chain        *capability.Chain           // boots them
	Driver       vmm.Driver                  // has a user-mode network
	Cloner       string                      // whose clones are raw files that need nothing of their base
	Kernels      Kernels
	Kernel       string // name of the kernel of an image that names none; empty: the default one
	VCPU, MemMiB int
	Points       failpoint.Set
	Log          *slog.Logger
}

// Maker makes such guests. Its methods may be called concurrently.
type Maker struct{ cfg Config }

// New returns a Maker. Call [Maker.Sweep] before anything else.
func New(cfg Config) *Maker { return &Maker{cfg} }

// Work is what a guest is for.
type Work struct {
	Image    banger.Image
	Kernel   string // name; empty: the image's
	RootSize int64  // bytes of the root disk, at least the image's
	// Do works in the guest. An error of it is returned as it is.
	Do func(ctx context.Context, conn *guest.Conn) error
	// Take gets the paths of the root and the work disk, raw ext4 file systems that were unmounted, and may rename the files. What it
	// leaves is removed.
	Take func(ctx context.Context, root, work string) error
}

// The named steps, each a failpoint; those of the chain come before.
const (
	stepBooted  = "scratch.booted"
	stepDone    = "scratch.done"
	stepStopped = "scratch.stopped"
	stepTaken   = "scratch.taken"
)

// Steps returns the names of the failpoints, for fault tests.
func Steps() []string { return []string{stepBooted, stepDone, stepStopped, stepTaken} }

// Run boots a guest, has w.Do work in it, powers it off, and hands its disks to w.Take. Whatever happens, neither machine nor
// directory is left.
func (m *Maker) Run(ctx context.Context, w Work, rep opstate.Reporter) (err error) {
	r, err := m.newRun(ctx, w, rep)
	if err != nil {
		return err
	}
	if err := m.cfg.Chain.Check(ctx, r); err != nil {
		return err
	}
	if err := host.PrivateDir(r.Dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.cfg.Chain.Dispose(ctx, r)) }()
	if err := m.cfg.Chain.Attach(ctx, r); err != nil {
		return err
	}
	if err := m.use(ctx, r, w); err != nil {
		return err
	}
	if err := m.cfg.Chain.Detach(ctx, r); err != nil {
		return err
	}
	if err := m.cfg.Points.Hit(ctx, stepStopped); err != nil {
		return err
	}
	if err := w.Take(ctx, filepath.Join(r.Dir, "root.raw"), filepath.Join(r.Dir, "work.raw")); err != nil {
		return err
	}
	return m.cfg.Points.Hit(ctx, stepTaken)
}

func (m *Maker) newRun(ctx context.Context, w Work, rep opstate.Reporter) (*capability.Run, error) {
	id := banger.NewID[banger.VMID]()
	want, err := spec.Identify(banger.Spec{
		ImageID: w.Image.ID, Image: w.Image.Name, Init: guestapi.InitAgent, VCPU: m.cfg.VCPU, MemMiB: m.cfg.MemMiB, NAT: true,
		RootSize: w.RootSize, WorkSize: w.Image.WorkSize, Cloner: m.cfg.Cloner,
	}, id)
	if err != nil {
		return nil, err
	}
	want.MachineID = "" // what becomes an image leaves it to its VMs
	if w.Image.Run != nil {
		want.Env = w.Image.Run.Env
	}
	r := m.bare(id, rep)
	r.VM.Spec, r.Image, r.Driver = want, w.Image, m.cfg.Driver
	r.Kernel, err = m.kernel(ctx, w, rep)
	return r, err
}

func (m *Maker) kernel(ctx context.Context, w Work, rep opstate.Reporter) (banger.Kernel, error) {
	for _, name := range []string{w.Kernel, w.Image.Kernel, m.cfg.Kernel} {
		if name != "" {
			return m.cfg.Kernels.Get(ctx, name)
		}
	}
	return m.cfg.Kernels.EnsureDefault(ctx, rep)
}

// bare is a run that is good for cleaning up only.
func (m *Maker) bare(id banger.VMID, rep opstate.Reporter) *capability.Run {
	return &capability.Run{
		VM: banger.VM{ID: id, Name: "scratch"}, Report: rep, Dir: filepath.Join(m.cfg.Dir, string(id)), RunDir: m.cfg.RunDir(id),
	}
}

// use works in the guest and powers it off.
func (m *Maker) use(ctx context.Context, r *capability.Run, w Work) error {
	if err := m.cfg.Points.Hit(ctx, stepBooted); err != nil {
		return err
	}
	conn, err := r.Link.Get(ctx)
	if err != nil {
		return err
	}
	if err := w.Do(ctx, conn); err != nil {
		return err
	}
	if err := m.cfg.Points.Hit(ctx, stepDone); err != nil {
		return err
	}
	return powerOff(ctx, r, conn)
}

// powerOff powers the guest off. Only a machine that has ended by that has disks which hold all that the guest wrote.
func powerOff(ctx context.Context, r *capability.Run, conn *guest.Conn) error {
	r.Report.Stage("power off guest")
	err := conn.Call(ctx, guestapi.MethodPowerOff, nil, nil)
	if err != nil && !errkind.Is(err, api.KindUnavailable) { // the answer may be lost: the machine ends right after it
		return err
	}
	patience, cancel := context.WithTimeout(ctx, offTimeout)
	defer cancel()
	select {
	case <-r.Machine.Exited():
		if end := r.Machine.Exit(); !end.Clean {
			return errkind.New(api.KindGuest, "the guest did not power off: %s", end.Reason)
		}
		return nil
	case <-patience.Done():
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return errors.Join(errkind.New(api.KindGuest, "the guest did not power off within %s", offTimeout), err)
	}
}

// offTimeout is many times what a guest takes to write what it has and end.
const offTimeout = 2 * time.Minute

// Sweep ends and removes what an earlier daemon was working with when it ended.
func (m *Maker) Sweep(ctx context.Context) error {
	entries, err := os.ReadDir(m.cfg.Dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		m.cfg.Log.Info("removing a guest whose work was not finished", "id", e.Name())
		if err := m.cfg.Chain.Dispose(ctx, m.bare(banger.VMID(e.Name()), opstate.Discard)); err != nil {
			errs = append(errs, fmt.Errorf("guest %s: %w", e.Name(), err))
		}
	}
	return errors.Join(errs...)
}
