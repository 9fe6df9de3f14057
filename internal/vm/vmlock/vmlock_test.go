package vmlock

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

func TestLocks(t *testing.T) {
	t.Run("a second caller is told what the holder is doing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var l Locks
			_, unlock, err := l.Lock(t.Context(), "a", Holder{VM: "web", Action: "starting", Op: "7f3a"})
			if err != nil {
				t.Fatal(err)
			}
			defer unlock()
			_, _, err = l.Lock(t.Context(), "a", Holder{VM: "web", Action: "stopping", Op: "7f3a"})
			if !errkind.Is(err, api.KindBusy) || !strings.Contains(err.Error(), `busy: vm "web" is starting (op 7f3a, 10s)`) ||
				!strings.Contains(errkind.Hint(err), "banger operation cancel 7f3a") {
				t.Fatalf("got %v", err)
			}
		})
	})
	t.Run("a caller that gives up does not keep the lock", func(t *testing.T) {
		var l Locks
		_, unlock, err := l.Lock(t.Context(), "a", Holder{VM: "web", Action: "starting", Op: "7f3a"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := l.Lock(ctx, "a", Holder{VM: "web", Action: "stopping", Op: "7f3a"}); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		unlock()
		if _, again, err := l.Lock(t.Context(), "a", Holder{VM: "web", Action: "stopping", Op: "7f3a"}); err != nil {
			t.Fatal(err)
		} else {
			again()
		}
		if len(l.held) != 0 {
			t.Fatalf("%d locks are remembered after the last unlock", len(l.held))
		}
	})
	t.Run("the lock passes to a waiter", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var l Locks
			_, unlock, err := l.Lock(t.Context(), "a", Holder{VM: "web", Action: "starting", Op: "7f3a"})
			if err != nil {
				t.Fatal(err)
			}
			got := make(chan error)
			go func() {
				_, again, err := l.Lock(t.Context(), "a", Holder{VM: "web", Action: "stopping", Op: "7f3a"})
				if err == nil {
					again()
				}
				got <- err
			}()
			time.Sleep(time.Second) // the bubble's clock
			unlock()
			if err := <-got; err != nil {
				t.Fatal(err)
			}
		})
	})
	t.Run("two VMs do not wait for each other", func(t *testing.T) {
		var l Locks
		_, a, err := l.Lock(t.Context(), "a", Holder{VM: "web", Action: "starting", Op: "7f3a"})
		if err != nil {
			t.Fatal(err)
		}
		defer a()
		_, b, err := l.Lock(t.Context(), "b", Holder{VM: "web", Action: "starting", Op: "7f3a"})
		if err != nil {
			t.Fatal(err)
		}
		b()
	})
}
