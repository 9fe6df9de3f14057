package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/vmm"
	"golang.org/x/sys/unix"
)

// Start implements vmm.Driver. It returns once QEMU serves the control channel's socket, which is before the guest runs far.
func (d *Driver) Start(ctx context.Context, s vmm.Spec) (vmm.Machine, error) {
	if err := vmm.Refusal(d.Check(ctx, s)); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(s.Dir, vmm.VMMLog), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// QEMU would make the file with the process's mask; it is ours to keep private.
	con, err := os.OpenFile(filepath.Join(s.Dir, vmm.ConsoleLog), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	con.Close()
	proc, err := host.Detached{Argv: d.argv(s), Dir: s.Dir, Stdout: log, Stderr: log}.Start()
	if err != nil {
		return nil, err
	}
	start, err := host.StartTime(proc.Pid)
	if err != nil {
		start = 0 // it died at once: serving says so
	}
	h := vmm.Handle{
		Driver: Name, ID: s.ID, PID: proc.Pid, StartTime: start, Dir: s.Dir, RunDir: s.RunDir, Engine: d.Features().Engine,
	}
	m := newMachine(h)
	go m.waitChild(proc)
	if err := m.serving(ctx); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
		defer cancel()
		return nil, errors.Join(err, m.Kill(undo))
	}
	return m, nil
}

// killTimeout bounds the wait for a killed process; it is long only when the kernel is stuck.
const killTimeout = 10 * time.Second

// Adopt implements vmm.Driver.
func (d *Driver) Adopt(_ context.Context, h vmm.Handle) (vmm.Machine, error) {
	// The descriptor is opened first: if the start time then matches, it is of this very process.
	fd, err := unix.PidfdOpen(h.PID, 0)
	if err == nil {
		var start uint64
		start, err = host.StartTime(h.PID)
		if err == nil && start != h.StartTime {
			err = notRunning(h)
		}
		if err != nil {
			unix.Close(fd)
		}
	}
	if errors.Is(err, unix.ESRCH) || errkind.Is(err, api.KindNotFound) {
		return nil, errors.Join(notRunning(h), removeRunFiles(h.RunDir))
	}
	if err != nil {
		return nil, fmt.Errorf("adopt machine %d of vm %s: %w", h.PID, h.ID, err)
	}
	m := newMachine(h)
	go m.waitOther(fd)
	return m, nil
}

// Find implements vmm.Finder: it looks for a process whose command line names the run directory's socket.
func (d *Driver) Find(_ context.Context, id banger.VMID, dir, runDir string) (vmm.Handle, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return vmm.Handle{}, err
	}
	mark := []byte("path=" + comma(agentSocket(runDir)))
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || !bytes.Contains(line, mark) || !strings.Contains(string(line), "qemu") {
			continue
		}
		if start, err := host.StartTime(pid); err == nil {
			return vmm.Handle{Driver: Name, ID: id, PID: pid, StartTime: start, Dir: dir, RunDir: runDir, Engine: d.Features().Engine}, nil
		}
	}
	return vmm.Handle{}, errkind.New(api.KindNotFound, "no qemu process of vm %s", id)
}

// machine is one QEMU process.
type machine struct {
	handle vmm.Handle
	exited chan struct{} // closed after exit was set and the run files were removed

	mu   sync.Mutex // guards what follows: the waiter writes it, callers read it
	exit vmm.Exit
	kill bool     // we killed it
	conn net.Conn // the present control connection
}

