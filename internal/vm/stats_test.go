package vm_test

import (
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/opstate"
)

func TestStats(t *testing.T) {
	h := newHouse(t)
	h.must(h.create(running))
	h.must(h.create(api.VMCreate{Name: "off"}))
	t.Run("without names those that run are measured, in the guest too", func(t *testing.T) {
		all, err := h.vms.Stats(t.Context(), nil)
		if err != nil || len(all) != 1 {
			t.Fatalf("got %+v, %v", all, err)
		}
		s := all[0]
		if s.Name != "web" || s.Mem != 256<<20 || s.RootAllocated == 0 || s.DiskAllocated == 0 || s.Guest == nil || s.Guest.Processes != 7 {
			t.Errorf("got %+v", s)
		}
	})
	t.Run("a VM that does not run has no guest, and an unknown one is an error", func(t *testing.T) {
		all, err := h.vms.Stats(t.Context(), []string{"off", "web"})
		if err != nil || len(all) != 2 || all[0].Name != "off" || all[0].Guest != nil || all[0].GuestError != "" {
			t.Errorf("got %+v, %v", all, err)
		}
		if _, err := h.vms.Stats(t.Context(), []string{"web", "nobody"}); !errkind.Is(err, api.KindNotFound) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a guest is pinged", func(t *testing.T) {
		if rtt, err := h.vms.Ping(t.Context(), "web"); err != nil || rtt <= 0 {
			t.Errorf("%v, %v", rtt, err)
		}
		if _, err := h.vms.Ping(t.Context(), "off"); !errkind.Is(err, api.KindPrecondition) {
			t.Errorf("got %v", err)
		}
	})
}

func TestPrune(t *testing.T) {
	h := newHouse(t)
	for _, name := range []string{"up", "never-started", "stopped", "dirty"} {
		h.must(h.create(api.VMCreate{Name: name, Start: name != "never-started"}))
	}
	s, err := h.vms.PrepareWorkspace(t.Context(), "dirty", banger.Workspace{GuestPath: "/root/w", BaseTree: "base"})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	h.tree.Store("changed")
	for _, name := range []string{"stopped", "dirty"} {
		h.must(h.vms.Stop(t.Context(), name, 0, opstate.Discard))
	}
	prune := func(p api.VMPrune) (deleted string, kept []api.PrunedVM) {
		t.Helper()
		out, err := h.vms.Prune(t.Context(), p, opstate.Discard)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, v := range out.Deleted {
			names = append(names, v.Name)
		}
		return strings.Join(names, " "), out.Kept
	}
	if got, kept := prune(api.VMPrune{OlderThanMS: time.Hour.Milliseconds()}); got != "" || len(kept) != 0 {
		t.Errorf("VMs that were just used are pruned: %s, kept %v", got, kept)
	}
	for _, dry := range []bool{true, false} {
		got, kept := prune(api.VMPrune{DryRun: dry})
		if got != "never-started stopped" || len(kept) != 1 || kept[0].Name != "dirty" || !strings.Contains(kept[0].Reason, "not exported") {
			t.Errorf("dry run %v: deleted %q, kept %+v", dry, got, kept)
		}
	}
	if vms, err := h.vms.List(t.Context()); err != nil || len(vms) != 2 {
		t.Errorf("left are %v, %v", vms, err)
	}
}
