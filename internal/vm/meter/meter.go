// Package meter measures what VMs use. What the host sees is read when it is asked for. What a guest says of itself costs the
// guest time, a lot of it for fifty of them on two processors; so guests are asked in the background, a few at a time, and whoever
// asks for all VMs gets what each said last.
package meter

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/vm/capability"
	"golang.org/x/sync/errgroup"
)

// VMs are the VMs there are.
type VMs interface {
	Get(ctx context.Context, ref string) (banger.VM, error)
	List(ctx context.Context) ([]banger.VM, error)
	// Run returns the present run of a VM, or nil.
	Run(id banger.VMID) *capability.Run
	// Bare returns a run of which only the record and the directories are known.
	Bare(vm banger.VM, r opstate.Reporter) *capability.Run
}

// Config is what a meter works with.
type Config struct {
	VMs   VMs
	Chain *capability.Chain
	Every time.Duration // how often guests are asked in the background; 0: never
	Log   *slog.Logger
}

// Meter measures VMs.
type Meter struct {
	cfg Config

	mu      sync.Mutex // guards samples: guests answer while others ask
	samples map[banger.VMID]sample
}

// sample is what the guest of a run said last, or why it said nothing.
type sample struct {
	run   *capability.Run
	at    time.Time
	guest *guestapi.Stats
	err   error
}

// New returns a meter. [Meter.Sample] asks the guests in the background.
func New(cfg Config) *Meter { return &Meter{cfg: cfg, samples: map[banger.VMID]sample{}} }

const (
	// guestPatience bounds what one guest may take of a question to many: a hanging one is told and does not keep the others back.
	guestPatience = 2 * time.Second
	// askedAtOnce is how many guests answer at a time in the background.
	askedAtOnce = 2
)

// Stats measures the VMs that refs name, in that order, or all that run, oldest first. The guests of those that are named are
// asked now; else what they said last will do, unless that is older than two rounds of asking.
func (m *Meter) Stats(ctx context.Context, refs []string) ([]api.VMStats, error) {
	vms, err := m.named(ctx, refs)
	if err != nil {
		return nil, err
	}
	maxAge := 2 * m.cfg.Every
	if len(refs) > 0 {
		maxAge = 0
	}
	stats := make([]api.VMStats, len(vms))
	var g errgroup.Group
	for i, vm := range vms {
		g.Go(func() error { stats[i] = m.measure(ctx, vm, maxAge); return nil })
	}
	return stats, g.Wait()
}

// named returns the VMs that refs name; without refs, all that run.
func (m *Meter) named(ctx context.Context, refs []string) ([]banger.VM, error) {
	var vms []banger.VM
	for _, ref := range refs {
		vm, err := m.cfg.VMs.Get(ctx, ref)
		if err != nil {
			return nil, err
		}
		vms = append(vms, vm)
	}
	if len(refs) > 0 {
		return vms, nil
	}
	all, err := m.cfg.VMs.List(ctx)
	for _, vm := range all {
		if vm.State == banger.Running {
			vms = append(vms, vm)
		}
	}
	return vms, err
}

func (m *Meter) measure(ctx context.Context, vm banger.VM, maxAge time.Duration) api.VMStats {
	st := api.VMStats{
		ID: string(vm.ID), Name: vm.Name, State: vm.State.String(), At: time.Now().UTC(), VCPU: vm.Spec.VCPU, Mem: int64(vm.Spec.MemMiB) << 20,
	}
	u, err := m.cfg.Chain.Measure(m.cfg.VMs.Bare(vm, opstate.Discard))
	if err != nil {
		m.cfg.Log.Debug("measure disks", "vm", vm.Name, "err", err) // one is just being made or removed
	}
	st.RootAllocated, st.DiskAllocated = u.Root, u.Work
	run := m.cfg.VMs.Run(vm.ID)
	if run == nil {
		return st
	}
	// A process that has just ended is found out by its watcher, and uses nothing.
	if p, err := host.ProcessUsage(run.Machine.Handle().PID); err == nil {
		st.CPUMS, st.MemResident = p.CPU.Milliseconds(), p.Resident
	}
	s := m.last(run)
	if s.run == nil || time.Since(s.at) > maxAge {
		s = m.ask(ctx, run)
	}
	st.Guest, st.GuestAt = s.guest, s.at
	if s.err != nil {
		st.GuestError = s.err.Error()
	}
	return st
}

// last returns what run's guest said last; one of an earlier run does not count.
func (m *Meter) last(run *capability.Run) sample {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.samples[run.VM.ID]; s.run == run {
		return s
	}
	return sample{}
}

// ask asks run's guest now.
func (m *Meter) ask(ctx context.Context, run *capability.Run) sample {
	bounded, cancel := context.WithTimeout(ctx, guestPatience)
	defer cancel()
	s := sample{run: run, guest: &guestapi.Stats{}}
	conn, err := run.Link.Get(bounded)
	if err == nil {
		err = conn.Call(bounded, guestapi.MethodStats, nil, s.guest)
	}
	if s.at = time.Now().UTC(); err != nil {
		s.guest, s.err = nil, err
	}
	if ctx.Err() == nil { // else it is the asker who went, which says nothing of the guest
		m.mu.Lock()
		defer m.mu.Unlock()
		m.samples[run.VM.ID] = s
	}
	return s
}

// Sample asks the guests of all VMs that run again and again, until ctx ends.
func (m *Meter) Sample(ctx context.Context) {
	if m.cfg.Every == 0 {
		return
	}
	for tick := time.NewTicker(m.cfg.Every); ; {
		m.round(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return
		}
	}
}

// round asks every guest once, and forgets those that are gone.
func (m *Meter) round(ctx context.Context) {
	vms, err := m.named(ctx, nil)
	if err != nil {
		if ctx.Err() == nil {
			m.cfg.Log.Warn("list the VMs to measure", "err", err)
		}
		return
	}
	live := map[banger.VMID]bool{}
	var g errgroup.Group
	g.SetLimit(askedAtOnce)
	for _, vm := range vms {
		if run := m.cfg.VMs.Run(vm.ID); run != nil && run.Halted.Load() == nil {
			live[vm.ID] = true
			g.Go(func() error { m.ask(ctx, run); return nil })
		}
	}
	_ = g.Wait() // none returns an error
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.samples {
		if !live[id] {
			delete(m.samples, id)
		}
	}
}
