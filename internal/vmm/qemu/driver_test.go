package qemu

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/vmm"
)

// current answers --version as a QEMU that we take.
const current = `[ "$1" = --version ] && { echo "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)"; exit; }` + "\n"

// program writes a shell script that stands for QEMU.
func program(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func emulating(t *testing.T, binary string) *Driver {
	t.Helper()
	return New(t.Context(), Config{Binary: binary, Accel: vmm.AccelTCG, Log: slog.New(slog.DiscardHandler)})
}

// newSpec is a good spec, as far as can be told without starting it.
func newSpec(t *testing.T, kernel, initrd string) vmm.Spec {
	return vmm.Spec{
		ID: banger.NewID[banger.VMID](), Name: "web", Dir: t.TempDir(), RunDir: shortDir(t), VCPU: 1, MemMiB: 128,
		Kernel: kernel, Initrd: initrd,
	}
}

func anySpec(t *testing.T) vmm.Spec {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return newSpec(t, file, file)
}

// shortDir returns a directory whose path leaves room for the name of a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bq")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// refused starts spec, which must fail with kind unavailable, words and a hint, and leave nothing.
func refused(t *testing.T, d *Driver, spec vmm.Spec, words, hint string) {
	t.Helper()
	m, err := d.Start(t.Context(), spec)
	if err == nil {
		t.Fatal("started: ", m.Handle(), m.Kill(t.Context()))
	}
	if !errkind.Is(err, api.KindUnavailable) || !strings.Contains(err.Error(), words) {
		t.Errorf("got %q of kind %s, want %q", err, errkind.Of(err), words)
	}
	if got := errkind.Hint(err); !strings.Contains(got, hint) {
		t.Errorf("hint %q, want %q", got, hint)
	}
	if entries, err := os.ReadDir(spec.RunDir); err != nil || len(entries) > 0 {
		t.Errorf("left %v, %v", entries, err)
	}
}

func TestUnfitQEMU(t *testing.T) {
	for _, c := range []struct{ name, binary, words, hint string }{
		{"one that is missing", "/nowhere/qemu", `no program "/nowhere/qemu"`, "qemu-system-x86"},
		{"one that is too old", program(t, "echo 'QEMU emulator version 6.2.0'"), "QEMU 6.2.0 at ", "QEMU 7 or newer"},
		{"one that does not run", program(t, "echo no libc >&2; exit 127"), "no libc", "qemu_bin"},
		{"another program", program(t, "echo ls version 9.1"), "is not QEMU", "qemu_bin"},
	} {
		t.Run(c.name+" is a problem, and refused", func(t *testing.T) {
			d := emulating(t, c.binary)
			if found := d.Check(t.Context(), anySpec(t)); len(found) != 1 || !strings.Contains(found[0].Detail, c.words) {
				t.Errorf("problems %+v", found)
			}
			refused(t, d, anySpec(t), c.words, c.hint)
		})
	}
	t.Run("a good one is no problem", func(t *testing.T) {
		d := emulating(t, program(t, current))
		if found := d.Check(t.Context(), anySpec(t)); len(found) > 0 {
			t.Errorf("problems %+v", found)
		}
		if got := d.Features().Engine; !strings.HasPrefix(got, "qemu 7.2.22 (") {
			t.Errorf("engine %q", got)
		}
	})
}

func TestAccelerator(t *testing.T) {
	works := func(context.Context) error { return nil }
	hangs := func(context.Context) error {
		return errkind.WithHint(errkind.New(api.KindUnavailable, "it hangs"), "buy another host")
	}
	unasked := func(context.Context) error {
		t.Error("KVM was asked for")
		return nil
	}
	for _, c := range []struct {
		name, wanted   string
		kvm            func(context.Context) error
		got, why, hint string // hint: its end
		refused        bool
	}{
		{"auto takes KVM where it works", "auto", works, vmm.AccelKVM, "KVM", "", false},
		{"auto emulates where it does not, and says why and what to do", "auto", hangs, vmm.AccelTCG, "it hangs", "buy another host", false},
		{"who insists on KVM gets it", "kvm", works, vmm.AccelKVM, "KVM", "", false},
		{"who insists on KVM that does not work is refused", "kvm", hangs, vmm.AccelKVM, "it hangs", "looks again", true},
		{"who insists on emulation gets it, and KVM is not tried", "tcg", unasked, vmm.AccelTCG, "qemu_accel is tcg", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := New(t.Context(), Config{
				Binary: program(t, current), Accel: c.wanted, KVM: c.kvm, Log: slog.New(slog.DiscardHandler),
			})
			f := d.Features()
			if f.Accel != c.got || !strings.Contains(f.AccelWhy, c.why) || !strings.HasSuffix(f.AccelHint, c.hint) || (f.AccelHint == "") != (c.hint == "") {
				t.Errorf("features %+v", f)
			}
			if !strings.HasSuffix(f.Engine, c.got+")") {
				t.Errorf("engine %q", f.Engine)
			}
			if found := d.Check(t.Context(), anySpec(t)); (len(found) > 0) != c.refused || (len(f.Unfit) > 0) != c.refused {
				t.Errorf("problems %+v; unfit %+v", found, f.Unfit)
			}
			if c.refused {
				refused(t, d, anySpec(t), "insists on KVM", "buy another host; or set qemu_accel to auto")
			}
		})
	}
}
