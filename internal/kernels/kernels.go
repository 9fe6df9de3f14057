// Package kernels owns kernels: it imports them, keeps them, and gives them out by name. A kernel is a directory that its id
// names: the kernel image, as an uncompressed ELF file where that can be started; the modules that a guest must load before
// it reaches its root (boot/); and a read-only file system with all modules (modules.ext4) that every VM shares.
//
// A kernel is made in a directory .staging-ID, flushed to disk, and published by a rename and then a row; what is published
// never changes (its files are read-only). A crash in between leaves a directory without a row, which [Manager.Sweep]
// removes.
//
// Locks: a kernel's name is locked for a whole import or delete, download included, so that two imports of one name do not race
// and imports of different names run side by side; it comes after every VM lock. Manager.apt is held while apt works on
// the lists that all imports share, and comes after a name. Both waits honour the context.
package kernels

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/namelock"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/preflight"
)

// Store keeps the records of kernels.
type Store interface {
	PutKernel(ctx context.Context, k banger.Kernel) error
	GetKernel(ctx context.Context, ref string) (banger.Kernel, error)
	ListKernels(ctx context.Context) ([]banger.Kernel, error)
	DeleteKernel(ctx context.Context, id banger.KernelID) error
}

// Bases is the cache of what starts make of kernels (package initramfs).
type Bases interface {
	// Forget removes what is cached of one kernel.
	Forget(id banger.KernelID) error
	// Sweep removes what is cached of kernels other than these, and what interrupted writes left.
	Sweep(known []banger.KernelID) error
}

// Config is what a manager works with.
type Config struct {
	Dir      string // published kernels, a directory each, and imports under way; exists
	CacheDir string // for apt's lists, kept between imports; made when it is needed
	Store    Store
	Bases    Bases
	Log      *slog.Logger
}

// Manager owns kernels.
type Manager struct {
	cfg   Config
	names namelock.Locks
	apt   chan struct{} // capacity 1: full while apt runs
}

// New returns a manager.
func New(cfg Config) *Manager {
	return &Manager{cfg: cfg, names: namelock.Locks{Noun: "kernel"}, apt: make(chan struct{}, 1)}
}

const (
	// DefaultName is the kernel that is imported when there is none.
	DefaultName = "debian-cloud"
	// DefaultPackage is the Debian package it comes from.
	DefaultPackage = "linux-image-cloud-amd64"
	stagingPrefix  = ".staging-"
)

// List returns all kernels, oldest first.
func (m *Manager) List(ctx context.Context) ([]banger.Kernel, error) {
	return m.cfg.Store.ListKernels(ctx)
}

// Get returns the kernel that ref names: by name, id or unique prefix of an id.
func (m *Manager) Get(ctx context.Context, ref string) (banger.Kernel, error) {
	return m.cfg.Store.GetKernel(ctx, ref)
}

// EnsureDefault returns the default kernel, or the oldest when none has that name; when there is no kernel at all it imports
// [DefaultPackage]. Concurrent callers share one import.
func (m *Manager) EnsureDefault(ctx context.Context, r opstate.Reporter) (banger.Kernel, error) {
	ctx, unlock, err := m.names.Lock(ctx, DefaultName)
	if err != nil {
		return banger.Kernel{}, err
	}
	defer unlock()
	all, err := m.List(ctx)
	if err != nil {
		return banger.Kernel{}, err
	}
	for _, k := range all {
		if k.Name == DefaultName {
			return k, nil
		}
	}
	if len(all) > 0 {
		return all[0], nil
	}
	return m.importLocked(ctx, api.KernelImport{Name: DefaultName, Deb: DefaultPackage}, r)
}

// Delete removes a kernel. users names who needs it; a kernel in use is refused.
func (m *Manager) Delete(ctx context.Context, ref string, users func(context.Context, banger.Kernel) ([]string, error)) error {
	k, err := m.Get(ctx, ref)
	if err != nil {
		return err
	}
	ctx, unlock, err := m.names.Lock(ctx, k.Name)
	if err != nil {
		return err
	}
	defer unlock()
	by, err := users(ctx, k)
	if err != nil {
		return err
	}
	if len(by) > 0 {
		return errkind.WithHint(errkind.New(api.KindPrecondition, "kernel %q is used by %s", k.Name, strings.Join(by, ", ")),
			"delete those first")
	}
	// First the row: files without one are swept at the next start, a row without files would be a broken kernel.
	if err := m.cfg.Store.DeleteKernel(ctx, k.ID); err != nil {
		return err
	}
	err = errors.Join(removeKernel(filepath.Join(m.cfg.Dir, string(k.ID))), m.cfg.Bases.Forget(k.ID))
	if err != nil {
		return fmt.Errorf("delete kernel %q: %w", k.Name, err)
	}
	return nil
}

// Sweep removes what interrupted imports and deletes left: what [Manager.Leftovers] finds, and in the cache the bases of
// kernels that are no more. It runs before anything else uses the manager.
func (m *Manager) Sweep(ctx context.Context) error {
	all, err := m.List(ctx)
	if err != nil {
		return err
	}
	known := make([]banger.KernelID, len(all))
	for i, k := range all {
		known[i] = k.ID
	}
	found, err := m.Leftovers(ctx)
	errs := []error{m.cfg.Bases.Sweep(known), err}
	for _, p := range found {
		m.cfg.Log.Info("removing leftover of an import", "what", p.Detail)
		_, err := p.Mend(ctx)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Leftovers finds what interrupted imports and deletes left below Config.Dir: directories with the names that we give, and
// nothing else. It may be asked at any time: while a kernel is imported or deleted it finds nothing.
func (m *Manager) Leftovers(ctx context.Context) ([]preflight.Problem, error) {
	entries, err := os.ReadDir(m.cfg.Dir)
	if err != nil {
		return nil, err
	}
	all, err := m.List(ctx)
	if err != nil || !m.names.Idle() {
		return nil, err // what is made after this has other names
	}
	known := map[string]bool{}
	for _, k := range all {
		known[string(k.ID)] = true
	}
	var found []preflight.Problem
	for _, e := range entries {
		path := filepath.Join(m.cfg.Dir, e.Name())
		id, staged := strings.CutPrefix(e.Name(), stagingPrefix)
		if _, err := os.Lstat(path); err != nil || !e.IsDir() || !kernelID.MatchString(id) || known[id] {
			continue
		}
		remove := removeKernel
		if staged {
			remove = os.RemoveAll
		}
		found = append(found, preflight.Problem{
			Detail: "left of a kernel's import: " + path, Fix: "remove it: `banger doctor --fix`", Minor: true,
			Mend: func(context.Context) (string, error) { return "removed", remove(path) },
		})
	}
	return found, nil
}

var kernelID = regexp.MustCompile(`^[0-9a-f]{12}$`)

// removeKernel removes a published kernel's files, by name.
func removeKernel(dir string) error {
	boot, err := filepath.Glob(filepath.Join(dir, bootDir, "*.ko"))
	if err != nil {
		return err
	}
	var errs []error
	paths := append(boot, filepath.Join(dir, bootDir), filepath.Join(dir, modulesFile), filepath.Join(dir, elfFile),
		filepath.Join(dir, bzImageFile), dir)
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
