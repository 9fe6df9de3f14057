// Package vm is the VM service: it creates, starts, stops and deletes VMs, watches their machines, gives access to their
// guests, and makes the state right again after the daemon was away.
//
// # Intent and reality
//
// The store holds intent: the record of each VM, with its state. What is true now is the machine, known durably by the
// handle file that capability "machine" keeps, and proven against the kernel before it is believed. Every irreversible act
// is bracketed: the "-ing" state is written, then the act, then the "-ed" state. Between the two a crash leaves a state that
// [Service.Reconcile] knows how to finish or undo.
//
// # Locks
//
// A VM's lock (vmlock) is held for the whole of a life-cycle operation. [Service.mu] guards the map of runs only and is
// never held across I/O. Guest traffic (exec, copies, workspaces) takes no lock: stop cuts it.
package vm

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/failpoint"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/vm/capability"
	"github.com/banger-vm/banger/internal/vm/usage"
	"github.com/banger-vm/banger/internal/vm/vmlock"
	"github.com/banger-vm/banger/internal/vmm"
)

// Store keeps VM records.
type Store interface {
	CreateVM(ctx context.Context, vm banger.VM) error
	GetVM(ctx context.Context, ref string) (banger.VM, error)
	ListVMs(ctx context.Context) ([]banger.VM, error)
	UpdateVM(ctx context.Context, id banger.VMID, change func(*banger.VM) error) (banger.VM, error)
	DeleteVM(ctx context.Context, id banger.VMID) error
	// AddEvent tells of what no record shows.
	AddEvent(ctx context.Context, e api.Event) error
}

// Images finds images.
type Images interface {
	Get(ctx context.Context, ref string) (banger.Image, error)
	// EnsureDefault returns the default image, and builds it first when there is none.
	EnsureDefault(ctx context.Context, r opstate.Reporter) (banger.Image, error)
}

// Kernels finds kernels.
type Kernels interface {
	Get(ctx context.Context, ref string) (banger.Kernel, error)
	// EnsureDefault returns the default kernel, and imports it first when there is none.
	EnsureDefault(ctx context.Context, r opstate.Reporter) (banger.Kernel, error)
}

// Ports are the ports that are published on the host.
type Ports interface {
	// Check says whether a VM could have these ports now. Those that it has count as free.
	Check(id banger.VMID, ports []banger.Publish) error
}

// Templates are what VMs begin with in place of a boot.
type Templates interface {
	// Find returns the template that a run can begin with, or why there is none, for people.
	Find(*capability.Run) (t *capability.Template, why string)
	// Want has one made in the background for VMs like that of the run, if there can be one.
	Want(*capability.Run)
	// Build makes one now, unless there is one.
	Build(context.Context, *capability.Run, opstate.Reporter) (api.Template, error)
	// Distrust removes one from which a VM did not start.
	Distrust(*capability.Template, error)
}

// Defaults fill in what a request leaves out. Sizes are bytes; zero is the image's.
type Defaults struct {
	Image    string
	Kernel   string
	VCPU     int
	MemMiB   int
	RootSize int64
	WorkSize int64
	NAT      bool
	Network  netip.Prefix // the bridge's, in which new VMs get an address; zero: none
	// Cloner names the disk cloner for new VMs of a VMM that opens disks in formats.
	Cloner   func(formats []string) (string, error)
	AutoStop time.Duration // how long a VM may run unused; 0: for ever
}

// Dirs names the directories of VMs.
type Dirs interface {
	VMsDir() string                 // parent of the durable ones
	VMDir(id banger.VMID) string    // durable
	VMRunDir(id banger.VMID) string // sockets
	PatchesDir() string             // exports that nobody was there to take
}

// Config is what the service works with.
type Config struct {
	Store     Store
	Images    Images
	Kernels   Kernels
	Drivers   map[string]vmm.Driver // by name
	Auto      string                // the driver that "auto" means
	Chain     *capability.Chain
	Ports     Ports
	Templates Templates
	Points    failpoint.Set // for the steps that are not the chain's: see Steps
	Ops       *opstate.Registry
	Dirs      Dirs
	Defaults  Defaults
	HostCPUs  int
	Taps      bool // VMs have tap devices
	Log       *slog.Logger
}

// Service is the VM service.
type Service struct {
	cfg    Config
	log    *slog.Logger
	locks  vmlock.Locks
	leases *usage.Leases
	idle   *usage.Idle
	bg     sync.WaitGroup  // watchers and reapers
	ctx    context.Context // ends at Close; parent of background work, never of a machine
	cancel context.CancelFunc

	mu   sync.Mutex // guards runs: handlers read it while starts and exits change it
	runs map[banger.VMID]*capability.Run
}

