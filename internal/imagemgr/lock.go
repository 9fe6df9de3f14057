package imagemgr

import (
	"context"
	"sync"
)

// nameLocks are one lock per image name. The zero value is ready.
type nameLocks struct {
	mu   sync.Mutex // guards held and refs against two callers who make or drop the same lock
	held map[string]*nameLock
}

type nameLock struct {
	sem  chan struct{} // capacity 1: full while held
	refs int           // holder and waiters
}

// lock waits for the lock of name until ctx ends. unlock must be called once.
func (l *nameLocks) lock(ctx context.Context, name string) (unlock func(), err error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*nameLock{}
	}
	e := l.held[name]
	if e == nil {
		e = &nameLock{sem: make(chan struct{}, 1)}
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
