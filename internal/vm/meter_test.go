package vm_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/vm/meter"
)

func TestStats(t *testing.T) {
	h := newHouse(t)
	h.must(h.create(running))
	h.must(h.create(api.VMCreate{Name: "off"}))
	m := meter.New(meter.Config{VMs: h.vms, Chain: h.chain, Log: slog.New(slog.DiscardHandler)})
	t.Run("without names those that run are measured, in the guest too", func(t *testing.T) {
		all, err := m.Stats(t.Context(), nil)
		if err != nil || len(all) != 1 {
			t.Fatalf("got %+v, %v", all, err)
		}
		s := all[0]
		if s.Name != "web" || s.Mem != 256<<20 || s.RootAllocated == 0 || s.DiskAllocated == 0 || s.Guest == nil || s.Guest.Processes != 7 {
			t.Errorf("got %+v", s)
		}
	})
	t.Run("a VM that does not run has no guest, and an unknown one is an error", func(t *testing.T) {
		all, err := m.Stats(t.Context(), []string{"off", "web"})
		if err != nil || len(all) != 2 || all[0].Name != "off" || all[0].Guest != nil || all[0].GuestError != "" {
			t.Errorf("got %+v, %v", all, err)
		}
		if _, err := m.Stats(t.Context(), []string{"web", "nobody"}); !errkind.Is(err, api.KindNotFound) {
			t.Errorf("got %v", err)
		}
	})
}

func TestPing(t *testing.T) {
	h := newHouse(t)
	h.must(h.create(running))
	h.must(h.create(api.VMCreate{Name: "off"}))
	if rtt, err := h.vms.Ping(t.Context(), "web"); err != nil || rtt <= 0 {
		t.Errorf("%v, %v", rtt, err)
	}
	if _, err := h.vms.Ping(t.Context(), "off"); !errkind.Is(err, api.KindPrecondition) {
		t.Errorf("got %v", err)
	}
}

func TestSamples(t *testing.T) {
	h := newHouse(t)
	h.must(h.create(running))
	m := meter.New(meter.Config{VMs: h.vms, Chain: h.chain, Every: time.Hour, Log: slog.New(slog.DiscardHandler)})
	stats := func(refs ...string) api.VMStats {
		t.Helper()
		all, err := m.Stats(t.Context(), refs)
		if err != nil || len(all) != 1 || all[0].Guest == nil || all[0].GuestAt.IsZero() {
			t.Fatalf("got %+v, %v", all, err)
		}
		return all[0]
	}
	sampling, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); m.Sample(sampling) }()
	h.eventually("a sample in the background", func() bool { return h.asked.Load() == 1 })
	stop()
	<-ended
	t.Run("whoever asks for all gets what guests said last", func(t *testing.T) {
		first := stats()
		if again := stats(); !again.GuestAt.Equal(first.GuestAt) || h.asked.Load() != 1 {
			t.Errorf("the guest was asked %d times, at %s and %s", h.asked.Load(), first.GuestAt, again.GuestAt)
		}
	})
	t.Run("a guest that is named is asked now", func(t *testing.T) {
		if stats("web"); h.asked.Load() != 2 {
			t.Errorf("the guest was asked %d times", h.asked.Load())
		}
	})
	t.Run("what a guest said before it was started again does not count", func(t *testing.T) {
		h.must(h.vms.Kill(t.Context(), "web", 0, opstate.Discard))
		h.must(h.vms.Start(t.Context(), "web", opstate.Discard))
		if stats(); h.asked.Load() != 3 {
			t.Errorf("the guest was asked %d times", h.asked.Load())
		}
	})
}
