package vm_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/failpoint"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/vm/scratch"
)

// scratch returns a maker on the house's computer with failpoints.
func (h *house) scratch(points string) *scratch.Maker {
	h.t.Helper()
	set, err := failpoint.Parse(points)
	if err != nil {
		h.t.Fatal(err)
	}
	dir := filepath.Join(h.dir, "scratch")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		h.t.Fatal(err)
	}
	return scratch.New(scratch.Config{
		Dir: dir, RunDir: func(id banger.VMID) string { return filepath.Join(h.dir, "scratch-run", string(id)) }, Chain: h.chain,
		Driver: h.host.Driver(), Cloner: "copy", Kernels: kernels{h}, VCPU: 1, MemMiB: 256, Points: set, Log: slog.New(slog.DiscardHandler),
	})
}

// nothing fails the test if a scratch guest has left anything.
func (h *house) nothing() {
	h.t.Helper()
	h.empty()
	for _, sub := range []string{"scratch/*", "scratch-run/*"} {
		if left, err := filepath.Glob(filepath.Join(h.dir, sub)); err != nil || len(left) > 0 {
			h.t.Errorf("left: %v %v", left, err)
		}
	}
}

func TestScratch(t *testing.T) {
	h := newHouse(t)
	kept := filepath.Join(h.dir, "kept")
	work := scratch.Work{
		Image: h.image, RootSize: h.image.RootSize,
		Do:   func(context.Context, *guest.Conn) error { return nil },
		Take: func(_ context.Context, root, _ string) error { return os.Rename(root, kept) },
	}
	t.Run("a guest that has worked leaves what was taken, and no more", func(t *testing.T) {
		if err := h.scratch("").Run(t.Context(), work, opstate.Discard); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(kept); err != nil || st.Size() != h.image.RootSize {
			t.Errorf("the disk: %v %v", st, err)
		}
		h.nothing()
	})
	t.Run("an error of the work is returned, and nothing is left", func(t *testing.T) {
		bad, lost := work, errors.New("not today")
		bad.Do = func(context.Context, *guest.Conn) error { return lost }
		bad.Take = func(context.Context, string, string) error { t.Error("its disks were taken"); return nil }
		if err := h.scratch("").Run(t.Context(), bad, opstate.Discard); !errors.Is(err, lost) {
			t.Errorf("got %v", err)
		}
		h.nothing()
	})
	t.Run("disks of a guest that has crashed are not taken", func(t *testing.T) {
		bad := work
		bad.Do = func(context.Context, *guest.Conn) error {
			for _, id := range h.host.Running() {
				h.host.Panic(id)
			}
			return nil
		}
		bad.Take = func(context.Context, string, string) error { t.Error("its disks were taken"); return nil }
		if err := h.scratch("").Run(t.Context(), bad, opstate.Discard); !errkind.Is(err, api.KindGuest) {
			t.Errorf("got %v", err)
		}
		h.nothing()
	})
	t.Run("work that is cancelled leaves nothing", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		bad := work
		bad.Do = func(ctx context.Context, _ *guest.Conn) error { cancel(); <-ctx.Done(); return ctx.Err() }
		if err := h.scratch("").Run(ctx, bad, opstate.Discard); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		h.nothing()
	})
	for _, step := range scratch.Steps() {
		t.Run("a fault at "+step+" leaves nothing", func(t *testing.T) {
			if err := h.scratch(step+"=error").Run(t.Context(), work, opstate.Discard); err == nil || !strings.Contains(err.Error(), step) {
				t.Errorf("got %v", err)
			}
			h.nothing()
		})
	}
}
