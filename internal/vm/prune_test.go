package vm_test

import (
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/opstate"
)

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
