package store_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/store"
	"github.com/banger-vm/banger/internal/store/storetest"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var anyTime = cmpopts.IgnoreFields(api.Event{}, "At")

func events(t *testing.T, s *store.Store, after int64) []api.Event {
	t.Helper()
	got, err := s.Events(t.Context(), after, 1000)
	must(t, err)
	return got
}

func TestEvents(t *testing.T) {
	ctx := t.Context()
	t.Run("a VM's life is told in the order of its changes", func(t *testing.T) {
		s := storetest.New(t)
		vm := newVM("aaaaaaaaaaaa", "web", 0)
		must(t, s.CreateVM(ctx, vm))
		for _, change := range []func(*banger.VM){
			func(v *banger.VM) { v.LastUsed = epoch }, // no news
			func(v *banger.VM) { v.State = banger.Starting },
			func(v *banger.VM) { v.Spec.VCPU = 2 },
			func(v *banger.VM) { v.Conditions = []banger.Condition{{Type: "agent", Message: "silent"}} },
			func(v *banger.VM) { v.State, v.LastError = banger.Failed, "it died" },
		} {
			_, err := s.UpdateVM(ctx, vm.ID, func(v *banger.VM) error { change(v); return nil })
			must(t, err)
		}
		must(t, s.DeleteVM(ctx, vm.ID))
		must(t, s.DeleteVM(ctx, vm.ID)) // nothing happens twice
		id := "aaaaaaaaaaaa"
		want := []api.Event{
			{Seq: 1, Type: api.EventVMCreated, ID: id, Name: "web", State: "created"},
			{Seq: 2, Type: api.EventVMState, ID: id, Name: "web", State: "starting", Before: "created"},
			{Seq: 3, Type: api.EventVMChanged, ID: id, Name: "web", State: "starting"},
			{Seq: 4, Type: api.EventVMCondition, ID: id, Name: "web", State: "starting", Message: "agent: silent"},
			{Seq: 5, Type: api.EventVMState, ID: id, Name: "web", State: "failed", Before: "starting", Message: "it died"},
			{Seq: 6, Type: api.EventVMDeleted, ID: id, Name: "web", State: "failed"},
		}
		if d := cmp.Diff(want, events(t, s, 0), anyTime); d != "" {
			t.Error(d)
		}
	})
	t.Run("what is rolled back did not happen", func(t *testing.T) {
		s := storetest.New(t)
		vm := newVM("aaaaaaaaaaaa", "web", 0)
		must(t, s.CreateVM(ctx, vm))
		refused := errors.New("refused")
		_, err := s.UpdateVM(ctx, vm.ID, func(v *banger.VM) error { v.State = banger.Starting; return refused })
		if !errors.Is(err, refused) {
			t.Fatal(err)
		}
		wantKind(t, s.CreateVM(ctx, vm), api.KindExists)
		if got := events(t, s, 1); len(got) > 0 {
			t.Errorf("told %v", got)
		}
	})
	t.Run("an operation begins and ends once, also when the daemon went away", func(t *testing.T) {
		s := storetest.New(t)
		op := api.Operation{ID: "bbbbbbbbbbbb", Kind: "vm.create", State: api.OperationRunning, Created: epoch}
		must(t, s.PutOperation(ctx, op))
		op.Subject = "web"
		must(t, s.PutOperation(ctx, op))
		for range 2 {
			_, err := s.InterruptOperations(ctx)
			must(t, err)
		}
		got := events(t, s, 0)
		if len(got) != 2 || got[0].Type != api.EventOperationBegun || got[1].Type != api.EventOperationEnded || got[1].State != "interrupted" ||
			got[1].Name != "web" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("images and kernels come and go", func(t *testing.T) {
		s := storetest.New(t)
		must(t, s.PutKernel(ctx, banger.Kernel{ID: "cccccccccccc", Name: "k", Created: epoch}))
		must(t, s.PutImage(ctx, banger.Image{ID: "dddddddddddd", Name: "i", Created: epoch}))
		must(t, s.DeleteImage(ctx, "dddddddddddd"))
		must(t, s.DeleteKernel(ctx, "cccccccccccc"))
		var types []api.EventType
		for _, e := range events(t, s, 0) {
			types = append(types, e.Type)
		}
		want := []api.EventType{api.EventKernelCreated, api.EventImageCreated, api.EventImageDeleted, api.EventKernelDeleted}
		if d := cmp.Diff(want, types); d != "" {
			t.Error(d)
		}
	})
}

func TestResumeEvents(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "banger.db")
	s, err := store.Open(ctx, path)
	must(t, err)
	defer func() { must(t, s.Close()) }()
	resume := func(token int64) int64 {
		t.Helper()
		seq, err := s.ResumeEvents(ctx, token)
		must(t, err)
		return seq
	}
	if got := resume(0); got != 0 {
		t.Errorf("an empty stream goes on after %d", got)
	}
	must(t, s.AddEvents(ctx, 11_500))
	t.Run("the numbering survives a restart of the daemon", func(t *testing.T) {
		must(t, s.Close())
		s, err = store.Open(ctx, path)
		must(t, err)
		if got := resume(0); got != 11_500 {
			t.Errorf("goes on after %d", got)
		}
		if got := resume(11_400); got != 11_400 {
			t.Errorf("resumes after %d", got)
		}
	})
	t.Run("old events are forgotten, and a client that needs them is told", func(t *testing.T) {
		if got := resume(-1); got != 1_000 {
			t.Errorf("the oldest comes after %d", got)
		}
		_, err := s.ResumeEvents(ctx, 900)
		wantKind(t, err, api.KindPrecondition, "1001", "without a token")
	})
	t.Run("a token of another daemon is refused", func(t *testing.T) {
		for _, token := range []int64{11_501, -7} {
			_, err := s.ResumeEvents(ctx, token)
			if err == nil {
				t.Errorf("%d is taken", token)
			}
		}
	})
	t.Run("who waits is woken by the next event", func(t *testing.T) {
		next := s.NextEvent()
		must(t, s.AddEvent(ctx, api.Event{Type: api.EventVMIdle}))
		<-next
		if got := events(t, s, 11_500); len(got) != 1 {
			t.Errorf("got %v", got)
		}
	})
}
