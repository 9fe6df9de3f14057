// Package vmmproc is what VMMs have in common as processes, for drivers to share: a VMM is born in a session and, where the host
// lets us, a control group of its own, with fresh logs that stay bounded; it is waited for or proven dead, adopted by pid and start
// time, killed, and cleaned up after.
//
// A [Home] starts and adopts the processes of one driver. A [Process] is one of them, and has those methods of vmm.Machine that
// do not depend on the VMM; what does, its driver adds as an [Owner]. A [Line] is the one connection to a control channel.
//
// A control group keeps the machine out of its daemon's unit, is how a machine is ended as a whole, and limits it to what its size
// asks for, see [Limits]. It is named after the VM, so a crash at any moment leaves a group that is in use or empty;
// host.Cgroup.Sweep removes empty ones.
package vmmproc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
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

// KillTimeout bounds the wait for a killed process; it is long only when the kernel is stuck.
const KillTimeout = 10 * time.Second

// cgroupKey is where a handle has the path of the machine's control group.
const cgroupKey = "cgroup"

// GroupOf returns the control group of a handle's machine; empty: it has none.
func GroupOf(h vmm.Handle) host.Cgroup { return host.Cgroup(h.Extra[cgroupKey]) }

// Home starts and adopts the processes of one driver.
type Home struct {
	driver string
	group  host.Cgroup
	log    *slog.Logger
	logs   *keeper
}

// NewHome returns the home of a driver's processes. Each gets a control group of its own in group; an empty one is none.
func NewHome(driver string, group host.Cgroup, log *slog.Logger) *Home {
	return &Home{driver: driver, group: group, log: log, logs: newKeeper()}
}

// Owner is the driver's part of a process.
type Owner interface {
	// Verdict says how the process ended; it is asked once, when it is gone. killed: by our Kill; status: nil when another daemon
	// was its parent. At is filled in by the caller.
	Verdict(killed bool, status *os.ProcessState) vmm.Exit
	// CleanUp lets go of connections and removes what the process left in its directories, but logs.
	CleanUp() error
}

// Program is a VMM to be started.
type Program struct {
	Spec   vmm.Spec
	Argv   []string
	Env    []string // nil: the caller's
	Dir    string   // where it runs
	Engine string
	Extra  map[string]string // the driver's part of the handle
	// Console sends standard output to the console's log, for a VMM whose serial line that is; else it goes where errors go.
	Console bool
}

// Start starts p. What it prints goes to the logs in the spec's directory, which begin anew. On error nothing is left but these.
// The process must be followed.
func (h *Home) Start(p Program) (*Process, error) {
	log, err := freshLog(filepath.Join(p.Spec.Dir, vmm.VMMLog))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// A VMM would make the file with the process's mask; it is ours to keep private.
	console, err := freshLog(filepath.Join(p.Spec.Dir, vmm.ConsoleLog))
	if err != nil {
		return nil, err
	}
	defer console.Close()
	program := host.Detached{Argv: p.Argv, Env: p.Env, Dir: p.Dir, Stdout: log, Stderr: log}
	if p.Console {
		program.Stdout = console
	}
	group := h.Group(p.Spec.ID)
	child, err := h.startIn(group, program, p.Spec)
	if err != nil && group != "" {
		// A host may have groups and refuse to start in one; the machine works without.
		h.log.Warn("start a VMM in a control group", "driver", h.driver, "vm", p.Spec.Name, "err", err)
		group = ""
		child, err = h.startIn(group, program, p.Spec)
	}
	if err != nil {
		return nil, err
	}
	start, err := host.StartTime(child.Pid)
	if err != nil {
		start = 0 // it died at once: its driver says so
	}
	handle := h.Handle(p, child.Pid, start)
	if group == "" {
		delete(handle.Extra, cgroupKey)
	}
	return h.process(handle, child, -1), nil
}

func (h *Home) startIn(group host.Cgroup, program host.Detached, s vmm.Spec) (*os.Process, error) {
	if err := group.Make(); err != nil {
		return nil, err
	}
	if err := group.Limit(Limits(s)); err != nil { // a machine without them is better than none
		h.log.Warn("limit a VMM", "driver", h.driver, "vm", s.Name, "err", err)
	}
	program.Group = group
	proc, err := program.Start()
	if err != nil {
		err = errors.Join(err, group.Remove())
	}
	return proc, err
}

// Limits is what the machine of s may have of the host. It is more than the guest has: a VMM moves the guest's data in threads of
// its own, translates its code, and keeps what is written to disks in the page cache for a while.
func Limits(s vmm.Spec) host.Limits {
	const (
		ownCPUs   = 1
		ownMemory = 512 // MiB
		ownTasks  = 256 // QEMU has up to 64 threads for a disk's requests
	)
	return host.Limits{
		CPUs: s.VCPU + ownCPUs, Memory: int64(s.MemMiB+s.MemMiB/8+ownMemory) << 20, Tasks: s.VCPU + ownTasks,
	}
}

func freshLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
}

// Group returns the control group of a VM's machine.
func (h *Home) Group(id banger.VMID) host.Cgroup { return h.group.Child(string(id)) }

