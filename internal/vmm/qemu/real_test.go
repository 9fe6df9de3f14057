package qemu

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/kernels"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/store"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/boottest"
	"github.com/banger-vm/banger/internal/vmm/vmmproc"
	"github.com/banger-vm/banger/internal/vmm/vmmtest"
	"golang.org/x/sys/unix"
)

// patience bounds a wait for an emulated guest on a busy machine.
const patience = 2 * time.Minute

// TestRealGuests runs the conformance suite, and what only QEMU can do wrong, with Debian's kernel.
func TestRealGuests(t *testing.T) {
	if testing.Short() {
		t.Skip("short: downloads a kernel and boots guests")
	}
	kernel, initrd, accel := suiteGuest(t)
	group := testGroup(t)
	spec := func(t *testing.T) vmm.Spec { return newSpec(t, kernel, initrd) }
	newDriver := func(t *testing.T) vmm.Driver {
		return New(t.Context(), Config{
			Accel: accel, KVM: host.KVM{Dir: t.TempDir(), QEMU: "qemu-system-x86_64"}.Usable, Group: group, Log: slog.New(slog.DiscardHandler),
		})
	}
	vmmtest.Run(t, vmmtest.Harness{
		New: newDriver, Spec: spec, Patience: patience, Left: left,
		Crash: func(t *testing.T, h vmm.Handle) {
			if err := unix.Kill(h.PID, unix.SIGKILL); err != nil {
				t.Error(err)
			}
		},
	})
	testMonitor(t, newDriver(t).(*Driver), spec)
	t.Run("a machine cannot gain privileges, and its system calls are filtered", func(t *testing.T) {
		m := startReal(t, newDriver(t).(*Driver), spec(t))
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.handle.PID)) // proc_pid_status(5)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
			if !strings.Contains(string(status), want) {
				t.Errorf("no %q in\n%s", want, status)
			}
		}
	})
}

// suiteGuest returns the suite's guest and what runs it: emulation; but KVM in the lab (see test/lab), which brings the files along.
func suiteGuest(t *testing.T) (kernel, initrd, accel string) {
	t.Helper()
	if lab := os.Getenv("BANGER_LAB"); lab != "" {
		return filepath.Join(lab, "vmlinux"), filepath.Join(lab, "initrd"), vmm.AccelKVM
	}
	for _, p := range []string{"qemu-system-x86_64", "apt-get", "apt-cache", "dpkg-deb", "depmod", "mke2fs", "go"} {
		if _, err := host.LookPath(p); err != nil {
			t.Skip(err)
		}
	}
	k := debianKernel(t)
	return k.Image, boottest.Initrd(t, k, "../vmmtest/testdata/guest", guestapi.BootConfig{Name: "suite"}), vmm.AccelTCG
}

// debianKernel imports the kernel with apt, as the daemon does, but keeps only the boot modules of the suite's guest.
func debianKernel(t *testing.T) banger.Kernel {
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
	var needed []string
	for _, name := range k.BootModules {
		switch strings.TrimSuffix(name, ".ko") {
		case "virtio", "virtio_ring", "virtio_mmio", "virtio_console":
			needed = append(needed, name)
		}
	}
	k.BootModules = needed
	return k
}

// left lists what there is of a machine outside its directories.
func left(_ *testing.T, h vmm.Handle) []string {
	var found []string
	if start, err := host.StartTime(h.PID); err == nil && start == h.StartTime {
		found = append(found, "process")
	}
	if group := vmmproc.GroupOf(h); group != "" {
		if _, err := os.Stat(string(group)); err == nil {
			found = append(found, string(group))
		}
	}
	return found
}
