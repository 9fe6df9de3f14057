// Package suitetest makes the guest of vmmtest's suite for real machines.
package suitetest

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/kernels"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/store"
	"github.com/banger-vm/banger/internal/vmm/boottest"
)

// labVariable names a directory with the guest, vmlinux and initrd, in the lab (see test/lab), which has neither apt nor Go.
const labVariable = "BANGER_LAB"

// InLab reports whether this is the lab, whose KVM runs guests.
func InLab() bool { return os.Getenv(labVariable) != "" }

// Guest returns Debian's kernel and an initramfs with the guest of package vmmtest's suite. It skips where they cannot be made.
func Guest(t testing.TB) (kernel, initrd string) {
	t.Helper()
	if testing.Short() {
		t.Skip("short: downloads a kernel and boots guests")
	}
	if lab := os.Getenv(labVariable); lab != "" {
		return filepath.Join(lab, "vmlinux"), filepath.Join(lab, "initrd")
	}
	for _, p := range []string{"apt-get", "apt-cache", "dpkg-deb", "depmod", "mke2fs", "go"} {
		if _, err := host.LookPath(p); err != nil {
			t.Skip(err)
		}
	}
	k := debianKernel(t)
	return k.Image, boottest.Initrd(t, k, "../vmmtest/testdata/guest", guestapi.BootConfig{Name: "suite"})
}

// debianKernel imports the kernel with apt, as the daemon does, but keeps only the boot modules of the suite's guest.
func debianKernel(t testing.TB) banger.Kernel {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := os.Mkdir(filepath.Join(dir, "kernels"), 0o700); err != nil {
		t.Fatal(err)
	}
	m := kernels.New(kernels.Config{
		Dir: filepath.Join(dir, "kernels"), CacheDir: filepath.Join(dir, "cache"), Store: s, Log: slog.New(slog.DiscardHandler),
	})
	k, err := m.EnsureDefault(t.Context(), opstate.Discard)
	if err != nil {
		t.Fatal(err)
	}
	k.BootModules = slices.DeleteFunc(k.BootModules, func(name string) bool {
		switch strings.TrimSuffix(name, ".ko") {
		case "virtio", "virtio_ring", "virtio_mmio", "virtio_console":
			return false
		}
		return !strings.Contains(name, "vsock")
	})
	return k
}
