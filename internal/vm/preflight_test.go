package vm_test

import (
	"os"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/opstate"
)

func TestPreflight(t *testing.T) {
	t.Run("a start that cannot succeed says everything that is wrong, and makes nothing", func(t *testing.T) {
		h := newHouse(t)
		h.must(h.create(api.VMCreate{Name: "web"}))
		for _, path := range []string{h.image.Rootfs, h.kernel.Image} {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		_, err := h.vms.Start(t.Context(), "web", opstate.Discard)
		if err == nil || !strings.Contains(err.Error(), `image "debian": the file`) || !strings.Contains(err.Error(), `kernel "k": the file`) {
			t.Fatalf("got %v", err)
		}
		if !errkind.Is(err, api.KindDataLoss) || !strings.Contains(errkind.Hint(err), "restore the file") {
			t.Errorf("kind %s, hint %q", errkind.Of(err), errkind.Hint(err))
		}
		vm := h.must(h.vms.Get(t.Context(), "web"))
		if entries, err := os.ReadDir(h.vms.Dir(vm.ID)); err != nil || len(entries) > 0 || vm.State != banger.Created {
			t.Errorf("made %v %v; state %s", entries, err, vm.State)
		}
		h.file("rootfs.ext4", 1<<16)
		h.file("vmlinux", 10)
		h.must(h.vms.Start(t.Context(), "web", opstate.Discard))
	})
	t.Run("a VM that has lost a disk does not start with an empty one", func(t *testing.T) {
		h := newHouse(t)
		vm := h.must(h.create(running))
		h.must(h.vms.Kill(t.Context(), "web", 0, opstate.Discard))
		if err := os.Remove(h.vms.Dir(vm.ID) + "/work.raw"); err != nil {
			t.Fatal(err)
		}
		_, err := h.vms.Start(t.Context(), "web", opstate.Discard)
		if !errkind.Is(err, api.KindDataLoss) || !strings.Contains(err.Error(), "work.* is gone") {
			t.Errorf("got %v", err)
		}
	})
}
