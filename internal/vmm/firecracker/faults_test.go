package firecracker

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/firecracker/fctest"
)

// current answers --version as a Firecracker that we take.
const current = `[ "$1" = --version ] && { echo "Firecracker v1.16.1"; exit; }` + "\n"

// program writes a shell script that stands for Firecracker.
func program(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "firecracker")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// refused starts spec, which must fail with that kind, words and a hint, and leave nothing.
func refused(t *testing.T, d *Driver, spec vmm.Spec, kind errkind.Kind, words, hint string) {
	t.Helper()
	m, err := d.Start(t.Context(), spec)
	if err == nil {
		t.Fatal("started: ", m.Handle(), m.Kill(t.Context()))
	}
	if !errkind.Is(err, kind) || !strings.Contains(err.Error(), words) {
		t.Errorf("got %q of kind %s, want %q", err, errkind.Of(err), words)
	}
	if got := errkind.Hint(err); !strings.Contains(got, hint) {
		t.Errorf("hint %q, want %q", got, hint)
	}
	if entries, err := os.ReadDir(spec.RunDir); err != nil || len(entries) > 0 {
		t.Errorf("left %v, %v", entries, err)
	}
}

func TestFaults(t *testing.T) {
	double, _ := fctest.Install(t)
	on := func(script string) *Driver { return New(t.Context(), direct(program(t, current+script))) }
	t.Run("the words of a Firecracker that dies at once are in the error", func(t *testing.T) {
		refused(t, on("echo 'Error: no KVM' >&2; exit 1"), newSpec(t), api.KindUnavailable, "exit status 1: Error: no KVM", "Firecracker's own")
	})
	t.Run("one that never serves does not hold up a start", func(t *testing.T) {
		d := on("exec sleep 1000")
		d.serveWithin = 0
		refused(t, d, newSpec(t), api.KindTimeout, "does not serve its API", "--source vmm")
	})
	t.Run("what it refuses is in the error, in its words", func(t *testing.T) {
		s := newSpec(t)
		s.NIC = &vmm.NIC{MAC: "zz", Tap: "lo"} // a device that there is
		refused(t, New(t.Context(), direct(double)), s, api.KindUnavailable, "The provided MAC address is invalid", "tap device")
	})
	t.Run("a host whose KVM runs no guests is refused, and KVM is asked for why", func(t *testing.T) {
		cfg := direct(double)
		cfg.KVM = func(context.Context) error {
			return errkind.WithHint(errkind.New(api.KindUnavailable, "it is a software variant"), "buy another host")
		}
		refused(t, New(t.Context(), cfg), newSpec(t), api.KindUnavailable, "it is a software variant", "buy another host; or use QEMU")
	})
	t.Run("KVM is not tried where there is no Firecracker", func(t *testing.T) {
		cfg := direct("/nowhere/firecracker")
		cfg.KVM = func(context.Context) error {
			t.Error("KVM was asked for")
			return nil
		}
		if f := New(t.Context(), cfg).Features(); len(f.Unfit) != 1 {
			t.Errorf("unfit %+v", f.Unfit)
		}
	})
}

func TestCheck(t *testing.T) {
	double, _ := fctest.Install(t)
	d := New(t.Context(), direct(double))
	for _, c := range []struct {
		name, words string
		change      func(*vmm.Spec)
	}{
		{"qcow2 disks", "is qcow2", func(s *vmm.Spec) { s.Disks[0].Format = "qcow2" }},
		{"a compressed kernel", "is none", func(s *vmm.Spec) { s.Kernel = s.Disks[0].Path }},
		{"a user-mode network", "no user-mode network", func(s *vmm.Spec) { s.NIC = &vmm.NIC{MAC: "02:00:00:00:00:01"} }},
		{"a tap that is not there", `no tap device "bg-none"`, func(s *vmm.Spec) { s.NIC = &vmm.NIC{Tap: "bg-none"} }},
		{"more processors than it gives", "33 vCPUs", func(s *vmm.Spec) { s.VCPU = 33 }},
		{"a run directory whose path is too long", "longer than 107 bytes", func(s *vmm.Spec) { s.RunDir += strings.Repeat("d", 100) }},
	} {
		t.Run(c.name+" is a problem", func(t *testing.T) {
			s := newSpec(t)
			c.change(&s)
			found := d.Check(t.Context(), s)
			if len(found) != 1 || !strings.Contains(found[0].Detail, c.words) || found[0].Fix == "" {
				t.Errorf("problems %+v, want %q", found, c.words)
			}
		})
	}
	t.Run("what is not known yet is no problem", func(t *testing.T) {
		if found := d.Check(t.Context(), vmm.Spec{VCPU: 1, MemMiB: 128, RunDir: "/r"}); len(found) > 0 {
			t.Errorf("problems %+v", found)
		}
	})
}
