package dmsnap_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/disk/disktest"
	"github.com/banger-vm/banger/internal/disk/dmsnap"
	"github.com/banger-vm/banger/internal/errkind"
)

func TestClonerOnAFakeKernel(t *testing.T) {
	disktest.Run(t, func(t *testing.T) disktest.Env {
		k := newKernel()
		return disktest.Env{Cloner: dmsnap.NewOn(k), Dir: t.TempDir(), Full: disktest.FullDir(t), Disk: k}
	})
}

// bench is a clone, twice as large as its base, on a kernel of its own.
type bench struct {
	*kernel
	c *dmsnap.Cloner
	v disk.Volume
}

const baseSize = 1 << 20

func newBench(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	k := newKernel()
	b := &bench{k, dmsnap.NewOn(k), disk.Volume{Base: filepath.Join(dir, "base.ext4"), Path: filepath.Join(dir, "root"), Size: 2 * baseSize}}
	if err := os.WriteFile(b.v.Base, bytes.Repeat([]byte("base"), baseSize/4), 0o400); err != nil {
		t.Fatal(err)
	}
	return b
}

// step is one call of the contract.
type step struct {
	name string
	run  func(ctx context.Context, b *bench) error
}

func steps() []step {
	return []step{
		{"create", func(ctx context.Context, b *bench) error { return b.c.Create(ctx, b.v) }},
		{"activate", func(ctx context.Context, b *bench) error { _, err := b.c.Activate(ctx, b.v); return err }},
		{"grow", func(ctx context.Context, b *bench) error {
			b.v.Size = 3 * baseSize
			_, err := b.c.Activate(ctx, b.v)
			return err
		}},
		{"deactivate", func(ctx context.Context, b *bench) error { return b.c.Deactivate(ctx, b.v) }},
		{"remove", func(ctx context.Context, b *bench) error { return b.c.Remove(ctx, b.v) }},
	}
}

// mark writes to an active clone.
func (b *bench) mark(ctx context.Context) error {
	a, err := b.c.Activate(ctx, b.v)
	if err != nil {
		return err
	}
	return errors.Join(b.Write(ctx, a, 4096, []byte("in the store")), b.Write(ctx, a, baseSize, []byte("in the tail")))
}

// whole checks, after mark, that nothing was lost.
func (b *bench) whole(ctx context.Context) error {
	a, err := b.c.Activate(ctx, b.v)
	if err != nil {
		return err
	}
	got, err := b.Read(ctx, a)
	if err == nil && (!bytes.HasPrefix(got[4096:], []byte("in the storebase")) || !bytes.HasPrefix(got[baseSize:], []byte("in the tail\x00"))) {
		err = errors.New("what was written is lost")
	}
	if err == nil && int64(len(got)) != b.v.Size {
		err = fmt.Errorf("disk has %d bytes, want %d", len(got), b.v.Size)
	}
	return err
}

// gone checks that nothing is left.
func (b *bench) gone() error {
	left, err := filepath.Glob(b.v.Path + "*")
	if err == nil && len(left)+len(b.devices)+len(b.loops) > 0 {
		err = fmt.Errorf("left: files %v, devices %v, loops %v", left, b.devices, b.loops)
	}
	return err
}

var errInjected = errors.New("injected")

// crash is what a call panics with where the daemon is killed.
type crash struct{}

// during runs s with fn called before the n-th call to the kernel; hit: there was such a call.
func during(ctx context.Context, b *bench, s step, n int, fn func() error) (hit bool, err error) {
	count := 0
	b.fault = func(string) error {
		if count++; count == n {
			hit = true
			return fn()
		}
		return nil
	}
	defer func() {
		b.fault = nil
		if p := recover(); p != nil {
			if _, ok := p.(crash); !ok {
				panic(p)
			}
		}
	}()
	err = s.run(ctx, b)
	return hit, err
}

