// Package usage knows who uses VMs, and tells when nobody does: [Idle] for VMs that are stopped when they were not used for some
// time, [Leases] for those that belong to a client and go when that goes. Both only count and tell; package vm acts.
//
// A VM is in use while a command, a copy, a workspace stream, an SSH or any other connection into its guest is open, and while a session
// runs in it: see [InSession].
//
// Locks: each type has one leaf mutex, and calls nobody under it.
package usage

import (
	"sync"
	"time"

	"github.com/banger-vm/banger/internal/banger"
)

// Warning is how long before the stop the event comes; half the time for VMs that are stopped sooner.
const Warning = time.Minute

// storeEvery spaces the writes of a VM's last use, which every command would otherwise cause.
const storeEvery = 10 * time.Second

// Idle knows which running VMs are in use.
type Idle struct {
	mu   sync.Mutex // guards vms: streams come and go while the reaper looks
	vms  map[banger.VMID]*use
	poke chan struct{} // capacity 1: the reaper's next look may have to be sooner
}

type use struct {
	after  time.Duration // AutoStop; 0: for ever
	active int           // open streams
	last   time.Time     // end of the last one
	stored time.Time     // when last was written to the record
	warned time.Time     // when the event was given out; zero: not since the last use
	asked  time.Time     // when a stop was last asked for: one that fails is tried again after as long
}

// NewIdle returns an Idle that knows no VM.
func NewIdle() *Idle {
	return &Idle{vms: map[banger.VMID]*use{}, poke: make(chan struct{}, 1)}
}

// Watch begins or changes the supervision of a running VM, whose time begins now.
func (i *Idle) Watch(id banger.VMID, after time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	u, ok := i.vms[id]
	if !ok {
		u = &use{}
		i.vms[id] = u
	}
	u.after, u.last, u.warned = after, time.Now(), time.Time{}
	i.wake()
}

// Forget ends the supervision of a VM.
func (i *Idle) Forget(id banger.VMID) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.vms, id)
}

func (i *Idle) wake() {
	select {
	case i.poke <- struct{}{}:
	default:
	}
}

// Use counts a stream that opens (+1) or ends (-1), and reports whether the record should learn of it.
func (i *Idle) Use(id banger.VMID, change int) (store bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	u, ok := i.vms[id]
	if !ok {
		return false
	}
	now := time.Now()
	u.active, u.last, u.warned = u.active+change, now, time.Time{}
	if u.active == 0 && u.after > 0 {
		i.wake()
	}
	if now.Sub(u.stored) < storeEvery {
		return false
	}
	u.stored = now
	return true
}

// Expired reports whether the VM is still unused for as long as it may be.
func (i *Idle) Expired(id banger.VMID) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	u, ok := i.vms[id]
	return ok && u.after > 0 && u.active == 0 && time.Since(u.last) >= u.after
}

// Due returns the VMs to warn of and those to stop now, and after how long to look again, unless [Idle.Poked] says sooner.
func (i *Idle) Due() (warn, stop []banger.VMID, again time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	again = time.Hour
	for id, u := range i.vms {
		if u.after == 0 || u.active > 0 {
			continue
		}
		grace := min(Warning, u.after/2)
		unused, warned, asked := time.Since(u.last), time.Since(u.warned), time.Since(u.asked)
		switch {
		case unused < u.after-grace:
			again = min(again, u.after-grace-unused)
		case u.warned.IsZero(): // maybe late: the host may have slept
			warn, u.warned = append(warn, id), time.Now()
			again = min(again, grace)
		case warned < grace:
			again = min(again, grace-warned)
		case asked < u.after:
			again = min(again, u.after-asked)
		default:
			stop, u.asked = append(stop, id), time.Now()
			again = min(again, u.after)
		}
	}
	return warn, stop, again
}

// Poked returns a channel that has something to receive when the next look may have to be sooner.
func (i *Idle) Poked() <-chan struct{} { return i.poke }
