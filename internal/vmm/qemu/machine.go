package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/qemu/qmp"
	"golang.org/x/sys/unix"
)

// machine is one QEMU process.
type machine struct {
	driver *Driver
	handle vmm.Handle
	exited chan struct{} // closed after exit was set and what the machine left was removed

	mu      sync.Mutex // guards what follows: the waiter and the listener write it, callers read it
	exit    vmm.Exit
	kill    bool          // we killed it
	agent   net.Conn      // the present control connection
	over    bool          // the process is gone: nobody listens any more
	monitor net.Conn      // the QMP connection
	heard   chan struct{} // closed when monitor has ended; nil: nobody listened
	told    qmp.Reason    // why QEMU ends, by its own word
	halt    halt
}

func newMachine(d *Driver, h vmm.Handle) *machine {
	m := &machine{driver: d, handle: h, exited: make(chan struct{}), halt: halt{changed: make(chan struct{})}}
	d.logs.keep(m.logFiles()...)
	return m
}

func (m *machine) logFiles() []string {
	return []string{filepath.Join(m.handle.Dir, vmm.ConsoleLog), filepath.Join(m.handle.Dir, vmm.VMMLog)}
}

func (m *machine) Handle() vmm.Handle      { return m.handle }
func (m *machine) Exited() <-chan struct{} { return m.exited }

func (m *machine) Exit() vmm.Exit {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.exit
}

// DialAgent implements vmm.Machine. QEMU serves one connection at a time, so the one before is closed first.
func (m *machine) DialAgent(ctx context.Context) (net.Conn, error) {
	m.replaceAgent(nil)
	conn, err := dialPatiently(ctx, agentSocket(m.handle.RunDir))
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("connect to the guest's control channel: %w", ctx.Err())
	case err != nil:
		return nil, errkind.New(api.KindUnavailable, "connect to the guest's control channel: %w", err)
	}
	m.replaceAgent(conn)
	return conn, nil
}

// dialPatiently connects to a socket of QEMU's. One connection may wait for QEMU to see the end of the one before; for others
// connect(2) says EAGAIN.
func dialPatiently(ctx context.Context, path string) (net.Conn, error) {
	var dialer net.Dialer
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		conn, err := dialer.DialContext(ctx, "unix", path)
		if !errors.Is(err, unix.EAGAIN) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause):
		}
	}
}

// replaceAgent makes conn the one connection to the control channel and closes the one before it.
func (m *machine) replaceAgent(conn net.Conn) {
	m.mu.Lock()
	old := m.agent
	m.agent = conn
	m.mu.Unlock()
	if old != nil {
		old.Close()
	}
}

// Kill implements vmm.Machine.
func (m *machine) Kill(ctx context.Context) error {
	m.mu.Lock()
	m.kill = true
	m.mu.Unlock()
	select {
	case <-m.exited:
		return nil
	default:
	}
	if err := m.Signal(unix.SIGKILL); err != nil {
		return err
	}
	select {
	case <-m.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kill machine %d: %w", m.handle.PID, ctx.Err())
	}
}

// Signal implements vmm.Signaler.
func (m *machine) Signal(sig syscall.Signal) error {
	// It may have ended just now, and its pid may be another's.
	if start, err := host.StartTime(m.handle.PID); err == nil && start == m.handle.StartTime {
		if err := unix.Kill(m.handle.PID, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("send %s to machine %d: %w", unix.SignalName(sig), m.handle.PID, err)
		}
	}
	return nil
}

// listen takes over a connection to QMP and notes what QEMU says of its end.
func (m *machine) listen(conn net.Conn) {
	heard := make(chan struct{})
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over {
		conn.Close()
		return
	}
	m.monitor, m.heard = conn, heard
	go func() {
		defer close(heard)
		defer conn.Close()
		err := qmp.Listen(conn, qmp.Listener{Event: func(e qmp.Event) { m.hear(conn, e) }, Status: func(status string) {
			if status == qmp.StatusIOError {
				m.halted(conn)
			}
		}})
		if err != nil {
			m.driver.cfg.Log.Debug("qmp", "id", m.handle.ID, "err", err)
		}
	}()
}

// hear takes an event that came over conn.
func (m *machine) hear(conn net.Conn, e qmp.Event) {
	switch reason := e.Shutdown(); {
	case reason != "":
		m.mu.Lock()
		defer m.mu.Unlock()
		m.told = reason
	case e.NoSpace():
		m.halted(conn)
	case e.Name == qmp.Resumed:
		m.resumed()
	}
}

// lastWords is how long the end of a QMP connection may take after the end of its process, which closes it.
const lastWords = time.Second

// hearOut waits for the end of the QMP connection of a process that is gone, and returns what QEMU said.
func (m *machine) hearOut() qmp.Reason {
	m.mu.Lock()
	m.over = true
	conn, heard := m.monitor, m.heard
	m.mu.Unlock()
	if heard != nil {
		_ = conn.SetReadDeadline(time.Now().Add(lastWords)) // fails on one that has ended
		<-heard
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.told
}

// waitChild waits for a process that this daemon started.
func (m *machine) waitChild(p *os.Process) {
	st, err := p.Wait()
	if err != nil {
		m.driver.cfg.Log.Error("wait for qemu", "id", m.handle.ID, "err", err)
	}
	m.ended(st)
}

// waitOther waits for a process that an earlier daemon started.
func (m *machine) waitOther(fd int) {
	defer unix.Close(fd)
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	m.ended(nil)
}

// ended records the end of the process and removes what it left. status is nil when we are not its parent.
func (m *machine) ended(status *os.ProcessState) {
	told := m.hearOut()
	m.mu.Lock()
	killed := m.kill
	m.mu.Unlock()
	exit := gather(m.handle, told, killed, status).verdict()
	exit.At = time.Now()
	m.mu.Lock()
	m.exit = exit
	m.mu.Unlock()
	m.replaceAgent(nil)
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	if err := errors.Join(removeRunFiles(m.handle.RunDir), host.Cgroup(m.handle.Extra[cgroupKey]).End(ctx)); err != nil {
		m.driver.cfg.Log.Error("clean up after qemu", "id", m.handle.ID, "err", err)
	}
	m.driver.logs.drop(m.logFiles()...)
	close(m.exited)
}

func removeRunFiles(runDir string) error {
	var errs []error
	for _, path := range []string{agentSocket(runDir), qmpSocket(runDir), pidFile(runDir)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
