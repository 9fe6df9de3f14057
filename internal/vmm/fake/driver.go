package fake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vmm"
)

// Name is the driver's name.
const Name = "fake"

const engine = "fake 1.0 (tcg)"

// Driver is a vmm.Driver on a [Host].
type Driver struct{ host *Host }

var _ vmm.Driver = (*Driver)(nil)

// Name is "fake".
func (d *Driver) Name() string { return Name }

// Features are those of a machine under TCG.
func (d *Driver) Features() vmm.Features {
	return vmm.Features{
		Accel: vmm.AccelTCG, Engine: engine, Formats: []string{"raw", "qcow2"}, UserNet: true, Pause: true, Snapshot: true, MinMemMiB: d.host.cfg.MinMemMiB,
		Unfit: d.host.cfg.Unfit,
	}
}

// Check looks at files and memory.
func (d *Driver) Check(_ context.Context, spec vmm.Spec) []preflight.Problem {
	problems := slices.Clone(d.host.cfg.Unfit)
	if spec.MemMiB < d.host.cfg.MinMemMiB {
		problems = append(problems, preflight.Problem{
			Detail: fmt.Sprintf("%d MiB of memory are too little", spec.MemMiB),
			Fix:    fmt.Sprintf("give it %d MiB or more", d.host.cfg.MinMemMiB),
		})
	}
	for _, path := range files(spec) {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			problems = append(problems, preflight.Problem{Detail: err.Error(), Fix: "make the file"})
		}
	}
	return problems
}

func files(spec vmm.Spec) []string {
	paths := []string{spec.Kernel, spec.Initrd}
	if spec.Restore != nil {
		paths = []string{spec.Restore.Memory, spec.Restore.State}
	}
	for _, disk := range spec.Disks {
		paths = append(paths, disk.Path)
	}
	return paths
}

// Start makes a machine. As with a real VMM, a file that is missing fails it late, when sockets exist.
func (d *Driver) Start(ctx context.Context, spec vmm.Spec) (_ vmm.Machine, err error) {
	h := d.host
	if err := h.pass(ctx, PointStart); err != nil {
		return nil, err
	}
	if err := h.busy(spec.RunDir); err != nil {
		return nil, err
	}
	path := filepath.Join(spec.RunDir, socket)
	if err := errors.Join(ignoreMissing(os.Remove(path)), os.WriteFile(path, nil, 0o600)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.Remove(path)
		}
	}()
	if err := h.pass(ctx, PointSpawn); err != nil {
		return nil, err
	}
	for _, path := range files(spec) {
		if _, err := os.Stat(path); err != nil {
			return nil, err
		}
	}
	if err := remembers(spec); err != nil {
		return nil, err
	}
	for _, log := range []string{vmm.ConsoleLog, vmm.VMMLog} {
		if err := os.WriteFile(filepath.Join(spec.Dir, log), nil, 0o600); err != nil {
			return nil, err
		}
	}
	p := h.spawn(spec)
	if err := h.pass(ctx, PointReady); err != nil {
		h.end(p, vmm.Exit{Reason: "start failed"})
		return nil, err
	}
	p.print(h.cfg.Console)
	return &machine{host: h, p: p}, nil
}

// savedMark is what a saved machine's state is.
const savedMark = "fake machine"

// remembers makes the memory of a machine that will be saved, and looks at that of one that was.
func remembers(spec vmm.Spec) error {
	if spec.Restore != nil {
		b, err := os.ReadFile(spec.Restore.State)
		if err == nil && string(b) != savedMark {
			err = errkind.New(api.KindDataLoss, "%s is no saved machine", spec.Restore.State)
		}
		return err
	}
	if spec.Memory == "" {
		return nil
	}
	return os.WriteFile(spec.Memory, nil, 0o600)
}

// Save implements vmm.Saver.
func (m *machine) Save(_ context.Context, state string) error {
	f, err := os.OpenFile(state, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		return errkind.New(api.KindExists, "%s exists", state)
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, savedMark)
	return errors.Join(err, f.Close())
}

