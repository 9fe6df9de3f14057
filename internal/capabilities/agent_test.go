package capabilities

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/vm/capability"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/fake"
)

// machineThat starts a machine whose guest prints console and never answers.
func machineThat(t *testing.T, console string) (*fake.Host, *capability.Run) {
	t.Helper()
	dir := t.TempDir()
	r := &capability.Run{
		VM: banger.VM{ID: banger.NewID[banger.VMID](), Name: "web"}, Dir: dir, RunDir: t.TempDir(), Report: opstate.Discard,
	}
	kernel := filepath.Join(dir, "vmlinux")
	if err := os.WriteFile(kernel, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	computer := fake.NewHost(fake.Config{Console: console})
	m, err := computer.Driver().Start(t.Context(), vmm.Spec{ID: r.VM.ID, Dir: r.Dir, RunDir: r.RunDir, MemMiB: 256, Kernel: kernel, Initrd: kernel})
	if err != nil {
		t.Fatal(err)
	}
	r.Machine = m
	return computer, r
}

// attach waits for the agent of r's guest in fake time.
func attach(t *testing.T, ctx context.Context, r *capability.Run) error {
	a := &Agent{Log: slog.New(slog.DiscardHandler)}
	err := a.Attach(ctx, r)
	if e := errors.Join(a.Detach(t.Context(), r), r.Machine.Kill(t.Context())); e != nil {
		t.Error(e)
	}
	return err
}

func TestGuestsThatDoNotComeUp(t *testing.T) {
	check := func(t *testing.T, err error, words ...string) {
		t.Helper()
		if !errkind.Is(err, api.KindGuest) {
			t.Errorf("got kind %s", errkind.Of(err))
		}
		for _, want := range words {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q does not say %q", err, want)
			}
		}
		if hint := errkind.Hint(err); !strings.Contains(hint, `"web"`) || !strings.Contains(hint, "--memory") {
			t.Errorf("hint %q", hint)
		}
	}
	t.Run("one that never answers is the guest's fault, with the end of its console", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, r := machineThat(t, strings.Repeat("early ", 1000)+"the last line\n")
			err := attach(t, t.Context(), r)
			check(t, err, "no agent answering within 1m0s", "console ends with:\n", "the last line")
			if len(err.Error()) > consoleTail+200 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	})
	t.Run("one that prints nothing is said to print nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, r := machineThat(t, "")
			check(t, attach(t, t.Context(), r), "no agent answering", "console is empty")
		})
	})
	t.Run("one whose kernel panics is reported at once, with the panic", func(t *testing.T) {
		computer, r := machineThat(t, "booting\n")
		computer.Panic(r.VM.ID)
		check(t, attach(t, t.Context(), r), "the machine ended before agent answering", "guest kernel panicked", "booting")
	})
	t.Run("a start that is canceled is nobody's fault", func(t *testing.T) {
		_, r := machineThat(t, "booting\n")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := attach(t, ctx, r); !errkind.Is(err, api.KindCanceled) || errkind.Hint(err) != "" {
			t.Errorf("got %v, hint %q", err, errkind.Hint(err))
		}
	})
}
