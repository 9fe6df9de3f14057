// Package initramfs writes the initial file system that a guest starts from: two cpio archives joined. The base has the
// agent as /init and the modules that the kernel needs to reach its disks; it is the same for every VM with the same
// kernel and agent, and cached. The second has vm.json and is written for each start.
//
// /dev/console is in neither: it comes with the archive that is built into every kernel (usr/default_cpio_list).
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
	"sync"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/disk/reflink"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/cavaliergopher/cpio"
)

// Builder builds initramfs files with one agent.
type Builder struct {
	cache string
	agent string

	mu     sync.Mutex // guards digest, which is computed once
	digest string
}

// New returns a builder that keeps bases in the directory cache and takes the agent from the file agent.
func New(cache, agent string) *Builder { return &Builder{cache: cache, agent: agent} }

// Build writes the initramfs of a VM at path, replacing what is there. The file is private: cfg has secrets. cfg.Modules is
// set to the kernel's boot modules.
func (b *Builder) Build(_ context.Context, path string, k banger.Kernel, cfg guestapi.BootConfig) error {
	base, err := b.base(k)
	if err != nil {
		return fmt.Errorf("initramfs base of kernel %q: %w", k.Name, err)
	}
	for _, name := range k.BootModules {
		cfg.Modules = append(cfg.Modules, modulePath(name))
	}
	cfg.LateModules = k.LateModules
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := join(path, base, cfg); err != nil {
		return errors.Join(fmt.Errorf("write initramfs: %w", err), os.Remove(path))
	}
	return nil
}

func modulePath(name string) string { return "/modules/" + filepath.Base(name) }

func join(path, base string, cfg guestapi.BootConfig) error {
	src, err := os.Open(base)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	err = reflink.Clone(dst, src)
	if err != nil {
		_, err = io.Copy(dst, src) // copy_file_range(2) where it works
	} else {
		_, err = dst.Seek(0, io.SeekEnd)
	}
	return errors.Join(err, writeConfig(dst, cfg), dst.Close())
}

func writeConfig(w io.Writer, cfg guestapi.BootConfig) error {
	data, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	a := newArchive(w)
	a.file("vm.json", 0o600, data)
	return a.close()
}

// base returns the path of the cached base for k, and makes it when there is none.
func (b *Builder) base(k banger.Kernel) (string, error) {
	digest, err := b.agentDigest()
	if err != nil {
		return "", err
	}
	path := filepath.Join(b.cache, fmt.Sprintf("%s-%s.cpio", k.ID, digest[:16]))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(b.cache, 0o700); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(b.cache, ".base-*")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name()) // fails after the rename, and is meant to
	if err := errors.Join(b.writeBase(f, k), f.Sync(), f.Close()); err != nil {
		return "", err
	}
	return path, os.Rename(f.Name(), path)
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
	a.file("init", 0o755, agent)
	for _, name := range k.BootModules {
		data, err := os.ReadFile(filepath.Join(k.Base, name))
		if err != nil {
			return err
		}
		a.file(modulePath(name)[1:], 0o644, data)
	}
	return a.close()
}

func (b *Builder) agentDigest() (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.digest != "" {
		return b.digest, nil
	}
	f, err := os.Open(b.agent)
	if errors.Is(err, os.ErrNotExist) {
		return "", errkind.WithHint(errkind.New(api.KindUnavailable, "the guest agent %s is missing", b.agent),
			"build it: `make build`, or install banger anew")
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	b.digest = hex.EncodeToString(h.Sum(nil))
	return b.digest, nil
}

// alignment is the multiple to which an archive is padded, so that the next may follow.
const alignment = 512

// archive is one cpio archive in format newc. Its first error is kept and returned by close.
type archive struct {
	out *counter
	w   *cpio.Writer
	err error
}

func newArchive(w io.Writer) *archive {
	out := &counter{w: w}
	return &archive{out: out, w: cpio.NewWriter(out)}
}

func (a *archive) add(h *cpio.Header, data []byte) {
	if a.err != nil {
		return
	}
	if a.err = a.w.WriteHeader(h); a.err == nil && len(data) > 0 {
		_, a.err = a.w.Write(data)
	}
}

func (a *archive) dir(name string) { a.add(&cpio.Header{Name: name, Mode: cpio.TypeDir | 0o755}, nil) }

func (a *archive) file(name string, perm cpio.FileMode, data []byte) {
	a.add(&cpio.Header{Name: name, Mode: cpio.TypeReg | perm, Size: int64(len(data))}, data)
}

func (a *archive) close() error {
	if a.err == nil {
		a.err = a.w.Close()
	}
	if rest := a.out.n % alignment; a.err == nil && rest > 0 {
		_, a.err = a.out.Write(make([]byte, alignment-rest))
	}
	return a.err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
