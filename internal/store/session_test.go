package store_test

import (
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/store/storetest"
	"github.com/google/go-cmp/cmp"
)

func TestSessions(t *testing.T) {
	ctx, s := t.Context(), storetest.New(t)
	must(t, s.CreateVM(ctx, newVM("aaaaaaaaaaaa", "web", 0)))
	if got, err := s.Sessions(ctx, "aaaaaaaaaaaa"); err != nil || len(got) != 0 {
		t.Errorf("before any: %+v, %v", got, err)
	}
	must(t, s.PutSessions(ctx, "aaaaaaaaaaaa", []guestapi.Session{{ID: "1", Name: "old"}}))
	want := []guestapi.Session{{ID: "2", Name: "new", State: guestapi.SessionRunning, Created: epoch}}
	must(t, s.PutSessions(ctx, "aaaaaaaaaaaa", want))
	got, err := s.Sessions(ctx, "aaaaaaaaaaaa")
	must(t, err)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	must(t, s.DeleteVM(ctx, "aaaaaaaaaaaa"))
	if got, err := s.Sessions(ctx, "aaaaaaaaaaaa"); err != nil || len(got) != 0 {
		t.Errorf("they outlived their VM: %+v, %v", got, err)
	}
	wantKind(t, s.PutSessions(ctx, "aaaaaaaaaaaa", want), api.KindNotFound, "aaaaaaaaaaaa")
}
