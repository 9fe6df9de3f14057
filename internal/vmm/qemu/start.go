package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vmm"
	"golang.org/x/sys/unix"
)

// serveWithin is hundreds of times what QEMU takes to open its sockets.
const serveWithin = 30 * time.Second

// killTimeout bounds the wait for a killed process; it is long only when the kernel is stuck.
const killTimeout = 10 * time.Second

// Start implements vmm.Driver. It returns once QEMU serves its sockets, which is before the guest runs far.
func (d *Driver) Start(ctx context.Context, s vmm.Spec) (vmm.Machine, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start qemu: %w", err)
	}
	if err := preflight.Refuse(d.Check(ctx, s)); err != nil {
		return nil, err
	}
	if err := vacate(s.RunDir); err != nil {
		return nil, err
	}
	m, err := d.spawn(s)
	if err != nil {
		return nil, err
	}
	conn, err := m.serving(ctx)
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
		defer cancel()
		return nil, errors.Join(err, m.Kill(undo))
	}
	m.listen(conn)
	return m, nil
}

// vacate removes what a machine that is gone left in runDir. One that lives is of kind busy.
func vacate(runDir string) error {
	conn, err := net.Dial("unix", qmpSocket(runDir))
	if err == nil {
		conn.Close()
	}
	if err == nil || errors.Is(err, unix.EAGAIN) { // with EAGAIN others wait before us
		return errkind.WithHint(errkind.New(api.KindBusy, "a machine runs in %s already", runDir), "stop the VM first")
	}
	return removeRunFiles(runDir)
}

// spawn starts the process. On error nothing is left.
func (d *Driver) spawn(s vmm.Spec) (*machine, error) {
	log, err := freshLog(filepath.Join(s.Dir, vmm.VMMLog))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// QEMU would make the file with the process's mask; it is ours to keep private.
	console, err := freshLog(filepath.Join(s.Dir, vmm.ConsoleLog))
	if err != nil {
		return nil, err
	}
	console.Close()
	group := d.group(s.ID)
	proc, err := startIn(group, host.Detached{Argv: d.argv(s), Dir: s.Dir, Stdout: log, Stderr: log})
	if err != nil && group != "" {
		// A host may have groups and refuse to start in one; the machine works without.
		d.cfg.Log.Warn("start qemu in a control group", "vm", s.Name, "err", err)
		group = ""
		proc, err = startIn(group, host.Detached{Argv: d.argv(s), Dir: s.Dir, Stdout: log, Stderr: log})
	}
	if err != nil {
		return nil, err
	}
	start, err := host.StartTime(proc.Pid)
	if err != nil {
		start = 0 // it died at once: serving says so
	}
	m := newMachine(d, d.handle(s.ID, proc.Pid, start, s.Dir, s.RunDir, group))
	go m.waitChild(proc)
	return m, nil
}

func startIn(group host.Cgroup, program host.Detached) (*os.Process, error) {
	if err := group.Make(); err != nil {
		return nil, err
	}
	program.Group = group
	proc, err := program.Start()
	if err != nil {
		err = errors.Join(err, group.Remove())
	}
	return proc, err
}

func freshLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
}

// cgroupKey is where a handle has the path of the machine's control group.
const cgroupKey = "cgroup"

func (d *Driver) handle(id banger.VMID, pid int, start uint64, dir, runDir string, group host.Cgroup) vmm.Handle {
	h := vmm.Handle{Driver: Name, ID: id, PID: pid, StartTime: start, Dir: dir, RunDir: runDir, Engine: d.Features().Engine}
	if group != "" {
		h.Extra = map[string]string{cgroupKey: string(group)}
	}
	return h
}

// serving waits until QEMU accepts connections on its sockets and returns the one to QMP.
func (m *machine) serving(ctx context.Context) (net.Conn, error) {
	late := time.After(m.driver.serveWithin)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		if conn, err := net.Dial("unix", qmpSocket(m.handle.RunDir)); err == nil {
			return conn, nil
		}
		select {
		case <-m.exited:
			return nil, errkind.WithHint(errkind.New(api.KindUnavailable, "qemu did not start: %s", m.Exit().Reason),
				"the words after the colon are QEMU's own; `banger doctor` checks the host")
		case <-ctx.Done():
			return nil, fmt.Errorf("start qemu: it does not serve its sockets: %w", ctx.Err())
		case <-late:
			err := errkind.New(api.KindTimeout, "start qemu: it does not serve its sockets within %v", m.driver.serveWithin)
			return nil, errkind.WithHint(err, "see whether the host is overloaded, and what QEMU says: `banger vm logs --source vmm NAME`")
		case <-time.After(pause):
		}
	}
}

// Adopt implements vmm.Driver.
func (d *Driver) Adopt(ctx context.Context, h vmm.Handle) (vmm.Machine, error) {
	if h.Driver != Name {
		return nil, errkind.New(api.KindInvalid, "handle of driver %q is not qemu's", h.Driver)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("adopt machine %d of vm %s: %w", h.PID, h.ID, err)
	}
	// The descriptor is opened first: if the start time then matches, it is of this very process.
	fd, err := unix.PidfdOpen(h.PID, 0)
	if err == nil {
		var start uint64
		start, err = host.StartTime(h.PID)
		if err == nil && start != h.StartTime {
			err = unix.ESRCH
		}
		if err != nil {
			unix.Close(fd)
		}
	}
	if errors.Is(err, unix.ESRCH) || errkind.Is(err, api.KindNotFound) {
		gone := errkind.New(api.KindNotFound, "machine %d of vm %s has ended", h.PID, h.ID)
		return nil, errors.Join(gone, removeRunFiles(h.RunDir), host.Cgroup(h.Extra[cgroupKey]).Remove())
	}
	if err != nil {
		return nil, fmt.Errorf("adopt machine %d of vm %s: %w", h.PID, h.ID, err)
	}
	m := newMachine(d, h)
	go m.waitOther(fd)
	conn, err := net.Dial("unix", qmpSocket(h.RunDir))
	if err != nil {
		d.cfg.Log.Warn("connect to qmp", "id", h.ID, "err", err) // the machine does not need it
	} else {
		m.listen(conn)
	}
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
		if err != nil || !bytes.Contains(line, mark) || !bytes.Contains(line, []byte("qemu")) {
			continue
		}
		if start, err := host.StartTime(pid); err == nil {
			return d.handle(id, pid, start, dir, runDir, d.group(id)), nil
		}
	}
	return vmm.Handle{}, errkind.New(api.KindNotFound, "no qemu process of vm %s", id)
}
