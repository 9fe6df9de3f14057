// Package namelock holds one lock per name, of images and of kernels. A lock is held for a whole operation, downloads
// included, so waiting for one honours a context. Who holds one may take no second one of the same kind; docs/LOCKING.md has
// the order.
package namelock

import (
	"context"
	"sync"
)

// Locks are the locks of all names. The zero value is ready.
type Locks struct {
	mu   sync.Mutex // guards held and refs against two callers who make or drop the same lock
	held map[string]*entry
}

type entry struct {
	sem  chan struct{} // capacity 1: full while held
	refs int           // holder and waiters
}

// Lock waits for the lock of name until ctx ends, and then returns the context's cause. unlock must be called once.
func (l *Locks) Lock(ctx context.Context, name string) (unlock func(), err error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*entry{}
	}
	e := l.held[name]
	if e == nil {
		e = &entry{sem: make(chan struct{}, 1)}
		l.held[name] = e
	}
	e.refs++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if e.refs--; e.refs == 0 {
			delete(l.held, name)
		}
	}
	select {
	case e.sem <- struct{}{}:
		return func() { <-e.sem; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

// Idle reports whether nobody holds or waits for a lock.
func (l *Locks) Idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.held) == 0
}
