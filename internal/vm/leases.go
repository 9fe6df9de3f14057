package vm

import (
	"context"
	"sync"
	"time"

	"github.com/banger-vm/banger/internal/banger"
)

// leaseGrace is how long an ephemeral VM may be without a client: after its creation, after a restart of the daemon, and
// after its last client went away.
const leaseGrace = 15 * time.Second

// leases counts the clients of ephemeral VMs. A VM that had none for leaseGrace is reported to expired, once.
type leases struct {
	expired func(banger.VMID)

	mu     sync.Mutex // guards vms: clients come and go while timers fire
	vms    map[banger.VMID]*lease
	closed bool
}

type lease struct {
	holders int
	timer   *time.Timer
}

// expect begins the grace of a VM that nobody holds yet.
func (l *leases) expect(id banger.VMID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.entryLocked(id); e.holders == 0 {
		e.timer.Reset(leaseGrace)
	}
}

// hold adds a client; release takes it away.
func (l *leases) hold(id banger.VMID) (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entryLocked(id)
	e.holders++
	e.timer.Stop()
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if e.holders--; e.holders == 0 && !l.closed {
			e.timer.Reset(leaseGrace)
		}
	})
}

func (l *leases) entryLocked(id banger.VMID) *lease {
	if l.vms == nil {
		l.vms = map[banger.VMID]*lease{}
	}
	e, ok := l.vms[id]
	if !ok {
		e = &lease{timer: time.AfterFunc(leaseGrace, func() { l.fire(id) })}
		l.vms[id] = e
	}
	return e
}

func (l *leases) fire(id banger.VMID) {
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

func (l *leases) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, e := range l.vms {
		e.timer.Stop()
	}
}

// Lease holds the VM that ref names for a client until release is called. Only ephemeral VMs need one.
func (s *Service) Lease(ctx context.Context, ref string) (vm banger.VM, release func(), err error) {
	vm, err = s.Get(ctx, ref)
	if err != nil {
		return vm, nil, err
	}
	if !vm.Spec.Ephemeral {
		return vm, func() {}, nil
	}
	return vm, s.leases.hold(vm.ID), nil
}

// leaseExpired rescues what an abandoned ephemeral VM holds and deletes it. A rescue that fails keeps the VM.
func (s *Service) leaseExpired(id banger.VMID) {
	s.bg.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, cleanTimeout)
		defer cancel()
		vm, err := s.Get(ctx, string(id))
		if err != nil {
			return // its client deleted it
		}
		s.log.Info("ephemeral vm was abandoned", "vm", vm.Name)
		if err := s.rescue(ctx, vm); err != nil {
			s.log.Error("abandoned vm is kept: its workspace could not be exported", "vm", vm.Name, "err", err)
			return
		}
		if err := s.Delete(ctx, string(id), true); err != nil {
			s.log.Error("delete abandoned vm", "vm", vm.Name, "err", err)
		}
	})
}
