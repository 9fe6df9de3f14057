// Package namelock holds one lock per name, of images and of kernels. A lock is held for a whole operation, downloads
// included, so waiting for one honours a context. Who holds one may take no second one of the same kind; docs/LOCKING.md has
// the order.
package namelock

import (
	"context"
	"fmt"
	"sync"

	"github.com/banger-vm/banger/internal/lockorder"
)

// Locks are the locks of all names. The zero value is ready.
type Locks struct {
	Noun string // what has the names, such as image

	mu   sync.Mutex // guards held and refs against two callers who make or drop the same lock
	held map[string]*entry
}

type entry struct {
	sem  chan struct{} // capacity 1: full while held
	refs int           // holder and waiters
}

// Lock waits for the lock of name until ctx ends, and then returns the context's cause. What is done under the lock is done with
// the context that it returns, so that the order of locks is checked. unlock must be called once.
func (l *Locks) Lock(ctx context.Context, name string) (under context.Context, unlock func(), err error) {
	under = lockorder.Take(ctx, fmt.Sprintf("%s %q", l.Noun, name))
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
		return under, func() { <-e.sem; leave() }, nil
	case <-ctx.Done():
		leave()
		return ctx, nil, context.Cause(ctx)
	}
}

// Idle reports whether nobody holds or waits for a lock.
func (l *Locks) Idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.held) == 0
}
