package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// kvmHost is a host with KVM, as far as files can tell, on which the tiny guest ends as boot says.
func kvmHost(t *testing.T, boot func(ctx context.Context, qemu string) error) KVM {
	dir := t.TempDir()
	k := KVM{
		Dir: dir, QEMU: "qemu", device: filepath.Join(dir, "kvm"), cpuinfo: filepath.Join(dir, "cpuinfo"),
		bootID: filepath.Join(dir, "boot_id"), boot: boot,
	}
	write(t, k.device, "")
	write(t, k.cpuinfo, "processor\t: 0\nflags\t\t: fpu vme svm_lock svm\n")
	write(t, k.bootID, "one\n")
	return k
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestKVM(t *testing.T) {
	booted := func(context.Context, string) error { return nil }
	t.Run("it is usable when device, processor and guest say so", func(t *testing.T) {
		if err := kvmHost(t, booted).Usable(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("without a device it is not, and the hint names the modules", func(t *testing.T) {
		k := kvmHost(t, booted)
		os.Remove(k.device)
		if err := k.Usable(t.Context()); !errkind.Is(err, api.KindUnavailable) || !strings.Contains(errkind.Hint(err), "kvm_intel") {
			t.Errorf("got %v, hint %q", err, errkind.Hint(err))
		}
	})
	t.Run("a device of a processor without the extensions is a software variant, and no guest is tried", func(t *testing.T) {
		k := kvmHost(t, func(context.Context, string) error {
			t.Error("booted a guest")
			return nil
		})
		write(t, k.cpuinfo, "flags\t\t: fpu svm_lock hypervisor\n")
		if err := k.Usable(t.Context()); err == nil || !strings.Contains(err.Error(), "software variant") || errkind.Hint(err) == "" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the guest is booted once for each boot of the host, whether it worked or not", func(t *testing.T) {
		for _, outcome := range []error{nil, errors.New("it hung")} {
			boots := 0
			k := kvmHost(t, func(context.Context, string) error {
				boots++
				return outcome
			})
			for range 3 {
				if err := k.Usable(t.Context()); (err == nil) != (outcome == nil) {
					t.Errorf("outcome %v: got %v", outcome, err)
				}
			}
			write(t, k.bootID, "two\n")
			k.Usable(t.Context())
			if boots != 2 {
				t.Errorf("outcome %v: %d boots, want 2", outcome, boots)
			}
		}
	})
	t.Run("a damaged verdict is none", func(t *testing.T) {
		k := kvmHost(t, booted)
		write(t, filepath.Join(k.Dir, "kvm.json"), "{")
		if err := k.Usable(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("neither a canceled probe nor a missing QEMU is remembered", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		k := kvmHost(t, func(ctx context.Context, _ string) error {
			cancel()
			return ctx.Err()
		})
		if err := k.Usable(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		k.boot = func(context.Context, string) error { return errkind.New(api.KindUnavailable, "no qemu") }
		if err := k.Usable(t.Context()); err != nil {
			t.Errorf("without QEMU, device and processor do not count: %v", err)
		}
		k.boot = func(context.Context, string) error { return errors.New("it hangs") }
		if err := k.Usable(t.Context()); err == nil {
			t.Error("a guest that does not boot is believed not to have been tried")
		}
	})
}

func TestTinyGuest(t *testing.T) {
	const qemu = "qemu-system-x86_64"
	if testing.Short() {
		t.Skip("short: boots a guest")
	}
	if _, err := LookPath(qemu); err != nil {
		t.Skipf("%v", err)
	}
	t.Run("it reaches long mode and says so", func(t *testing.T) {
		if err := bootTiny(t.Context(), qemu, "tcg"); err != nil {
			t.Error(err)
		}
	})
	t.Run("a QEMU that is missing is unavailable", func(t *testing.T) {
		if err := bootTiny(t.Context(), "no-such-qemu", "tcg"); !errkind.Is(err, api.KindUnavailable) {
			t.Errorf("got %v", err)
		}
	})
}

// TestKVMThatWorks is the one test in which nothing is false: in the lab (see test/lab) KVM works.
func TestKVMThatWorks(t *testing.T) {
	if os.Getenv("BANGER_LAB") == "" {
		t.Skip("KVM need not work here; test/lab runs this where it does")
	}
	k := KVM{Dir: t.TempDir(), QEMU: "qemu-system-x86_64", deadline: 2 * time.Minute} // all of it is emulated
	if err := k.Usable(t.Context()); err != nil {
		t.Errorf("KVM is not usable: %v", err)
	}
}
