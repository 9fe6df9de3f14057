// Package fake is a VMM that runs nothing: machines are entries in memory, their guest is a function.
//
// A [Host] stands for the computer. It holds the machines and so outlives the [Driver] values made on it, as processes
// outlive a daemon: a second Driver on the same Host is the daemon after its restart. Tests play the guest through
// [Config].Agent and the Host's PowerOff, Reboot, Panic, Crash and Print; they make steps fail with Fail and stop
// with Hold. The points are those of the real drivers.
//
// Machines have pids above any pid that Linux gives, so that no mistake of a test signals a process.
//
// Lock order: Host.mu is a leaf; Agent, files and held points run without it.
package fake

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vmm"
)

// Point names a step at which a test can make a driver fail or wait.
type Point string

// The points.
const (
	PointStart  Point = "start"  // before anything was made
	PointSpawn  Point = "spawn"  // sockets are made, no process yet
	PointReady  Point = "ready"  // the process lives, Start has not returned
	PointAdopt  Point = "adopt"  // the handle was not looked at yet
	PointDial   Point = "dial"   // before the control channel is connected
	PointKilled Point = "killed" // the kill was sent, the process is not gone
)

// StartPoints returns the points that every Start passes, in order.
func StartPoints() []Point { return []Point{PointStart, PointSpawn, PointReady} }

// Config is a fake computer.
type Config struct {
	// Agent serves one connection to a machine's control channel, as the guest's agent would; it owns conn. ctx ends with
	// the machine. nil: bytes are swallowed.
	Agent func(ctx context.Context, spec vmm.Spec, conn net.Conn)
	// Console is what every guest prints when it boots.
	Console string
	// MinMemMiB is what Features says; default 64.
	MinMemMiB int
	// Unfit is what Features says, and Check too.
	Unfit []preflight.Problem
}

// Host is a fake computer.
type Host struct {
	cfg Config

	mu     sync.Mutex // tests fault and end machines while drivers work
	procs  map[int]*process
	last   int // pid
	faults map[Point]error
	holds  map[Point]chan struct{}
}

// firstPID is above PID_MAX_LIMIT of Linux, 4194304.
const firstPID = 1 << 24

// socket is the file in RunDir that stands for a machine's sockets.
const socket = "agent.sock"

// NewHost returns a computer without machines.
func NewHost(cfg Config) *Host {
	if cfg.MinMemMiB == 0 {
		cfg.MinMemMiB = 64
	}
	return &Host{cfg: cfg, procs: map[int]*process{}, last: firstPID, faults: map[Point]error{}, holds: map[Point]chan struct{}{}}
}

// Driver returns a new driver on this computer.
func (h *Host) Driver() *Driver { return &Driver{host: h} }

// Fail makes every passage of p fail with err; nil ends that.
func (h *Host) Fail(p Point, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults[p] = err
}

// Hold makes every passage of p wait until release is called or the caller's context ends. release may be called twice.
func (h *Host) Hold(p Point) (release func()) {
	c := make(chan struct{})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.holds[p] = c
	return sync.OnceFunc(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		close(c)
		delete(h.holds, p)
	})
}

// pass goes through p: it waits while p is held, then fails as p is set to.
func (h *Host) pass(ctx context.Context, p Point) error {
	h.mu.Lock()
	hold := h.holds[p]
	h.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.faults[p]
}

// Running returns the VMs that have a live machine, sorted.
func (h *Host) Running() []banger.VMID {
	h.mu.Lock()
	defer h.mu.Unlock()
	var ids []banger.VMID
	for _, p := range h.procs {
		ids = append(ids, p.handle.ID)
	}
	slices.Sort(ids)
	return ids
}

// Lives reports whether the machine of handle is alive.
func (h *Host) Lives(handle vmm.Handle) bool { return h.find(handle.PID, handle.StartTime) != nil }

// PowerOff ends the VM's machine as a guest does that powers off. This and the calls below do nothing when there is none.
func (h *Host) PowerOff(id banger.VMID) {
	h.endVM(id, vmm.Exit{Reason: "guest powered off", Clean: true})
}

// Reboot ends the VM's machine as a guest does that reboots.
func (h *Host) Reboot(id banger.VMID) { h.endVM(id, vmm.Exit{Reason: "guest rebooted"}) }

// Panic ends the VM's machine as a guest kernel does that panics.
func (h *Host) Panic(id banger.VMID) {
	h.Print(id, "Kernel panic - not syncing: fake\n")
	h.endVM(id, vmm.Exit{Reason: "guest kernel panicked: fake"})
}

// Crash ends the VM's machine as `kill -9` of the VMM does.
func (h *Host) Crash(id banger.VMID) { h.endVM(id, vmm.Exit{Reason: "fake was killed by signal 9"}) }

// Halt halts the VM's guest for a reason, as a full disk does; an empty one lets it go on.
func (h *Host) Halt(id banger.VMID, why string) {
	p := h.byVM(id)
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.halt = why
	close(p.changed)
	p.changed = make(chan struct{})
}

// Print writes text on the VM's console.
func (h *Host) Print(id banger.VMID, text string) {
	if p := h.byVM(id); p != nil {
		p.print(text)
	}
}

func (h *Host) endVM(id banger.VMID, e vmm.Exit) {
	if p := h.byVM(id); p != nil {
		h.end(p, e)
	}
}

func (h *Host) byVM(id banger.VMID) *process {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.procs {
		if p.handle.ID == id {
			return p
		}
	}
	return nil
}

func (h *Host) find(pid int, startTime uint64) *process {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.procs[pid]; p != nil && p.handle.StartTime == startTime {
		return p
	}
	return nil
}

// spawn makes a live machine of spec.
func (h *Host) spawn(spec vmm.Spec) *process {
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{spec: spec, ctx: ctx, cancel: cancel, exited: make(chan struct{}), changed: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	p.handle = vmm.Handle{
		Driver: Name, ID: spec.ID, PID: h.last, StartTime: uint64(h.last) << 8, Dir: spec.Dir, RunDir: spec.RunDir, Engine: engine,
	}
	h.procs[h.last] = p
	return p
}

// busy is an error of kind busy when a live machine has runDir.
func (h *Host) busy(runDir string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.procs {
		if p.spec.RunDir == runDir {
			return errkind.New(api.KindBusy, "a machine runs in %s, process %d", runDir, p.handle.PID)
		}
	}
	return nil
}

// end ends p, once; what it left is removed before Exited closes.
func (h *Host) end(p *process, e vmm.Exit) {
	p.once.Do(func() {
		e.At = time.Now()
		p.cancel()
		p.replaceAgent(nil)
		os.Remove(filepath.Join(p.spec.RunDir, socket)) // the test's directory may be gone already
		h.mu.Lock()
		delete(h.procs, p.handle.PID)
		h.mu.Unlock()
		p.exit = e
		close(p.exited)
	})
}