// eachCall calls fn for each call to the kernel that each step makes, with a bench on which the steps before were done and the
// clone was marked.
func eachCall(t *testing.T, fn func(t *testing.T, b *bench, s step, n int) (hit bool)) {
	total := 0
	for i, s := range steps() {
		for n := 1; ; n++ {
			hit := false
			t.Run(fmt.Sprintf("%s, call %d", s.name, n), func(t *testing.T) {
				b := newBench(t)
				for j, before := range steps()[:i] {
					if err := before.run(t.Context(), b); err != nil {
						t.Fatal(err)
					}
					if j == 1 {
						if err := b.mark(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
				}
				hit = fn(t, b, s, n)
			})
			if !hit {
				break
			}
			total++
		}
	}
	if total < 15 {
		t.Errorf("only %d calls were met", total)
	}
}

// finish takes the clone from wherever s left it through the rest of its life.
func finish(t *testing.T, b *bench, s step) {
	t.Helper()
	ctx := t.Context()
	if err := s.run(ctx, b); err != nil {
		t.Fatalf("the same step again: %v", err)
	}
	switch s.name {
	case "create", "activate":
		if err := b.mark(ctx); err != nil {
			t.Fatal(err)
		}
		fallthrough
	case "grow", "deactivate":
		if err := b.whole(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(b.c.Deactivate(ctx, b.v), b.c.Remove(ctx, b.v), b.gone()); err != nil {
		t.Fatal(err)
	}
}

func TestAFaultInEachCallToTheKernel(t *testing.T) {
	eachCall(t, func(t *testing.T, b *bench, s step, n int) bool {
		hit, err := during(t.Context(), b, s, n, func() error { return errInjected })
		// To look at a table that may be there is a question whose answer changes nothing but the work that follows.
		if hit && !errors.Is(err, errInjected) && b.calls[len(b.calls)-1] != "status" {
			t.Errorf("error %v", err)
		}
		for path, l := range b.loops {
			if l.opens > 0 {
				t.Errorf("loop device of %s is held open", path)
			}
		}
		finish(t, b, s)
		return hit
	})
}

func TestAKillInEachCallToTheKernel(t *testing.T) {
	eachCall(t, func(t *testing.T, b *bench, s step, n int) bool {
		hit, _ := during(t.Context(), b, s, n, func() error { panic(crash{}) })
		finish(t, b, s)
		return hit
	})
}

func TestAPowerCutInEachCallToTheKernel(t *testing.T) {
	eachCall(t, func(t *testing.T, b *bench, s step, n int) bool {
		hit, _ := during(t.Context(), b, s, n, func() error { panic(crash{}) })
		b.reboot()
		finish(t, b, s)
		return hit
	})
}

func TestTwoClonesShareTheLoopDeviceOfTheirImage(t *testing.T) {
	b := newBench(t)
	other := b.v
	other.Path += "-other"
	other.Size = baseSize
	for _, v := range []disk.Volume{b.v, other} {
		if err := b.c.Create(t.Context(), v); err != nil {
			t.Fatal(err)
		}
		if _, err := b.c.Activate(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
	if len(b.loops) != 4 || len(b.devices) != 2 { // image, two stores, one tail
		t.Errorf("loops %v, devices %v", b.loops, b.devices)
	}
	if err := errors.Join(b.c.Deactivate(t.Context(), b.v), b.c.Deactivate(t.Context(), other)); err != nil {
		t.Fatal(err)
	}
	if len(b.loops)+len(b.devices) != 0 {
		t.Errorf("loops %v, devices %v", b.loops, b.devices)
	}
}

func TestALostStore(t *testing.T) {
	ctx := t.Context()
	active := func(t *testing.T) *bench {
		b := newBench(t)
		if err := errors.Join(b.c.Create(ctx, b.v), b.mark(ctx)); err != nil {
			t.Fatal(err)
		}
		return b
	}
	lost := func(t *testing.T, b *bench) {
		t.Helper()
		for range 2 { // the second time by the record alone
			_, err := b.c.Activate(ctx, b.v)
			if !errkind.Is(err, api.KindDataLoss) || !strings.Contains(errkind.Hint(err), "root.cow") {
				t.Errorf("activate: %v, hint %q", err, errkind.Hint(err))
			}
			b.reboot()
		}
		if err := errors.Join(b.c.Remove(ctx, b.v), b.gone()); err != nil {
			t.Error(err)
		}
	}
	t.Run("is told while the clone is in use, and refused afterwards", func(t *testing.T) {
		b := active(t)
		b.invalid[b.v.Path+".cow"] = true
		if err := b.c.Inspect(ctx, b.v); !errkind.Is(err, api.KindDataLoss) {
			t.Errorf("inspect: %v", err)
		}
		if err := b.c.Deactivate(ctx, b.v); err != nil || len(b.devices) != 0 {
			t.Errorf("deactivate: %v, devices %v", err, b.devices)
		}
		lost(t, b)
	})
	t.Run("is found when the clone is let go", func(t *testing.T) {
		b := active(t)
		b.invalid[b.v.Path+".cow"] = true
		if err := b.c.Deactivate(ctx, b.v); err != nil {
			t.Error(err)
		}
		lost(t, b)
	})
	t.Run("is found after a reboot, and no device stays", func(t *testing.T) {
		b := active(t)
		b.invalid[b.v.Path+".cow"] = true
		b.reboot()
		if _, err := b.c.Activate(ctx, b.v); !errkind.Is(err, api.KindDataLoss) || len(b.devices)+len(b.loops) != 0 {
			t.Errorf("activate: %v, devices %v", err, b.devices)
		}
		lost(t, b)
	})
	for _, file := range []string{".cow", ".dmsnap"} {
		t.Run("a missing file "+file+" is data loss, and nothing is made over the rest", func(t *testing.T) {
			b := active(t)
			b.reboot()
			if err := os.Remove(b.v.Path + file); err != nil {
				t.Fatal(err)
			}
			err := b.c.Create(ctx, b.v)
			if err == nil {
				_, err = b.c.Activate(ctx, b.v)
			}
			if !errkind.Is(err, api.KindDataLoss) || errkind.Hint(err) == "" {
				t.Errorf("error %v", err)
			}
		})
	}
	t.Run("an image that has changed its size is refused", func(t *testing.T) {
		b := active(t)
		if err := errors.Join(os.Chmod(b.v.Base, 0o600), os.Truncate(b.v.Base, baseSize+4096)); err != nil {
			t.Fatal(err)
		}
		if _, err := b.c.Activate(ctx, b.v); !errkind.Is(err, api.KindDataLoss) {
			t.Errorf("error %v", err)
		}
	})
}

func TestInspect(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	if err := b.c.Create(ctx, b.v); err != nil {
		t.Fatal(err)
	}
	if err := b.c.Inspect(ctx, b.v); err != nil {
		t.Errorf("a clone that is not active: %v", err)
	}
	if err := b.mark(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.c.Inspect(ctx, b.v); err != nil {
		t.Errorf("a clone with room: %v", err)
	}
	full := disktest.FullDir(t)
	if full == "" {
		t.Skip("no file system to fill: mounting one takes root")
	}
	// The store moves to a file system that is nearly full.
	moved := filepath.Join(full, "root.cow")
	if err := errors.Join(os.WriteFile(moved, nil, 0o600), os.Truncate(moved, 2*baseSize),
		os.Remove(b.v.Path+".cow"), os.Symlink(moved, b.v.Path+".cow")); err != nil {
		t.Fatal(err)
	}
	if err := b.c.Inspect(ctx, b.v); !errkind.Is(err, api.KindUnavailable) || errkind.Hint(err) == "" {
		t.Errorf("a clone without room: %v", err)
	}
}

func TestADeviceThatIsOpen(t *testing.T) {
	open := func(t *testing.T, users int) (*bench, error) {
		b := newBench(t)
		if err := errors.Join(b.c.Create(t.Context(), b.v), b.mark(t.Context())); err != nil {
			t.Fatal(err)
		}
		for _, d := range b.devices {
			d.users = users
		}
		return b, b.c.Deactivate(t.Context(), b.v)
	}
	synctest.Test(t, func(t *testing.T) {
		if b, err := open(t, 3); err != nil || len(b.devices) != 0 {
			t.Errorf("open for a moment: %v, devices %v", err, b.devices)
		}
		b, err := open(t, 1_000_000)
		if !errkind.Is(err, api.KindBusy) || !strings.Contains(errkind.Hint(err), "lsof /dev/mapper/banger-") {
			t.Errorf("open for ever: %v, hint %q", err, errkind.Hint(err))
		}
		if err := b.whole(t.Context()); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}
