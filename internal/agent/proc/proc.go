// Package proc starts and reaps the guest's processes. It is the only package of the agent that forks.
//
// # Words
//
// A process here is a child that the agent started, leader of a session and process group of its own; the group is what
// signals go to. An orphan is any other process that became a child of PID 1 because its parent ended.
//
// # Reaping
//
// As PID 1 the agent must collect every orphan, which only wait4(-1) can do, and wait4(-1) also collects the children that
// somebody waits for. So there is exactly one caller of it, [Supervisor.Run], woken by SIGCHLD and never by a clock, and
// it hands each status to the process it belongs to. Fork and registration happen under one lock, which the reaper takes
// for each status: a child that ends before its parent has noted its number cannot be taken for an orphan.
//
// Where the agent is not PID 1 (beside systemd, in tests) orphans are not its business: each child is waited for by number
// and wait4(-1) is never called, so that others in the same program may have children too.
//
// Supervisor.mu is a leaf lock. It is held across fork and exec, about 30 ms in an emulated guest; forks are serial in
// the Go runtime in any case.
package proc

import (
	"context"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/internal/errkind"
)

// Supervisor starts processes and collects their statuses. There is one in the agent.
type Supervisor struct {
	reaper  bool // this program is PID 1
	devNull func() (*os.File, error)

	mu    sync.Mutex       // held from fork to registration, and for each status taken: see the package comment
	procs map[int]*Process // running, by pid
}

// New returns a Supervisor. In PID 1 nothing is reaped, and so no [Process.Wait] returns, before [Supervisor.Run] runs.
func New() *Supervisor { return newSupervisor(os.Getpid() == 1) }

func newSupervisor(reaper bool) *Supervisor {
	return &Supervisor{
		reaper: reaper,
		devNull: sync.OnceValues(func() (*os.File, error) {
			return os.OpenFile(os.DevNull, os.O_RDWR, 0)
		}),
		procs: make(map[int]*Process),
	}
}

// Run reaps until ctx ends and returns nil then. Where the agent is not PID 1 it only waits for ctx.
func (s *Supervisor) Run(ctx context.Context) error {
	if !s.reaper {
		<-ctx.Done()
		return nil
	}
	ch := make(chan os.Signal, 1) // one is enough: a wake-up collects everything there is
	signal.Notify(ch, syscall.SIGCHLD)
	defer signal.Stop(ch)
	for {
		for s.reapOne() {
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return nil
		}
	}
}

// reapOne collects one child that has ended, and reports whether there was one.
func (s *Supervisor) reapOne() bool {
	s.mu.Lock()
	var ws unix.WaitStatus
	pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
	p := s.procs[pid]
	s.endLocked(p, ws)
	s.mu.Unlock()
	return pid > 0 || err == unix.EINTR
}

// wait collects one child of an agent that is not PID 1. The status stays with the kernel until the lock is held, so
// that its number cannot be given to another process while a signal is on its way.
func (s *Supervisor) wait(p *Process) {
	for unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	s.mu.Lock()
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(p.pid, &ws, 0, nil); err != unix.EINTR {
			break
		}
	}
	s.endLocked(p, ws)
	s.mu.Unlock()
}

// endLocked notes the status of p, which is nil for an orphan. The caller holds s.mu.
func (s *Supervisor) endLocked(p *Process, ws unix.WaitStatus) {
	if p == nil {
		return
	}
	delete(s.procs, p.pid)
	p.status = statusOf(ws)
	close(p.ended)
	p.stdio.ended()
}

func statusOf(ws unix.WaitStatus) frame.ExitStatus {
	if ws.Signaled() {
		return frame.ExitStatus{Code: 128 + int(ws.Signal()), Signal: SignalName(ws.Signal())}
	}
	return frame.ExitStatus{Code: ws.ExitStatus()}
}

// SignalName returns the name of sig without SIG, and its number where it has no name, as for real-time signals.
func SignalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return strings.TrimPrefix(name, "SIG")
	}
	return strconv.Itoa(int(sig))
}

// ParseSignal is the reverse of [SignalName]: a name with or without SIG, in any case, or a number from 1 to 64.
func ParseSignal(name string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(name); err == nil && n >= 1 && n <= 64 {
		return syscall.Signal(n), nil
	}
	if sig := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG")); sig != 0 {
		return sig, nil
	}
	return 0, errkind.WithHint(errkind.New(api.KindInvalid, "no signal %q", name), "use a name such as TERM, or a number")
}
