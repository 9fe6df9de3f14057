// Package disktest is the conformance suite of disk.Cloner: one check for each sentence of the contract. [Run] runs it as
// subtests; the checks return errors rather than fail a test, so that a test can show that each catches a wrong cloner.
package disktest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"golang.org/x/sys/unix"
)

// Env is where and on what the checks work. Dir and Full are empty directories of the check's own.
type Env struct {
	Cloner disk.Cloner
	Dir    string
	// Full is a directory on a file system with room for little more than nothing, and without room for a clone that
	// costs something; empty: [FullDir] could not make one.
	Full string
	Disk Disk
}

// Disk reads and writes an attached clone as a VMM would.
type Disk interface {
	Read(ctx context.Context, a disk.Attachment) ([]byte, error)
	Write(ctx context.Context, a disk.Attachment, off int64, data []byte) error
}

// Check is one sentence of the contract.
type Check struct {
	Name string
	Run  func(ctx context.Context, e Env) error
}

// BaseSize is the size of the bases that checks use, in bytes: data, a hole, data.
const BaseSize = 8 << 20

// ErrSkip is what a check returns that has not what it needs. It wraps the reason.
var ErrSkip = errors.New("skip")

// Run runs every check as a subtest, each with an Env of its own.
func Run(t *testing.T, newEnv func(t *testing.T) Env) {
	for _, c := range Checks() {
		t.Run(c.Name, func(t *testing.T) {
			err := c.Run(t.Context(), newEnv(t))
			if errors.Is(err, ErrSkip) {
				t.Skip(err)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// Checks returns the suite.
func Checks() []Check {
	return []Check{
		{"a clone reads as its base and zeros after it", readsAsBase},
		{"a clone takes less than its base's data, or at least keeps the holes", keepsHoles},
		{"writing a clone changes neither base nor another clone", isolated},
		{"every step may be repeated", idempotent},
		{"a repeated create keeps what was written", keepsWrites},
		{"a larger size extends the clone at activate, and a smaller one does not shrink it", grows},
		{"a size below the base's is refused and leaves nothing", refusesSmall},
		{"a size that is no multiple of a sector is refused", refusesOdd},
		{"a missing base is not found and leaves nothing", missingBase},
		{"activating a removed clone is not found", activateGone},
		{"a missing directory is an error that leaves nothing", missingDir},
		{"a canceled create is whole or nothing", canceled},
		{"the leftover of a crash is replaced by create and deleted by remove", leftover},
		{"a full file system is an error that leaves nothing, and the next create works", full},
		{"remove leaves nothing and keeps the base", removes},
	}
}

// base makes a base file and returns a volume on it, twice the base's size.
func (e Env) base(name string) (disk.Volume, []byte, error) {
	content := make([]byte, BaseSize)
	rnd := rand.NewChaCha8(sha256.Sum256([]byte(name)))
	rnd.Read(content[:1<<20])
	rnd.Read(content[BaseSize-3*4096 : BaseSize-4096]) // the last block is a hole
	path := filepath.Join(e.Dir, name+".ext4")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return disk.Volume{}, nil, err
	}
	_, err = f.Write(content[:1<<20])
	_, err2 := f.WriteAt(content[BaseSize-3*4096:BaseSize-4096], BaseSize-3*4096)
	err = errors.Join(err, err2, f.Truncate(BaseSize), f.Chmod(0o444), f.Close())
	return disk.Volume{Base: path, Path: filepath.Join(e.Dir, name), Size: 2 * BaseSize}, content, err
}

// clone makes and activates a clone.
func (e Env) clone(ctx context.Context, v disk.Volume) (disk.Attachment, error) {
	if err := e.Cloner.Create(ctx, v); err != nil {
		return disk.Attachment{}, fmt.Errorf("create: %w", err)
	}
	a, err := e.Cloner.Activate(ctx, v)
	if err != nil {
		return a, fmt.Errorf("activate: %w", err)
	}
	return a, nil
}

// expect checks that the attached disk reads as content and zeros up to size.
func (e Env) expect(ctx context.Context, a disk.Attachment, content []byte, size int64) error {
	got, err := e.Disk.Read(ctx, a)
	if err != nil {
		return err
	}
	if int64(len(got)) != size {
		return fmt.Errorf("disk has %d bytes, want %d", len(got), size)
	}
	if !bytes.Equal(got[:len(content)], content) {
		return errors.New("disk does not read as expected")
	}
	if len(bytes.Trim(got[len(content):], "\x00")) != 0 {
		return errors.New("disk has other bytes than zeros at its end")
	}
	return nil
}

// only checks that dir holds nothing but the named files.
func only(dir string, want ...string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	allowed := map[string]bool{}
	for _, w := range want {
		allowed[filepath.Base(w)] = true
	}
	for _, entry := range entries {
		if !allowed[entry.Name()] {
			return fmt.Errorf("left behind: %s", entry.Name())
		}
	}
	return nil
}

// files returns the files of a clone, of which there is at least one: they have its path and an extension.
func files(v disk.Volume) ([]string, error) {
	m, err := filepath.Glob(v.Path + ".*")
	m = slices.DeleteFunc(m, func(f string) bool { return f == v.Base })
	if err == nil && len(m) == 0 {
		err = fmt.Errorf("clone has no files %s.*", v.Path)
	}
	return m, err
}

func wantKind(err error, k errkind.Kind) error {
	if err == nil {
		return fmt.Errorf("no error, want one of kind %s", k)
	}
	if !errkind.Is(err, k) {
		return fmt.Errorf("error %q is of kind %s, want %s", err, errkind.Of(err), k)
	}
	return nil
}

func sameFile(path string, want []byte) error {
	got, err := os.ReadFile(path)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%s has changed", path)
	}
	return err
}

func readsAsBase(ctx context.Context, e Env) error {
	v, content, err := e.base("a")
	if err != nil {
		return err
	}
	a, err := e.clone(ctx, v)
	if err != nil {
		return err
	}
	return e.expect(ctx, a, content, v.Size)
}

func keepsHoles(ctx context.Context, e Env) error {
	v, _, err := e.base("a")
	if err != nil {
		return err
	}
	if _, err := e.clone(ctx, v); err != nil {
		return err
	}
	files, err := files(v)
	if err != nil {
		return err
	}
	var sum int64
	for _, f := range files {
		n, err := host.Allocated(f)
		if err != nil {
			return err
		}
		sum += n
	}
	if sum > 2<<20 { // the base has 1 MiB and two blocks of data
		return fmt.Errorf("clone takes %d bytes of its base's 1 MiB", sum)
	}
	return nil
}

func isolated(ctx context.Context, e Env) error {
	v, content, err := e.base("a")
	if err != nil {
		return err
	}
	w := v
	w.Path += "-other"
	a, err := e.clone(ctx, v)
	if err != nil {
		return err
	}
	b, err := e.clone(ctx, w)
	if err != nil {
		return err
	}
	if err := e.Disk.Write(ctx, a, 512<<10, bytes.Repeat([]byte{0xa5}, 64<<10)); err != nil {
		return err
	}
	changed := bytes.Clone(content)
	copy(changed[512<<10:], bytes.Repeat([]byte{0xa5}, 64<<10))
	return errors.Join(sameFile(v.Base, content), e.expect(ctx, a, changed, v.Size), e.expect(ctx, b, content, v.Size))
}

func idempotent(ctx context.Context, e Env) error {
	v, content, err := e.base("a")
	if err != nil {
		return err
	}
	// Before Create, the steps that undo have nothing to undo.
	steps := []func() error{
		func() error { return e.Cloner.Deactivate(ctx, v) },
		func() error { return e.Cloner.Remove(ctx, v) },
		func() error { return e.Cloner.Create(ctx, v) },
		func() error { _, err := e.Cloner.Activate(ctx, v); return err },
		func() error {
			a, err := e.Cloner.Activate(ctx, v)
			return errors.Join(err, e.expect(ctx, a, content, v.Size))
		},
		func() error { return e.Cloner.Deactivate(ctx, v) },
		func() error { return e.Cloner.Remove(ctx, v) },
	}
	for i, step := range steps {
		for range 2 {
			if err := step(); err != nil {
				return fmt.Errorf("step %d: %w", i, err)
			}
		}
	}
	return only(e.Dir, v.Base)
}

func keepsWrites(ctx context.Context, e Env) error {
	v, content, err := e.base("a")
	if err != nil {
		return err
	}
	a, err := e.clone(ctx, v)
	if err != nil {
		return err
	}
	if err := e.Disk.Write(ctx, a, 0, []byte("written")); err != nil {
		return err
	}
	copy(content, "written")
	if err := e.Cloner.Deactivate(ctx, v); err != nil {
		return err
	}
	if a, err = e.clone(ctx, v); err != nil {
		return err
	}
	return e.expect(ctx, a, content, v.Size)
}

func grows(ctx context.Context, e Env) error {
	v, content, err := e.base("a")
	if err != nil {
		return err
	}
	v.Size = BaseSize
	a, err := e.clone(ctx, v)
	if err != nil {
		return err
	}
	if err := e.Disk.Write(ctx, a, BaseSize-4096, bytes.Repeat([]byte{7}, 4096)); err != nil {
		return err
	}
	copy(content[BaseSize-4096:], bytes.Repeat([]byte{7}, 4096))
	for _, size := range []int64{BaseSize + disk.SectorSize, 24 << 20} {
		v.Size = size
		if a, err = e.Cloner.Activate(ctx, v); err != nil {
			return err
		}
		if err := e.expect(ctx, a, content, size); err != nil {
			return fmt.Errorf("size %d: %w", size, err)
		}
	}
	if err := e.Disk.Write(ctx, a, v.Size-4096, bytes.Repeat([]byte{9}, 4096)); err != nil {
		return err
	}
	content = append(content, make([]byte, v.Size-BaseSize-4096)...)
	content = append(content, bytes.Repeat([]byte{9}, 4096)...)
	v.Size = BaseSize
	if a, err = e.Cloner.Activate(ctx, v); err != nil {
		return err
	}
	return e.expect(ctx, a, content, 24<<20)
}

func refusesSmall(ctx context.Context, e Env) error {
	v, _, err := e.base("a")
	if err != nil {
		return err
	}
	v.Size = BaseSize - disk.SectorSize
	return errors.Join(wantKind(e.Cloner.Create(ctx, v), api.KindInvalid), only(e.Dir, v.Base))
}

func refusesOdd(ctx context.Context, e Env) error {
	v, _, err := e.base("a")
	if err != nil {
		return err
	}
	v.Size++
	return errors.Join(wantKind(e.Cloner.Create(ctx, v), api.KindInvalid), only(e.Dir, v.Base))
}

func missingBase(ctx context.Context, e Env) error {
	v := disk.Volume{Base: filepath.Join(e.Dir, "gone.ext4"), Path: filepath.Join(e.Dir, "a"), Size: BaseSize}
	return errors.Join(wantKind(e.Cloner.Create(ctx, v), api.KindNotFound), only(e.Dir))
}

func activateGone(ctx context.Context, e Env) error {
	v, _, err := e.base("a")
	if err != nil {
		return err
	}
	if _, err := e.clone(ctx, v); err != nil {
		return err
	}
	if err := e.Cloner.Remove(ctx, v); err != nil {
		return err
	}
	_, err = e.Cloner.Activate(ctx, v)
	return errors.Join(wantKind(err, api.KindNotFound), only(e.Dir, v.Base))
}

func missingDir(ctx context.Context, e Env) error {
	v, _, err := e.base("a")
	if err != nil {
		return err
	}
	v.Path = filepath.Join(e.Dir, "no", "a")
	if err := e.Cloner.Create(ctx, v); err == nil {
		return errors.New("no error")
	}
	return only(e.Dir, v.Base)
}

func canceled(ctx context.Context, e Env) error {
	v, content, err := e.base("a")
	if err != nil {
		return err
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := e.Cloner.Create(ended, v); err != nil {
		return errors.Join(wantKind(err, api.KindCanceled), only(e.Dir, v.Base))
	}
	a, err := e.Cloner.Activate(ctx, v)
	return errors.Join(err, e.expect(ctx, a, content, v.Size))
}

// leftover plays a crash: every file that a clone consists of is there under the name it has while it is written.
func leftover(ctx context.Context, e Env) error {
	v, content, err := e.base("a")
	if err != nil {
		return err
	}
	if _, err := e.clone(ctx, v); err != nil {
		return err
	}
	whole, err := files(v)
	if err != nil {
		return err
	}
	crash := func() error {
		err := errors.Join(e.Cloner.Deactivate(ctx, v), e.Cloner.Remove(ctx, v))
		for _, f := range whole {
			err = errors.Join(err, os.WriteFile(f+".partial", []byte("cut sh"), 0o600))
		}
		return err
	}
	if err := crash(); err != nil {
		return err
	}
	a, err := e.clone(ctx, v)
	if err != nil {
		return fmt.Errorf("after a crash: %w", err)
	}
	if err := errors.Join(e.expect(ctx, a, content, v.Size), only(e.Dir, append(whole, v.Base)...)); err != nil {
		return err
	}
	if err := crash(); err != nil {
		return err
	}
	return errors.Join(e.Cloner.Remove(ctx, v), only(e.Dir, v.Base))
}

func full(ctx context.Context, e Env) error {
	if e.Full == "" {
		return fmt.Errorf("%w: no file system to fill: mounting one takes root", ErrSkip)
	}
	v, content, err := e.base("a")
	if err != nil {
		return err
	}
	small := v
	small.Path = filepath.Join(e.Full, "a")
	if err := e.Cloner.Create(ctx, small); err == nil {
		return errors.New("no error")
	} else if !errkind.Is(err, api.KindUnavailable) {
		return wantKind(err, api.KindUnavailable)
	}
	if err := only(e.Full); err != nil {
		return err
	}
	a, err := e.clone(ctx, v)
	return errors.Join(err, e.expect(ctx, a, content, v.Size))
}

func removes(ctx context.Context, e Env) error {
	v, content, err := e.base("a")
	if err != nil {
		return err
	}
	if _, err := e.clone(ctx, v); err != nil {
		return err
	}
	err = errors.Join(e.Cloner.Deactivate(ctx, v), e.Cloner.Remove(ctx, v))
	return errors.Join(err, only(e.Dir, v.Base), sameFile(v.Base, content))
}

// RawDisk reads and writes raw attachments.
type RawDisk struct{}

// Read returns the whole disk.
func (RawDisk) Read(_ context.Context, a disk.Attachment) ([]byte, error) {
	if a.Format != "raw" {
		return nil, fmt.Errorf("attachment's format is %q", a.Format)
	}
	return os.ReadFile(a.Path)
}

// Write writes data at off.
func (RawDisk) Write(_ context.Context, a disk.Attachment, off int64, data []byte) error {
	f, err := os.OpenFile(a.Path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.NewOffsetWriter(f, off), bytes.NewReader(data))
	return errors.Join(err, f.Close())
}

// FullDir returns a directory on a file system of its own that has no room for a clone, unmounted when the test ends. Without
// the right to mount it is empty.
func FullDir(t *testing.T) string {
	dir := t.TempDir()
	if err := unix.Mount("banger-test", dir, "tmpfs", 0, "size=16k"); err != nil {
		return ""
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// Mounted returns a directory on a fresh file system of type fstype (xfs, btrfs), made in a file and mounted through a loop device
// until the test ends. It skips the test, with the reason, where that cannot be done.
func Mounted(t *testing.T, fstype string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a file system takes root")
	}
	img := filepath.Join(t.TempDir(), "fs.img")
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(img, 512<<20); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, argv := range [][]string{{"mkfs." + fstype, "-q", img}, {"mount", "-o", "loop", img, dir}} {
		if err := host.Run(t.Context(), host.Command{Argv: argv}); err != nil {
			t.Skipf("no %s file system: %v", fstype, err)
		}
	}
	t.Cleanup(func() {
		// t's context has ended by now. umount(8) also lets the loop device go.
		if err := host.Run(context.Background(), host.Command{Argv: []string{"umount", dir}}); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}
