package vm_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/vm"
)

func vmSteps() []string { return vm.Steps() }

// reap runs the house's reaper until the test ends.
func (h *house) reap() {
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); h.vms.ReapIdle(ctx) }()
	h.t.Cleanup(func() { cancel(); <-done })
}

func TestReapIdle(t *testing.T) {
	soon, never := int64(50), int64(0)
	t.Run("a VM that nobody uses is stopped after a warning, and says why", func(t *testing.T) {
		h := newHouse(t)
		v := h.must(h.create(api.VMCreate{Name: "web", Start: true, AutoStopMS: &soon}))
		h.reap()
		h.wait("web", banger.Stopped)
		if v = h.must(h.vms.Get(t.Context(), "web")); !strings.Contains(v.LastError, "not used for 50ms") || h.powerOffs.Load() != 1 {
			t.Errorf("last error %q, asked to power off %d times", v.LastError, h.powerOffs.Load())
		}
		events, err := h.store.Events(t.Context(), 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		var warned, stopped int
		for i, e := range events {
			switch {
			case e.Type == api.EventVMIdle:
				warned = i
			case e.Type == api.EventVMState && e.State == "stopping":
				stopped = i
			}
		}
		if warned == 0 || stopped < warned {
			t.Errorf("warned at %d, stopped at %d: %v", warned, stopped, events)
		}
	})
	t.Run("one that is in use is not, until the last user has gone", func(t *testing.T) {
		h := newHouse(t)
		h.must(h.create(api.VMCreate{Name: "web", Start: true, AutoStopMS: &soon}))
		h.must(h.create(api.VMCreate{Name: "canary", Start: true, AutoStopMS: &soon}))
		done, again := h.vms.Use(t.Context(), "web"), h.vms.Use(t.Context(), "web")
		h.reap()
		h.wait("canary", banger.Stopped) // so the reaper has looked
		done()
		done() // counts once
		h.must(h.vms.Start(t.Context(), "canary", opstate.Discard))
		h.wait("canary", banger.Stopped)
		if h.state("web") != banger.Running {
			t.Fatalf("state %s", h.state("web"))
		}
		again()
		h.wait("web", banger.Stopped)
	})
	t.Run("one in which a session runs is in use, though nobody is attached to it", func(t *testing.T) {
		h := newHouse(t)
		h.must(h.create(api.VMCreate{Name: "web", Start: true, AutoStopMS: &soon}))
		h.session.Store(true)
		h.reap()
		h.eventually("the reaper has come again and again", func() bool { return h.sessionAsked.Load() > 4 })
		if h.state("web") != banger.Running {
			t.Fatalf("state %s", h.state("web"))
		}
		h.session.Store(false)
		h.wait("web", banger.Stopped)
	})
	t.Run("the configured time holds for VMs without one of their own, and after a restart of the daemon", func(t *testing.T) {
		h := newHouse(t)
		h.must(h.create(api.VMCreate{Name: "web", Start: true}))
		h.must(h.create(api.VMCreate{Name: "server", Start: true, AutoStopMS: &never}))
		h.idleAfter = 50 * time.Millisecond
		h.restart("")
		h.reap()
		h.wait("web", banger.Stopped)
		if h.state("server") != banger.Running {
			t.Errorf("state %s", h.state("server"))
		}
	})
	t.Run("a time that is set while the VM runs counts from then", func(t *testing.T) {
		h := newHouse(t)
		h.must(h.create(running))
		h.reap()
		h.must(h.set(api.VMSet{AutoStopMS: &soon}))
		h.wait("web", banger.Stopped)
	})
	t.Run("a VM with unexported work is stopped and keeps it", func(t *testing.T) {
		h := newHouse(t)
		h.must(h.create(api.VMCreate{Name: "web", Start: true, AutoStopMS: &soon}))
		s, err := h.vms.PrepareWorkspace(t.Context(), "web", banger.Workspace{GuestPath: "/root/w", BaseTree: "base"})
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		h.tree.Store("changed")
		h.reap()
		h.wait("web", banger.Stopped)
		if v := h.must(h.vms.Get(t.Context(), "web")); v.Workspace.Changes != banger.ChangesPresent {
			t.Errorf("changes %q", v.Workspace.Changes)
		}
	})
}
