package firecracker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/firecracker/fcproc"
	"github.com/banger-vm/banger/internal/vmm/vmmproc"
	"golang.org/x/sys/unix"
)

// machine is one Firecracker process.
type machine struct {
	*vmmproc.Process
	driver *Driver
	agent  vmmproc.Line
	halted atomic.Bool // the guest's kernel said that it has halted
}

func newMachine(d *Driver, p *vmmproc.Process) *machine {
	m := &machine{Process: p, driver: d}
	p.Follow(m)
	go m.watch()
	return m
}

// How long Firecracker may take to answer who asks for the agent, at first and later.
const (
	firstAnswer = 100 * time.Millisecond
	lateAnswer  = 5 * time.Second
)

// DialAgent implements vmm.Machine. While nobody in the guest listens, Firecracker closes the connection, and while the guest has no
// driver for its vsock it says nothing. So it is asked again, each time more patiently, until ctx or the machine ends.
func (m *machine) DialAgent(ctx context.Context) (net.Conn, error) {
	m.agent.Replace(nil)
	answer := firstAnswer
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		conn, err := vmmproc.Dial(ctx, fcproc.AgentSocket(m.Handle().RunDir))
		if err != nil && ctx.Err() == nil {
			return nil, errkind.New(api.KindUnavailable, "connect to the guest's control channel: %w", err)
		}
		if err == nil {
			err = ask(ctx, conn, answer)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			answer = min(2*answer, lateAnswer)
		}
		if err == nil {
			m.agent.Replace(conn)
			return conn, nil
		}
		select {
		case <-m.Exited():
			return nil, errkind.New(api.KindUnavailable, "connect to the guest's control channel: the machine has ended: %w", err)
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to the guest's control channel: %w", ctx.Err())
		case <-time.After(pause):
		}
	}
}

// ask asks for the agent's port (docs/vsock.md of Firecracker, "Host-Initiated Connections"). On error conn is closed.
func ask(ctx context.Context, conn net.Conn, within time.Duration) error {
	unblock := context.AfterFunc(ctx, func() { conn.Close() })
	line := make([]byte, 0, len("OK 4294967295\n"))
	conn.SetReadDeadline(time.Now().Add(within)) //nolint:errcheck // a socket takes it
	defer conn.SetReadDeadline(time.Time{})      //nolint:errcheck // likewise
	_, err := fmt.Fprintf(conn, "CONNECT %d\n", guestapi.VsockPort)
	if err == nil {
		line, err = readLine(conn, line)
	}
	if !unblock() {
		return ctx.Err()
	}
	if err == nil && !strings.HasPrefix(string(line), "OK ") {
		err = fmt.Errorf("unexpected answer %q", line)
	}
	if err != nil {
		conn.Close()
	}
	return err
}

// readLine reads to the end of a line of at most cap(line) bytes, and nothing after it, which is the guest's.
func readLine(conn net.Conn, line []byte) ([]byte, error) {
	for len(line) < cap(line) {
		line = line[:len(line)+1]
		if _, err := conn.Read(line[len(line)-1:]); err != nil {
			return nil, err
		}
		if line[len(line)-1] == '\n' {
			return line, nil
		}
	}
	return nil, bufio.ErrTooLong
}

// Verdict implements vmmproc.Owner.
func (m *machine) Verdict(killed bool, status *os.ProcessState) vmm.Exit {
	h := m.Handle()
	return evidence{
		halted: m.halted.Load(), killed: killed, status: status,
		console: vmmproc.Tail(filepath.Join(h.Dir, vmm.ConsoleLog), 16<<10), log: vmmproc.Tail(filepath.Join(h.Dir, vmm.VMMLog), 1<<10),
	}.verdict()
}

// CleanUp implements vmmproc.Owner.
func (m *machine) CleanUp() error {
	m.agent.Replace(nil)
	h := m.Handle()
	return fcproc.CleanUp(h.Dir, h.RunDir)
}

// lookEvery bounds how often the console is read: every byte that the guest prints changes it.
const lookEvery = 100 * time.Millisecond

// watch ends a machine whose guest has halted: its processors sleep, and Firecracker does not notice (it would wait for ever).
func (m *machine) watch() {
	console := filepath.Join(m.Handle().Dir, vmm.ConsoleLog)
	err := onChange(console, m.Exited(), func() bool {
		if !vmmproc.HaltIn(vmmproc.Tail(console, 4<<10)) {
			return true
		}
		m.halted.Store(true)
		if err := m.Signal(unix.SIGKILL); err != nil {
			m.driver.log.Error("end a guest that has halted", "id", m.Handle().ID, "err", err)
		}
		return false
	})
	if err != nil {
		m.driver.log.Error("watch the console for a guest that halts", "id", m.Handle().ID, "err", err)
	}
}

// onChange calls look now and after each change of the file at path, at most every [lookEvery], until look returns false or done is
// closed (inotify(7)).
func onChange(path string, done <-chan struct{}, look func() bool) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return err
	}
	events := os.NewFile(uintptr(fd), "inotify")
	defer events.Close()
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY); err != nil {
		return &os.PathError{Op: "watch", Path: path, Err: err}
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-done:
			events.Close() // ends the read
		case <-ended:
		}
	}()
	for buf := make([]byte, 4096); look(); {
		if _, err := events.Read(buf); err != nil {
			if errors.Is(err, os.ErrClosed) {
				return nil
			}
			return err
		}
		select {
		case <-done:
			return nil
		case <-time.After(lookEvery):
		}
	}
	return nil
}