// Handle is the handle of the process pid, started at start, that runs p.
func (h *Home) Handle(p Program, pid int, start uint64) vmm.Handle {
	handle := vmm.Handle{
		Driver: h.driver, ID: p.Spec.ID, PID: pid, StartTime: start, Dir: p.Spec.Dir, RunDir: p.Spec.RunDir, Engine: p.Engine,
	}
	group := h.Group(p.Spec.ID)
	if group != "" || len(p.Extra) > 0 {
		handle.Extra = map[string]string{}
	}
	for k, v := range p.Extra {
		handle.Extra[k] = v
	}
	if group != "" {
		handle.Extra[cgroupKey] = string(group)
	}
	return handle
}

// Find returns pid and start time of the live process that match knows by its command line, of kind not-found when there is none.
func (h *Home) Find(match func(pid int, cmdline []byte) bool) (pid int, start uint64, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, 0, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || !match(pid, line) {
			continue
		}
		if start, err := host.StartTime(pid); err == nil {
			return pid, start, nil
		}
	}
	return 0, 0, errkind.New(api.KindNotFound, "no such %s process", h.driver)
}

// Adopt proves that the process of a handle lives. When it is provably gone, cleanUp removes what it left, and the error is of
// kind not-found. The process must be followed.
func (h *Home) Adopt(ctx context.Context, handle vmm.Handle, cleanUp func() error) (*Process, error) {
	if handle.Driver != h.driver {
		return nil, errkind.New(api.KindInvalid, "handle of driver %q is not %s's", handle.Driver, h.driver)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("adopt machine %d of vm %s: %w", handle.PID, handle.ID, err)
	}
	// The descriptor is opened first: if the start time then matches, it is of this very process.
	fd, err := unix.PidfdOpen(handle.PID, 0)
	if err == nil {
		var start uint64
		start, err = host.StartTime(handle.PID)
		if err == nil && start != handle.StartTime {
			err = unix.ESRCH
		}
		if err != nil {
			unix.Close(fd)
		}
	}
	if errors.Is(err, unix.ESRCH) || errkind.Is(err, api.KindNotFound) {
		gone := errkind.New(api.KindNotFound, "machine %d of vm %s has ended", handle.PID, handle.ID)
		return nil, errors.Join(gone, cleanUp(), GroupOf(handle).Remove())
	}
	if err != nil {
		return nil, fmt.Errorf("adopt machine %d of vm %s: %w", handle.PID, handle.ID, err)
	}
	return h.process(handle, nil, fd), nil
}

// Process is one VMM process.
type Process struct {
	home   *Home
	handle vmm.Handle
	child  *os.Process // nil: another daemon's, and pidfd is open
	pidfd  int
	exited chan struct{} // closed after exit was set and what the machine left was removed

	mu     sync.Mutex // guards what follows: the waiter writes it, callers read it
	exit   vmm.Exit
	killed bool // by us
}

func (h *Home) process(handle vmm.Handle, child *os.Process, pidfd int) *Process {
	p := &Process{home: h, handle: handle, child: child, pidfd: pidfd, exited: make(chan struct{})}
	h.logs.keep(p.logFiles()...)
	return p
}

func (p *Process) logFiles() []string {
	return []string{filepath.Join(p.handle.Dir, vmm.ConsoleLog), filepath.Join(p.handle.Dir, vmm.VMMLog)}
}

// Handle implements vmm.Machine.
func (p *Process) Handle() vmm.Handle { return p.handle }

// Exited implements vmm.Machine.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Exit implements vmm.Machine.
func (p *Process) Exit() vmm.Exit {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exit
}

// Kill implements vmm.Machine.
func (p *Process) Kill(ctx context.Context) error {
	p.mu.Lock()
	p.killed = true
	p.mu.Unlock()
	if err := p.Signal(unix.SIGKILL); err != nil {
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kill machine %d: %w", p.handle.PID, ctx.Err())
	}
}

// Signal implements vmm.Signaler.
func (p *Process) Signal(sig syscall.Signal) error {
	select {
	case <-p.exited:
		return nil
	default:
	}
	// It may have ended just now, and its pid may be another's.
	if start, err := host.StartTime(p.handle.PID); err != nil || start != p.handle.StartTime {
		return nil
	}
	if err := unix.Kill(p.handle.PID, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %s to machine %d: %w", unix.SignalName(sig), p.handle.PID, err)
	}
	return nil
}

// Follow waits for the end of the process, for owner, and then cleans up. It returns at once, and is called once.
func (p *Process) Follow(owner Owner) {
	go func() {
		var status *os.ProcessState
		if p.child != nil {
			var err error
			if status, err = p.child.Wait(); err != nil {
				p.home.log.Error("wait for a VMM", "driver", p.home.driver, "id", p.handle.ID, "err", err)
			}
		} else {
			waitOther(p.pidfd)
		}
		p.ended(owner, status)
	}()
}

// waitOther waits for a process that an earlier daemon started.
func waitOther(fd int) {
	defer unix.Close(fd)
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

func (p *Process) ended(owner Owner, status *os.ProcessState) {
	p.mu.Lock()
	killed := p.killed
	p.mu.Unlock()
	exit := owner.Verdict(killed, status)
	exit.At = time.Now()
	p.mu.Lock()
	p.exit = exit
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), KillTimeout)
	defer cancel()
	if err := errors.Join(owner.CleanUp(), GroupOf(p.handle).End(ctx)); err != nil {
		p.home.log.Error("clean up after a VMM", "driver", p.home.driver, "id", p.handle.ID, "err", err)
	}
	p.home.logs.drop(p.logFiles()...)
	close(p.exited)
}

// RemoveFiles removes files; those that are not there are fine.
func RemoveFiles(paths ...string) error {
	var errs []error
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