// Adopt finds the machine of a handle.
func (d *Driver) Adopt(ctx context.Context, handle vmm.Handle) (vmm.Machine, error) {
	if handle.Driver != Name {
		return nil, errkind.New(api.KindInvalid, "handle is of driver %q", handle.Driver)
	}
	if err := d.host.pass(ctx, PointAdopt); err != nil {
		return nil, err
	}
	p := d.host.find(handle.PID, handle.StartTime)
	if p == nil {
		if err := ignoreMissing(os.Remove(filepath.Join(handle.RunDir, socket))); err != nil {
			return nil, err
		}
		return nil, errkind.New(api.KindNotFound, "machine process %d has ended", handle.PID)
	}
	return &machine{host: d.host, p: p}, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// process is a machine as the computer sees it; drivers share it.
type process struct {
	handle vmm.Handle
	spec   vmm.Spec
	ctx    context.Context // the machine's life, for Agent
	cancel context.CancelFunc
	once   sync.Once
	exited chan struct{}
	exit   vmm.Exit // valid once exited is closed

	mu      sync.Mutex // dials race
	agent   net.Conn   // the host's end
	halt    string
	resumed chan struct{} // closed when the machine is resumed; nil: it is not paused
	changed chan struct{} // closed, and replaced, when halt changes
}

// replaceAgent makes c the one connection to the control channel and ends the one before it.
func (p *process) replaceAgent(c net.Conn) {
	p.mu.Lock()
	old := p.agent
	p.agent = c
	p.mu.Unlock()
	if old != nil {
		old.Close()
	}
}

func (p *process) print(text string) {
	f, err := os.OpenFile(filepath.Join(p.spec.Dir, vmm.ConsoleLog), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return // the VM's directory is gone: nobody reads
	}
	defer f.Close()
	io.WriteString(f, text) // a console that cannot be logged stops no guest
}

// machine is a process as one driver sees it.
type machine struct {
	host *Host
	p    *process
}

func (m *machine) Handle() vmm.Handle { return m.p.handle }

func (m *machine) DialAgent(ctx context.Context) (net.Conn, error) {
	if err := m.host.pass(ctx, PointDial); err != nil {
		return nil, err
	}
	ours, theirs := net.Pipe()
	m.p.replaceAgent(ours)
	if m.p.ctx.Err() != nil {
		ours.Close()
		return nil, errkind.New(api.KindUnavailable, "machine of VM %q has ended", m.p.spec.Name)
	}
	agent := m.host.cfg.Agent
	if agent == nil {
		agent = func(_ context.Context, _ vmm.Spec, c net.Conn) {
			defer c.Close()
			io.Copy(io.Discard, c) // ends with the connection
		}
	}
	go agent(m.p.ctx, m.p.spec, paused{theirs, m.p})
	return ours, nil
}

func (m *machine) Exited() <-chan struct{} { return m.p.exited }

// paused is a connection whose guest hears nothing while its machine is paused.
type paused struct {
	net.Conn
	p *process
}

func (c paused) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.p.mu.Lock()
	resumed := c.p.resumed
	c.p.mu.Unlock()
	if resumed != nil {
		select {
		case <-resumed:
		case <-c.p.ctx.Done():
		}
	}
	return n, err
}

// Pause implements vmm.Pauser.
func (m *machine) Pause(ctx context.Context) error {
	m.p.mu.Lock()
	defer m.p.mu.Unlock()
	if m.p.resumed == nil {
		m.p.resumed = make(chan struct{})
	}
	return ctx.Err()
}

// Resume implements vmm.Pauser.
func (m *machine) Resume(ctx context.Context) error {
	m.p.mu.Lock()
	defer m.p.mu.Unlock()
	if m.p.resumed != nil {
		close(m.p.resumed)
		m.p.resumed = nil
	}
	return ctx.Err()
}

// Halted implements vmm.Halter.
func (m *machine) Halted() (string, <-chan struct{}) {
	m.p.mu.Lock()
	defer m.p.mu.Unlock()
	return m.p.halt, m.p.changed
}

// Signal implements vmm.Signaler: SIGKILL crashes the machine, every other signal ends it as QEMU ends.
func (m *machine) Signal(sig syscall.Signal) error {
	if sig == syscall.SIGKILL {
		m.host.Crash(m.p.handle.ID)
		return nil
	}
	m.host.endVM(m.p.handle.ID, vmm.Exit{Reason: "fake was told by a signal to end: " + sig.String()})
	return nil
}

func (m *machine) Exit() vmm.Exit {
	select {
	case <-m.p.exited:
		return m.p.exit
	default:
		return vmm.Exit{}
	}
}

// Kill sends the kill, which may be held at [PointKilled], and waits. A fault at that point is Kill's error, and no kill.
func (m *machine) Kill(ctx context.Context) error {
	select {
	case <-m.p.exited:
		return nil
	default:
	}
	failed := make(chan error, 1)
	go func() {
		if err := m.host.pass(m.p.ctx, PointKilled); err != nil && m.p.ctx.Err() == nil {
			failed <- err
			return
		}
		m.host.end(m.p, vmm.Exit{Reason: "killed"})
	}()
	select {
	case <-m.p.exited:
		return nil
	case err := <-failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
