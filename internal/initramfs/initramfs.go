// Package initramfs writes the initial file system that a guest starts from: two cpio archives joined. The base has the
// agent as /init, the directories it mounts on, /dev/console, and the modules that the kernel needs to reach its disks; it
// is the same for every VM with the same kernel and agent, and cached. The second has vm.json and is written for each start.
//
// The kernel unpacks joined archives one after the other, when each begins at a multiple of 4 bytes
// (Documentation/driver-api/early-userspace/buffer-format.rst). They are not compressed: under emulation unpacking costs
// more than reading.
package initramfs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/disk/reflink"
	"github.com/banger-vm/banger/internal/errkind"
)

// Builder builds initramfs files with one agent. Its methods are safe for concurrent use.
type Builder struct {
	cache string
	agent string

	mu     sync.Mutex // guards the fields below; held while the agent is read, so that it is read once
	digest string
	of     version
}

// version tells one content of the agent's file from another.
type version struct {
	size     int64
	modified time.Time
}

// New returns a builder that keeps bases in the directory cache and takes the agent from the file agent.
func New(cache, agent string) *Builder { return &Builder{cache: cache, agent: agent} }

// CheckAgent tells whether there is an agent to put into archives.
func (b *Builder) CheckAgent() error {
	_, err := b.AgentDigest()
	return err
}

// Build writes the initramfs of a VM at path, replacing what is there. The file is private: cfg has secrets. cfg.Modules is
// set to the kernel's boot modules; the caller gives [banger.Kernel.OnPCI] where those of PCI are among them. On error nothing
// new is left at path.
func (b *Builder) Build(_ context.Context, path string, k banger.Kernel, cfg guestapi.BootConfig) error {
	base, err := b.open(k)
	if err != nil {
		return fmt.Errorf("initramfs base of kernel %q: %w", k.Name, err)
	}
	defer base.Close()
	cfg.Modules = make([]string, len(k.BootModules))
	for i, name := range k.BootModules {
		cfg.Modules[i] = "/" + modulePath(name)
	}
	cfg.LateModules = k.LateModules
	err = disk.Stage(path, func(dst *os.File) error {
		if reflink.Clone(dst, base) != nil {
			if _, err := io.Copy(dst, base); err != nil { // copy_file_range(2) where it works
				return err
			}
		} else if _, err := dst.Seek(0, io.SeekEnd); err != nil {
			return err
		}
		return writeConfig(dst, cfg)
	})
	if err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	return nil
}

// Forget removes the cached bases of a kernel that is no more.
func (b *Builder) Forget(id banger.KernelID) error { return b.keepOnly(id, "") }

// basePattern is the name of a base: the kernel's id and the beginning of the agent's digest. tempPattern is the name of one
// that is being written.
const (
	basePattern = "????????????-????????????????.cpio"
	tempPattern = ".base-*"
)

// Sweep removes the cached bases of kernels other than the known ones, and bases that were not written to the end. It must not
// run beside [Builder.Build].
func (b *Builder) Sweep(known []banger.KernelID) error {
	entries, err := os.ReadDir(b.cache)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var errs []error
	for _, e := range entries {
		base, _ := filepath.Match(basePattern, e.Name())
		temp, _ := filepath.Match(tempPattern, e.Name())
		if id, _, _ := strings.Cut(e.Name(), "-"); temp || base && !slices.Contains(known, banger.KernelID(id)) {
			errs = append(errs, removeIfThere(filepath.Join(b.cache, e.Name())))
		}
	}
	return errors.Join(errs...)
}

func (b *Builder) keepOnly(id banger.KernelID, current string) error {
	bases, err := filepath.Glob(filepath.Join(b.cache, string(id)+"-*.cpio"))
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range bases {
		if path != current {
			errs = append(errs, removeIfThere(path))
		}
	}
	return errors.Join(errs...)
}

// modulePath is where a boot module is in the archive.
func modulePath(name string) string { return "modules/" + filepath.Base(name) }

func writeConfig(w io.Writer, cfg guestapi.BootConfig) error {
	data, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	a := newArchive(w)
	a.file("vm.json", 0o600, data)
	return a.close()
}

// open opens the cached base for k, which it makes when there is none. Bases with older agents go then: who has one open
// keeps it.
func (b *Builder) open(k banger.Kernel) (*os.File, error) {
	digest, err := b.AgentDigest()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(b.cache, fmt.Sprintf("%s-%s.cpio", k.ID, digest[:16]))
	f, err := os.Open(path)
	if !errors.Is(err, os.ErrNotExist) {
		return f, err
	}
	if err := os.MkdirAll(b.cache, 0o700); err != nil {
		return nil, err
	}
	// Two starts may make the same base at once: each under a name of its own, and either is right.
	if f, err = os.CreateTemp(b.cache, tempPattern); err != nil {
		return nil, err
	}
	err = errors.Join(b.writeBase(f, k), f.Chmod(0o400), f.Sync())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), removeIfThere(f.Name()))
	}
	return f, b.keepOnly(k.ID, path)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (b *Builder) writeBase(w io.Writer, k banger.Kernel) error {
	agent, err := os.ReadFile(b.agent)
	if err != nil {
		return err
	}
	a := newArchive(w)
	for _, dir := range []string{"dev", "proc", "sys", "newroot", "modules"} {
		a.dir(dir)
	}
	// The kernel opens it as init's standard streams. Most kernels have one built in (usr/default_cpio_list), but not those
	// with an initramfs of their own.
	a.device("dev/console", 0o600, 5, 1)
	a.file("init", 0o755, agent)
	for _, name := range k.OnPCI().BootModules { // one base serves both
		data, err := os.ReadFile(filepath.Join(k.Base, name))
		if err != nil {
			return err
		}
		a.file(modulePath(name), 0o644, data)
	}
	return a.close()
}

// AgentDigest returns the SHA-256 of the agent's file, in hex. It reads the file only when it has changed. Without one it is of kind
// unavailable.
func (b *Builder) AgentDigest() (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, err := os.Open(b.agent)
	if errors.Is(err, os.ErrNotExist) {
		return "", errkind.WithHint(errkind.New(api.KindUnavailable, "the guest agent %s is missing", b.agent),
			"build it: `make build`, or install banger anew")
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	if v := (version{st.Size(), st.ModTime()}); b.digest == "" || v != b.of {
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return "", err
		}
		b.digest, b.of = hex.EncodeToString(h.Sum(nil)), v
	}
	return b.digest, nil
}
