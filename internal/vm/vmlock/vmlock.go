// Package vmlock holds one lock per VM. A lock is held for a whole life-cycle operation, I/O included, so taking it honours
// a context and gives up after a while with an error that names what the holder is doing.
//
// Lock order: a VM's lock comes before image and kernel locks and before every leaf mutex. Nobody holds two VM locks.
package vmlock

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/lockorder"
)

// Locks are the locks of all VMs. The zero value is ready.
type Locks struct {
	// Wait is how long [Locks.Lock] waits for a holder before it reports busy; zero is 10 s.
	Wait time.Duration

	mu   sync.Mutex // guards held and the entries' fields
	held map[banger.VMID]*entry
}

// Holder says who takes a lock, and for what. Those who must wait are told.
type Holder struct {
	VM     string // the VM's name
	Action string // a verb in -ing form, such as "starting"
	Op     string // id of the operation, or empty
}

type entry struct {
	sem    chan struct{} // capacity 1: full while held
	refs   int           // holder and waiters
	holder Holder
	since  time.Time
}

const defaultWait = 10 * time.Second

// Lock takes the lock of the VM id for h. It waits until the lock is free, ctx ends, or the wait is over; the last is an
// error of kind busy, which names the holder. What is done under the lock is done with the context that it returns, so that the
// order of locks is checked. unlock must be called once.
func (l *Locks) Lock(ctx context.Context, id banger.VMID, h Holder) (under context.Context, unlock func(), err error) {
	under = lockorder.Take(ctx, fmt.Sprintf("vm %q", h.VM))
	e := l.enter(id)
	wait := l.Wait
	if wait == 0 {
		wait = defaultWait
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case e.sem <- struct{}{}:
	case <-ctx.Done():
		l.leave(id, e)
		return ctx, nil, ctx.Err()
	case <-timer.C:
		defer l.leave(id, e)
		return ctx, nil, l.busy(e)
	}
	l.mu.Lock()
	e.holder, e.since = h, time.Now()
	l.mu.Unlock()
	return under, sync.OnceFunc(func() {
		<-e.sem
		l.leave(id, e)
	}), nil
}

func (l *Locks) busy(e *entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	h, since := e.holder, time.Since(e.since).Round(time.Second)
	if h.Op == "" {
		return errkind.WithHint(errkind.New(api.KindBusy, "busy: vm %q is %s (%s)", h.VM, h.Action, since), "wait for it to end, and try again")
	}
	return errkind.WithHint(errkind.New(api.KindBusy, "busy: vm %q is %s (op %s, %s)", h.VM, h.Action, h.Op, since),
		"wait for it to end, or cancel it: `banger operation cancel %s`", h.Op)
}

func (l *Locks) enter(id banger.VMID) *entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = map[banger.VMID]*entry{}
	}
	e, ok := l.held[id]
	if !ok {
		e = &entry{sem: make(chan struct{}, 1)}
		l.held[id] = e
	}
	e.refs++
	return e
}

func (l *Locks) leave(id banger.VMID, e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.refs--; e.refs == 0 {
		delete(l.held, id)
	}
}
