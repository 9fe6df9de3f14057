package failpoint

import (
	"context"
	"errors"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

func TestSet(t *testing.T) {
	t.Run("a bad action is refused", func(t *testing.T) {
		for _, s := range []string{"a", "a=", "a=explode", "a=delay", "a=delay:soon"} {
			if _, err := Parse(s); !errkind.Is(err, api.KindInvalid) {
				t.Errorf("Parse(%q) = %v", s, err)
			}
		}
	})
	t.Run("only the named step fails", func(t *testing.T) {
		set, err := Parse("disks.attach=error,agent.attach=delay:1h")
		if err != nil {
			t.Fatal(err)
		}
		if err := set.Hit(t.Context(), "nic.attach"); err != nil {
			t.Errorf("another step: %v", err)
		}
		if err := set.Hit(t.Context(), "disks.attach"); err == nil {
			t.Error("the named step did not fail")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := set.Hit(ctx, "agent.attach"); !errors.Is(err, context.Canceled) {
			t.Errorf("a delay does not honour its context: %v", err)
		}
	})
	t.Run("an empty set does nothing", func(t *testing.T) {
		if err := Set(nil).Hit(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
	})
}