func newMachine(h vmm.Handle) *machine {
	m := &machine{handle: h, exited: make(chan struct{})}
	go m.rotate()
	return m
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
	m.mu.Lock()
	old := m.conn
	m.conn = nil
	m.mu.Unlock()
	if old != nil {
		old.Close()
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", agentSocket(m.handle.RunDir))
	if err != nil {
		return nil, errkind.New(api.KindUnavailable, "connect to the guest's control channel: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conn = conn
	return conn, nil
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
	// The process cannot have been reaped before exited is closed when it is our child; otherwise its identity is checked.
	if start, err := host.StartTime(m.handle.PID); err == nil && start == m.handle.StartTime {
		if err := unix.Kill(m.handle.PID, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill machine %d: %w", m.handle.PID, err)
		}
	}
	select {
	case <-m.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kill machine %d: %w", m.handle.PID, ctx.Err())
	}
}

// serving waits until QEMU accepts connections, or has ended.
func (m *machine) serving(ctx context.Context) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		if _, err := os.Stat(agentSocket(m.handle.RunDir)); err == nil {
			return nil
		}
		select {
		case <-m.exited:
			return errkind.New(api.KindInternal, "%s", m.Exit().Reason)
		case <-ctx.Done():
			return fmt.Errorf("start qemu: %w", ctx.Err())
		case <-time.After(pause):
		}
	}
}

// waitChild waits for a process that this daemon started.
func (m *machine) waitChild(p *os.Process) {
	st, err := p.Wait()
	switch {
	case err != nil:
		m.ended(vmm.Exit{Reason: fmt.Sprintf("wait for qemu: %v", err)})
	case st.Success():
		m.ended(m.cleanExit())
	default:
		m.ended(vmm.Exit{Reason: m.crashReason(st)})
	}
}

func (m *machine) crashReason(st *os.ProcessState) string {
	reason := "qemu ended: " + st.String()
	if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		reason = "qemu was ended by signal " + ws.Signal().String()
	}
	if tail := tailOf(filepath.Join(m.handle.Dir, vmm.VMMLog), 1<<10); tail != "" {
		reason += ": " + tail
	}
	return reason
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
	if _, err := os.Stat(pidFile(m.handle.RunDir)); err == nil {
		m.ended(vmm.Exit{Reason: "qemu crashed or was killed"})
		return
	}
	m.ended(m.cleanExit())
}

// cleanExit tells a guest that powered off from one whose kernel panicked: both end QEMU in good order.
func (m *machine) cleanExit() vmm.Exit {
	const panicMark = "Kernel panic - not syncing"
	tail := tailOf(filepath.Join(m.handle.Dir, vmm.ConsoleLog), 16<<10)
	if i := strings.LastIndex(tail, panicMark); i >= 0 {
		line, _, _ := strings.Cut(tail[i:], "\n")
		return vmm.Exit{Reason: "the guest's kernel panicked: " + strings.TrimSpace(line)}
	}
	return vmm.Exit{Reason: "the guest powered off", Clean: true}
}

func (m *machine) ended(e vmm.Exit) {
	e.At = time.Now()
	m.mu.Lock()
	if m.kill && !e.Clean {
		e.Reason = "killed"
	}
	m.exit = e
	conn := m.conn
	m.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
	removeRunFiles(m.handle.RunDir) //nolint:errcheck // the run directory's owner reports what it cannot remove
	close(m.exited)
}

func removeRunFiles(runDir string) error {
	var errs []error
	for _, path := range []string{agentSocket(runDir), pidFile(runDir)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

const (
	maxConsole  = 8 << 20 // bytes at which the console log is put aside
	rotateEvery = 5 * time.Second
)

// rotate keeps the console log bounded: QEMU appends to it for as long as the guest prints. The full log is copied over the
// one put aside before, and emptied; QEMU, which opened it for appending, goes on at its beginning. Without a daemon nothing
// rotates.
func (m *machine) rotate() {
	tick := time.NewTicker(rotateEvery)
	defer tick.Stop()
	path := filepath.Join(m.handle.Dir, vmm.ConsoleLog)
	for {
		select {
		case <-m.exited:
			return
		case <-tick.C:
		}
		if st, err := os.Stat(path); err == nil && st.Size() > maxConsole {
			putAside(path) //nolint:errcheck // the next tick tries again
		}
	}
}

func putAside(path string) error {
	src, err := os.Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(path+vmm.RotatedSuffix, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if st, err := src.Stat(); err == nil && st.Size() > maxConsole {
		src.Seek(-maxConsole, io.SeekEnd) //nolint:errcheck // more than wanted is no harm
	}
	_, err = io.Copy(dst, io.LimitReader(src, maxConsole))
	return errors.Join(err, dst.Close(), os.Truncate(path, 0))
}

func tailOf(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > n {
		f.Seek(-n, io.SeekEnd) //nolint:errcheck // a longer tail is no harm
	}
	b, err := io.ReadAll(io.LimitReader(f, n))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
