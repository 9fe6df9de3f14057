package dmsnap_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/disk/disktest"
	"github.com/banger-vm/banger/internal/disk/dmsnap"
	"github.com/banger-vm/banger/internal/disk/dmsnap/dm"
	"github.com/banger-vm/banger/internal/errkind"
	"golang.org/x/sys/unix"
)

// real returns the cloner on the kernel that runs. At the end of the test no device may be left of it.
func real(t *testing.T) *dmsnap.Cloner {
	t.Helper()
	if err := dmsnap.Probe(); err != nil {
		t.Skip(err)
	}
	return dmsnap.New()
}

// leavesNothing checks, after the test, that the kernel has no loop device of a file in dir. udev's workers look at new devices,
// and a device goes when the last of them has closed it.
func leavesNothing(t *testing.T, dir string) {
	t.Cleanup(func() {
		var left []string
		for range 200 {
			if left = loopsOf(t, dir); len(left) == 0 {
				return
			}
			<-time.After(50 * time.Millisecond)
		}
		t.Errorf("loop devices are left: %q", left)
	})
}

func loopsOf(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, p := range paths {
		if b, err := os.ReadFile(p); err == nil && strings.HasPrefix(string(b), dir+"/") {
			found = append(found, p+": "+string(b))
		}
	}
	return found
}

func TestClonerOnThisKernel(t *testing.T) {
	c := real(t)
	disktest.Run(t, func(t *testing.T) disktest.Env {
		dir := t.TempDir()
		leavesNothing(t, dir)
		return disktest.Env{Cloner: removing{t, c}, Dir: dir, Full: disktest.FullDir(t), Disk: disktest.RawDisk{}}
	})
}

// removing removes, after the test, the clones that a check made.
type removing struct {
	t *testing.T
	disk.Cloner
}

func (r removing) Create(ctx context.Context, v disk.Volume) error {
	r.t.Cleanup(func() {
		if err := r.Remove(context.Background(), v); err != nil {
			r.t.Error(err)
		}
	})
	return r.Cloner.Create(ctx, v)
}

// smallDir returns a directory on a file system of its own, of 4 MiB. It is unmounted when nothing uses it any more.
func smallDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("banger-test", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	leavesNothing(t, dir)
	return dir
}

func TestAFullDiskOnThisKernel(t *testing.T) {
	c := real(t)
	ctx := t.Context()
	dir := smallDir(t)
	v := disk.Volume{Base: filepath.Join(t.TempDir(), "base"), Path: filepath.Join(dir, "root"), Size: 16 << 20}
	if err := errors.Join(os.WriteFile(v.Base, nil, 0o600), os.Truncate(v.Base, 16<<20), c.Create(ctx, v)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Remove(context.Background(), v); err != nil {
			t.Error(err)
		}
	})
	a, err := c.Activate(ctx, v)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Inspect(ctx, v); !errkind.Is(err, api.KindUnavailable) {
		t.Errorf("before it is full: %v", err)
	}
	// The kernel may take the bytes and fail later.
	f, err := os.OpenFile(a.Path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(make([]byte, 8<<20))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		t.Error("more was written than there is room for")
	}
	if err := c.Inspect(ctx, v); !errkind.Is(err, api.KindDataLoss) {
		t.Errorf("when it is full: %v", err)
	}
	if err := c.Deactivate(ctx, v); err != nil {
		t.Error(err)
	}
	if _, err := c.Activate(ctx, v); !errkind.Is(err, api.KindUnavailable) {
		t.Errorf("on a disk that is still full: %v", err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Activate(ctx, v); !errkind.Is(err, api.KindDataLoss) {
		t.Errorf("on a disk that has room again: %v", err)
	}
}

func TestADeviceThatIsOpenOnThisKernel(t *testing.T) {
	c := real(t)
	dir := t.TempDir()
	leavesNothing(t, dir)
	v := disk.Volume{Base: filepath.Join(dir, "base"), Path: filepath.Join(dir, "root"), Size: 1 << 20}
	if err := errors.Join(os.WriteFile(v.Base, make([]byte, 1<<20), 0o600), c.Create(t.Context(), v)); err != nil {
		t.Fatal(err)
	}
	a, err := c.Activate(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(a.Path)
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Deactivate(ended, v); !errkind.Is(err, api.KindBusy) {
		t.Errorf("while it is open: %v", err)
	}
	if err := errors.Join(f.Close(), c.Deactivate(t.Context(), v), c.Remove(t.Context(), v)); err != nil {
		t.Error(err)
	}
}

func TestWhatTheKernelLacks(t *testing.T) {
	real(t)
	if err := (dm.Kernel{}).Probe("no-such-target"); !errkind.Is(err, api.KindUnavailable) || errkind.Hint(err) == "" {
		t.Errorf("a target that does not exist: %v", err)
	}
	for name, call := range map[string]func(dm.Kernel) error{
		"status": func(k dm.Kernel) error { _, err := k.Status("banger-none"); return err },
		"remove": func(k dm.Kernel) error { return k.Remove("banger-none") },
		"resume": func(k dm.Kernel) error { _, err := k.Resume("banger-none"); return err },
	} {
		if err := call(dm.Kernel{}); !errkind.Is(err, api.KindNotFound) {
			t.Errorf("%s of a device that does not exist: %v", name, err)
		}
	}
}

func BenchmarkActivateDeactivate(b *testing.B) {
	if err := dmsnap.Probe(); err != nil {
		b.Skip(err)
	}
	dir := b.TempDir()
	v := disk.Volume{Base: filepath.Join(dir, "base"), Path: filepath.Join(dir, "root"), Size: 128 << 20}
	c := dmsnap.New()
	if err := errors.Join(os.WriteFile(v.Base, nil, 0o600), os.Truncate(v.Base, 64<<20), c.Create(b.Context(), v)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := c.Activate(b.Context(), v); err != nil {
			b.Fatal(err)
		}
		if err := c.Deactivate(b.Context(), v); err != nil {
			b.Fatal(err)
		}
	}
	if err := c.Remove(context.Background(), v); err != nil {
		b.Fatal(err)
	}
}
