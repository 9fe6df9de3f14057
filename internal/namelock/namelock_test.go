package namelock

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestLocks(t *testing.T) {
	t.Run("one holder at a time, and the next when it lets go", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var l Locks
			_, first, err := l.Lock(t.Context(), "web")
			if err != nil {
				t.Fatal(err)
			}
			held := false
			go func() {
				_, unlock, err := l.Lock(t.Context(), "web")
				if err != nil {
					t.Error(err)
					return
				}
				held = true
				unlock()
			}()
			synctest.Wait()
			if held {
				t.Error("two hold it")
			}
			first()
			synctest.Wait()
			if !held || len(l.held) != 0 {
				t.Errorf("after the first let go: held %v, entries %v", held, l.held)
			}
		})
	})
	t.Run("another name is free", func(t *testing.T) {
		var l Locks
		for _, name := range []string{"web", "db"} {
			_, unlock, err := l.Lock(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			defer unlock()
		}
	})
	t.Run("a wait ends with the context, and says why", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var l Locks
			_, unlock, err := l.Lock(t.Context(), "web")
			if err != nil {
				t.Fatal(err)
			}
			why := errors.New("hung up")
			ctx, cancel := context.WithCancelCause(t.Context())
			got := make(chan error, 1)
			go func() {
				_, _, err := l.Lock(ctx, "web")
				got <- err
			}()
			synctest.Wait()
			cancel(why)
			if err := <-got; !errors.Is(err, why) {
				t.Errorf("got %v", err)
			}
			if l.Idle() {
				t.Error("idle while held")
			}
			unlock()
			if !l.Idle() {
				t.Errorf("entries are left: %v", l.held)
			}
		})
	})
}
