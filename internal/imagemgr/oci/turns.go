package oci

import (
	"context"
	"sync"
)

// Turns keep two pulls from downloading one layer into the cache at once. The zero value is ready.
type Turns struct {
	mu   sync.Mutex               // guards busy, against pulls at the same time
	busy map[string]chan struct{} // by hex digest; closed when the download has ended
}

// take waits until nobody downloads the layer, or ctx ends. done must be called once.
func (t *Turns) take(ctx context.Context, digest string) (done func(), err error) {
	for {
		t.mu.Lock()
		wait, taken := t.busy[digest]
		if !taken {
			break
		}
		t.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	defer t.mu.Unlock()
	mine := make(chan struct{})
	if t.busy == nil {
		t.busy = map[string]chan struct{}{}
	}
	t.busy[digest] = mine
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.busy, digest)
		close(mine)
	}, nil
}
