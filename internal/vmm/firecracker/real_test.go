package firecracker

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/firecracker/fcproc"
	"github.com/banger-vm/banger/internal/vmm/suitetest"
)

// patience bounds a wait for a guest on a machine whose own KVM may be emulated.
const patience = 5 * time.Minute

// TestRealGuests runs the conformance suite on a real Firecracker with Debian's kernel, and, where BANGER_JAILER names one, in jails.
// It needs KVM that runs guests, which it takes on trust from who names a Firecracker.
func TestRealGuests(t *testing.T) {
	binary := os.Getenv(realVariable)
	if binary == "" {
		t.Skip(realVariable + " names no Firecracker")
	}
	if _, err := os.Stat("/dev/kvm"); err != nil {
		t.Skip(err)
	}
	kernel, initrd := suitetest.Guest(t)
	spec := func(t *testing.T) vmm.Spec {
		s := newSpec(t)
		s.Kernel = linked(t, s.Dir, "vmlinux-real", kernel)
		s.Initrd = linked(t, s.Dir, "initrd-real", initrd)
		return s
	}
	cfg := direct(binary)
	cfg.Group = testGroup(t)
	t.Logf("on %s", New(t.Context(), cfg).Features().Engine)
	t.Run("direct", func(t *testing.T) { conform(t, cfg, spec, patience) })
	t.Run("jailed", func(t *testing.T) {
		jailer := os.Getenv("BANGER_JAILER")
		if jailer == "" || os.Geteuid() != 0 {
			t.Skip("BANGER_JAILER names no jailer, or this is not root")
		}
		cfg := cfg
		cfg.Programs = fcproc.Config{Firecracker: binary, Jailer: jailer, UseJailer: fcproc.JailerOn, Root: true}
		conform(t, cfg, spec, patience)
	})
}

// linked gives a VM a file by another name: many starts with a copy each would fill a small disk.
func linked(t *testing.T, dir, name, from string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.Link(from, path); err != nil {
		t.Fatal(err)
	}
	return path
}
