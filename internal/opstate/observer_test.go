package opstate_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/opstate"
)

// diary is an observer that writes down what it is told.
type diary []string

func (d *diary) OperationEnded(op api.Operation) {
	*d = append(*d, op.Kind+" "+string(op.State))
	if op.Ended.IsZero() {
		*d = append(*d, "without an end")
	}
}

func TestObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told diary
		r := opstate.New(&memory{ops: map[string]api.Operation{}}, slog.New(slog.NewTextHandler(new(bytes.Buffer), nil)), &told)
		begin := func(kind string, err error) {
			op := r.Begin(kind, "", func(context.Context, *opstate.Op) (any, error) { return nil, err })
			if _, err := r.Wait(t.Context(), op.ID); err != nil {
				t.Fatal(err)
			}
		}
		begin("good", nil)
		begin("bad", errors.New("no"))
		if err := r.Cancel(t.Context(), r.Begin("slow", "", untilCanceled).ID); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		begin("late", nil)
		if want := []string{"good succeeded", "bad failed", "slow canceled", "late interrupted"}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}