// New returns a service. Call [Service.Reconcile] before anything else, and [Service.Close] at the end.
func New(cfg Config) *Service {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Service{cfg: cfg, log: cfg.Log, idle: usage.NewIdle(), ctx: ctx, cancel: cancel, runs: map[banger.VMID]*capability.Run{}}
	s.leases = usage.NewLeases(s.leaseExpired)
	return s
}

// Close ends background work and lets go of the machines, which run on.
func (s *Service) Close() {
	s.cancel()
	s.leases.Close()
	s.bg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.runs {
		r.Link.Close()
	}
}

// Get returns the VM that ref names.
func (s *Service) Get(ctx context.Context, ref string) (banger.VM, error) {
	return s.cfg.Store.GetVM(ctx, ref)
}

// List returns all VMs, oldest first.
func (s *Service) List(ctx context.Context) ([]banger.VM, error) { return s.cfg.Store.ListVMs(ctx) }

// Run returns the present run of a VM, or nil.
func (s *Service) Run(id banger.VMID) *capability.Run {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runs[id]
}

func (s *Service) setRun(id banger.VMID, r *capability.Run) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r == nil {
		delete(s.runs, id)
		s.idle.Forget(id)
		return
	}
	s.runs[id] = r
	s.idle.Watch(id, s.AutoStop(r.VM))
}

// Guest returns the VM that ref names and a connection to its agent. A VM that does not run is of kind precondition.
func (s *Service) Guest(ctx context.Context, ref string) (banger.VM, *guest.Conn, error) {
	vm, err := s.Get(ctx, ref)
	if err != nil {
		return vm, nil, err
	}
	r := s.Run(vm.ID)
	if r == nil || vm.State != banger.Running {
		return vm, nil, notRunning(vm)
	}
	if why, _ := halted(r.Machine); why != "" {
		return vm, nil, errkind.WithHint(errkind.New(api.KindUnavailable, "vm %q: %s", vm.Name, why),
			"make room on the host's disk; `banger vm list` shows when the VM runs again")
	}
	conn, err := r.Link.Get(ctx)
	if err != nil {
		return vm, nil, errkind.WithHint(errkind.New(errkind.Of(err), "vm %q does not answer: %w", vm.Name, err),
			"look at its console: `banger vm logs %s`", vm.Name)
	}
	return vm, conn, nil
}

func notRunning(vm banger.VM) error {
	if vm.State == banger.Paused {
		return errkind.WithHint(errkind.New(api.KindPrecondition, "vm %q is paused", vm.Name), "let it go on: `banger vm resume %s`", vm.Name)
	}
	return errkind.WithHint(errkind.New(api.KindPrecondition, "vm %q is %s", vm.Name, vm.State),
		"start it: `banger vm start %s`", vm.Name)
}

// Health asks the guest how it is.
func (s *Service) Health(ctx context.Context, ref string) (guestapi.Hello, guestapi.Stats, error) {
	var hello guestapi.Hello
	var stats guestapi.Stats
	_, conn, err := s.Guest(ctx, ref)
	if err != nil {
		return hello, stats, err
	}
	if err := conn.Call(ctx, guestapi.MethodHello, nil, &hello); err != nil {
		return hello, stats, err
	}
	return hello, stats, conn.Call(ctx, guestapi.MethodStats, nil, &stats)
}

// Ping measures how long the agent of a running VM takes to answer.
func (s *Service) Ping(ctx context.Context, ref string) (time.Duration, error) {
	_, conn, err := s.Guest(ctx, ref)
	if err != nil {
		return 0, err
	}
	var hello guestapi.Hello
	begun := time.Now()
	err = conn.Call(ctx, guestapi.MethodHello, nil, &hello)
	return time.Since(begun), err
}

// driver returns the driver of that name; "auto" and "" mean the one that was chosen for this host.
func (s *Service) driver(name string) (vmm.Driver, error) {
	if name == "" || name == "auto" {
		name = s.cfg.Auto
	}
	if d, ok := s.cfg.Drivers[name]; ok {
		return d, nil
	}
	return nil, errkind.WithHint(errkind.New(api.KindInvalid, "unknown VMM %q", name), "use auto, or one of %s", strings.Join(slices.Sorted(maps.Keys(s.cfg.Drivers)), ", "))
}

// Dir returns a VM's durable directory.
func (s *Service) Dir(id banger.VMID) string { return s.cfg.Dirs.VMDir(id) }
