package lockorder

import (
	"context"
	"strings"
	"testing"
)

func TestTake(t *testing.T) {
	if !checked {
		t.Skip("the order is checked in builds with the race detector only")
	}
	taken := Take(t.Context(), `vm "web"`)
	t.Run("who holds none takes one", func(t *testing.T) { Take(t.Context(), `vm "db"`) })
	t.Run("who holds one takes no other, in whatever context that follows", func(t *testing.T) {
		defer func() {
			if p, ok := recover().(string); !ok || !strings.Contains(p, `image "debian" while holding that of vm "web"`) {
				t.Errorf("got %v", p)
			}
		}()
		ctx, cancel := context.WithCancel(context.WithoutCancel(taken))
		defer cancel()
		Take(ctx, `image "debian"`)
	})
}
