package vm_test

import (
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/opstate"
)

func TestPause(t *testing.T) {
	h := newHouse(t)
	h.must(h.create(running))
	for range 2 {
		if v := h.must(h.vms.Pause(t.Context(), "web", opstate.Discard)); v.State != banger.Paused {
			t.Fatalf("state %s", v.State)
		}
	}
	t.Run("a paused VM is not used, nor started, and it is said how it goes on", func(t *testing.T) {
		_, _, err := h.vms.Guest(t.Context(), "web")
		if !errkind.Is(err, api.KindPrecondition) || errkind.Hint(err) != "let it go on: `banger vm resume web`" {
			t.Errorf("guest: %v, hint %q", err, errkind.Hint(err))
		}
		if _, err := h.vms.Start(t.Context(), "web", opstate.Discard); !errkind.Is(err, api.KindPrecondition) {
			t.Errorf("start: %v", err)
		}
	})
	t.Run("it stays paused over a restart of the daemon, and goes on", func(t *testing.T) {
		h.restart("")
		if got := h.state("web"); got != banger.Paused {
			t.Fatalf("state %s", got)
		}
		for range 2 {
			if v := h.must(h.vms.Resume(t.Context(), "web", opstate.Discard)); v.State != banger.Running {
				t.Fatalf("state %s", v.State)
			}
		}
		if run := h.vms.Run(h.must(h.vms.Get(t.Context(), "web")).ID); run.Hello.BootID == "" {
			t.Error("the guest was not asked who it is")
		}
	})
	t.Run("a crash on the way leaves it as the record says", func(t *testing.T) {
		for _, step := range []string{"pause.recorded", "resume.resumed"} {
			h.restart(step + "=error")
			do := h.vms.Pause
			if step == "resume.resumed" {
				h.must(h.vms.Pause(t.Context(), "web", opstate.Discard))
				do = h.vms.Resume
			}
			if _, err := do(t.Context(), "web", opstate.Discard); err == nil {
				t.Fatal("it did not fail")
			}
			h.restart("")
			h.must(h.vms.Resume(t.Context(), "web", opstate.Discard))
		}
	})
	t.Run("it is stopped by going on first, and killed as it is", func(t *testing.T) {
		h.must(h.vms.Pause(t.Context(), "web", opstate.Discard))
		if v := h.must(h.vms.Stop(t.Context(), "web", 0, opstate.Discard)); v.State != banger.Stopped || h.powerOffs.Load() != 1 {
			t.Errorf("state %s after %d requests to power off", v.State, h.powerOffs.Load())
		}
		if _, err := h.vms.Pause(t.Context(), "web", opstate.Discard); !errkind.Is(err, api.KindPrecondition) {
			t.Errorf("a VM that does not run is paused: %v", err)
		}
		h.must(h.vms.Start(t.Context(), "web", opstate.Discard))
		h.must(h.vms.Pause(t.Context(), "web", opstate.Discard))
		if v := h.must(h.vms.Kill(t.Context(), "web", 0, opstate.Discard)); v.State != banger.Stopped {
			t.Errorf("state %s", v.State)
		}
	})
}
