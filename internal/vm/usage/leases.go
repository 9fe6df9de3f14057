package usage

import (
	"sync"
	"time"

	"github.com/banger-vm/banger/internal/banger"
)

// Grace is how long an ephemeral VM may be without a client: after its creation, after a restart of the daemon, and
// after its last client went away.
const Grace = 15 * time.Second

// Leases counts the clients of ephemeral VMs. A VM that had none for [Grace] is reported once.
type Leases struct {
	expired func(banger.VMID)

	mu     sync.Mutex // guards vms: clients come and go while timers fire
	vms    map[banger.VMID]*lease
	closed bool
}

type lease struct {
	holders int
	timer   *time.Timer
}

// NewLeases returns leases that report to expired, in a goroutine of their own.
func NewLeases(expired func(banger.VMID)) *Leases {
	return &Leases{expired: expired, vms: map[banger.VMID]*lease{}}
}

// Expect begins the grace of a VM that nobody holds yet.
func (l *Leases) Expect(id banger.VMID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.entryLocked(id); e.holders == 0 {
		e.timer.Reset(Grace)
	}
}

// Hold adds a client; release takes it away.
func (l *Leases) Hold(id banger.VMID) (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entryLocked(id)
	e.holders++
	e.timer.Stop()
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if e.holders--; e.holders == 0 && !l.closed {
			e.timer.Reset(Grace)
		}
	})
}

func (l *Leases) entryLocked(id banger.VMID) *lease {
	e, ok := l.vms[id]
	if !ok {
		e = &lease{timer: time.AfterFunc(Grace, func() { l.fire(id) })}
		l.vms[id] = e
	}
	return e
}

func (l *Leases) fire(id banger.VMID) {
	l.mu.Lock()
	e, ok := l.vms[id]
	if l.closed || !ok || e.holders > 0 {
		l.mu.Unlock()
		return
	}
	delete(l.vms, id)
	l.mu.Unlock()
	l.expired(id)
}

// Close keeps anything more from being reported.
func (l *Leases) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, e := range l.vms {
		e.timer.Stop()
	}
}
