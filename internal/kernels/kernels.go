// Package kernels owns kernels: it imports them, keeps them, and gives them out by name. A kernel is a directory that its id
// names: the kernel image, as an uncompressed ELF file where that can be started; the modules that a guest must load before
// it reaches its root (boot/); and a read-only file system with all modules (modules.ext4) that every VM shares.
//
// A kernel is made in a directory .staging-* and published by a rename and then a row; what is published never changes. A
// crash in between leaves a directory without a row, which [Manager.Sweep] removes.
//
// Locks: Manager.importing is held for a whole import, one at a time, because imports are rare and heavy; it comes after
// every VM lock.
package kernels

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
	"github.com/banger-vm/banger/internal/opstate"
)

// Store keeps the records of kernels.
type Store interface {
	PutKernel(ctx context.Context, k banger.Kernel) error
	GetKernel(ctx context.Context, ref string) (banger.Kernel, error)
	ListKernels(ctx context.Context) ([]banger.Kernel, error)
	DeleteKernel(ctx context.Context, id banger.KernelID) error
}

// Config is what a manager works with.
type Config struct {
	Dir      string // published kernels, a directory each
	CacheDir string // downloads under way
	Store    Store
	Log      *slog.Logger
}

// Manager owns kernels.
type Manager struct {
	cfg       Config
	importing chan struct{} // capacity 1: full while an import runs
}

// New returns a manager.
func New(cfg Config) *Manager { return &Manager{cfg: cfg, importing: make(chan struct{}, 1)} }

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

// EnsureDefault returns the default kernel, or the oldest when it goes by another name; when there is none it imports
// [DefaultPackage].
func (m *Manager) EnsureDefault(ctx context.Context, r opstate.Reporter) (banger.Kernel, error) {
	unlock, err := m.lock(ctx)
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

func (m *Manager) lock(ctx context.Context) (func(), error) {
	select {
	case m.importing <- struct{}{}:
		return func() { <-m.importing }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Import makes a kernel of what p names. A kernel that cannot serve banger's guests is refused with what it lacks.
func (m *Manager) Import(ctx context.Context, p api.KernelImport, r opstate.Reporter) (banger.Kernel, error) {
	unlock, err := m.lock(ctx)
	if err != nil {
		return banger.Kernel{}, err
	}
	defer unlock()
	return m.importLocked(ctx, p, r)
}

func (m *Manager) importLocked(ctx context.Context, p api.KernelImport, r opstate.Reporter) (banger.Kernel, error) {
	if p.Name == "" {
		p.Name = defaultNameOf(p)
	}
	if err := banger.CheckName("kernel", p.Name); err != nil {
		return banger.Kernel{}, err
	}
	if _, err := m.Get(ctx, p.Name); err == nil {
		return banger.Kernel{}, errkind.WithHint(errkind.New(api.KindExists, "kernel %q exists", p.Name),
			"choose another with --name, or delete it: `banger kernel delete %s`", p.Name)
	}
	stage, err := os.MkdirTemp(m.cfg.Dir, stagingPrefix)
	if err != nil {
		return banger.Kernel{}, err
	}
	defer os.RemoveAll(stage) // ours from end to end
	k, err := m.build(ctx, p, stage, r)
	if err != nil {
		return banger.Kernel{}, fmt.Errorf("import kernel %q: %w", p.Name, err)
	}
	return k, m.publish(ctx, stage, k)
}

func defaultNameOf(p api.KernelImport) string {
	if p.Deb == DefaultPackage || p.Deb == "" && p.Path == "" && !p.Host {
		return DefaultName
	}
	name := "host"
	if from := p.Deb + p.Path; from != "" {
		name = strings.TrimSuffix(filepath.Base(from), ".deb")
	}
	return strings.Trim(strings.Map(labelRune, strings.ToLower(name)), "-")
}

func labelRune(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
		return r
	}
	return '-'
}

// build makes the kernel's files in stage/out and returns its record, with paths as they will be once published.
func (m *Manager) build(ctx context.Context, p api.KernelImport, stage string, r opstate.Reporter) (banger.Kernel, error) {
	src, err := m.open(ctx, p, filepath.Join(stage, "src"), r)
	if err != nil {
		return banger.Kernel{}, err
	}
	out := filepath.Join(stage, "out")
	if err := os.Mkdir(out, 0o700); err != nil {
		return banger.Kernel{}, err
	}
	k := banger.Kernel{
		ID: banger.NewID[banger.KernelID](), Name: p.Name, Arch: "x86_64", Source: src.name, Created: time.Now().UTC(),
	}
	r.Stage("unpack kernel")
	config, err := takeImage(src, out, &k)
	if err != nil {
		return k, err
	}
	k.Facts = facts(config)
	if err := refuse(k.Facts, src.modules != ""); err != nil {
		return k, err
	}
	if src.modules == "" {
		return k, nil
	}
	r.Stage("prepare kernel modules")
	return k, takeModules(ctx, src.modules, out, &k)
}

// publish moves stage/out to its place and writes the row.
func (m *Manager) publish(ctx context.Context, stage string, k banger.Kernel) error {
	dir := filepath.Join(m.cfg.Dir, string(k.ID))
	k.Image = filepath.Join(dir, imageFile)
	if k.Modules != "" {
		k.Modules, k.Base = filepath.Join(dir, modulesFile), filepath.Join(dir, bootDir)
	}
	if err := os.Rename(filepath.Join(stage, "out"), dir); err != nil {
		return err
	}
	if err := m.cfg.Store.PutKernel(ctx, k); err != nil {
		return errors.Join(err, removeKernel(dir))
	}
	m.cfg.Log.Info("kernel imported", "kernel", k.Name, "release", k.Release)
	return nil
}

// Delete removes a kernel. users names who needs it; a kernel in use is refused.
func (m *Manager) Delete(ctx context.Context, ref string, users func(context.Context, banger.Kernel) ([]string, error)) error {
	k, err := m.Get(ctx, ref)
	if err != nil {
		return err
	}
	by, err := users(ctx, k)
	if err != nil {
		return err
	}
	if len(by) > 0 {
		return errkind.WithHint(errkind.New(api.KindPrecondition, "kernel %q is used by %s", k.Name, strings.Join(by, ", ")),
			"delete those first")
	}
	if err := m.cfg.Store.DeleteKernel(ctx, k.ID); err != nil {
		return err
	}
	return removeKernel(filepath.Join(m.cfg.Dir, string(k.ID)))
}

// Sweep removes what interrupted imports and deletes left. It runs before anything else uses the manager.
func (m *Manager) Sweep(ctx context.Context) error {
	entries, err := os.ReadDir(m.cfg.Dir)
	if err != nil {
		return err
	}
	all, err := m.List(ctx)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, k := range all {
		known[string(k.ID)] = true
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(m.cfg.Dir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), stagingPrefix):
			errs = append(errs, os.RemoveAll(path))
		case !known[e.Name()]:
			if _, err := os.Stat(filepath.Join(path, imageFile)); err == nil {
				errs = append(errs, removeKernel(path))
			}
		}
	}
	return errors.Join(errs...)
}

// removeKernel removes a published kernel's files, by name.
func removeKernel(dir string) error {
	boot, err := filepath.Glob(filepath.Join(dir, bootDir, "*.ko"))
	if err != nil {
		return err
	}
	var errs []error
	paths := append(boot, filepath.Join(dir, bootDir), filepath.Join(dir, modulesFile), filepath.Join(dir, imageFile), dir)
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
