package vm_test

import (
	"context"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
)

// inspectUntil inspects running VMs until the conditions of web are as wanted, and returns them.
func (h *house) inspectUntil(want ...string) []banger.Condition {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); h.vms.InspectRunning(ctx) }()
	defer func() { cancel(); <-done }()
	var got []banger.Condition
	h.eventually("conditions", func() bool {
		got = h.must(h.vms.Get(h.t.Context(), "web")).Conditions
		if len(got) != len(want) {
			return false
		}
		for i, c := range got {
			if c.Type+": "+c.Message != want[i] {
				return false
			}
		}
		return true
	})
	return got
}

func TestInspectRunning(t *testing.T) {
	h := newHouse(t)
	h.must(h.create(running))
	h.sick.Store("nearly full")
	first := h.inspectUntil("disks: nearly full")

	again := h.inspectUntil("disks: nearly full")
	if !again[0].Since.Equal(first[0].Since) {
		t.Errorf("since %v, and then since %v", first[0].Since, again[0].Since)
	}
	h.restart("") // the new daemon finds it again
	h.inspectUntil("disks: nearly full")
	h.sick.Store("lost")
	h.inspectUntil("disks: lost")
	h.sick.Store("")
	h.inspectUntil()

	events, err := h.store.Events(t.Context(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, e := range events {
		if e.Type == api.EventVMCondition {
			told = append(told, e.Message)
		}
	}
	// The restart forgets what it does not know and finds it again.
	want := []string{"disks: nearly full", "", "disks: nearly full", "disks: lost", ""}
	if len(told) != len(want) {
		t.Fatalf("events %q, want %q", told, want)
	}
	for i := range want {
		if told[i] != want[i] {
			t.Errorf("events %q, want %q", told, want)
		}
	}
}

func TestAVMThatDoesNotRunHasNoConditions(t *testing.T) {
	h := newHouse(t)
	h.must(h.create(api.VMCreate{Name: "idle"}))
	h.must(h.create(running))
	h.sick.Store("lost")
	h.inspectUntil("disks: lost")
	if c := h.must(h.vms.Get(t.Context(), "idle")).Conditions; c != nil {
		t.Errorf("conditions %v", c)
	}
}
