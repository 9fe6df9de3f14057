package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/vmmproc"
	"golang.org/x/sys/unix"
)

// serveWithin is hundreds of times what QEMU takes to open its sockets.
const serveWithin = 30 * time.Second

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
	if err := makeMemory(s.Memory); err != nil {
		return nil, err
	}
	p, err := d.home.Start(d.program(s))
	if err != nil {
		return nil, err
	}
	m := newMachine(d, p)
	conn, err := m.serving(ctx)
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), vmmproc.KillTimeout)
		defer cancel()
		return nil, errors.Join(err, m.Kill(undo))
	}
	m.listen(conn)
	if s.Restore != nil {
		if err := m.restore(ctx, *s.Restore); err != nil {
			undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), vmmproc.KillTimeout)
			defer cancel()
			return nil, errors.Join(err, m.Kill(undo))
		}
	}
	return m, nil
}

// makeMemory makes the file for a guest's memory, if there is to be one: QEMU would let others read it.
func makeMemory(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start qemu: make the memory's file: %w", err)
	}
	return f.Close()
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

func (d *Driver) program(s vmm.Spec) vmmproc.Program {
	return vmmproc.Program{Spec: s, Argv: d.argv(s), Dir: s.Dir, Engine: d.Features().Engine}
}

// serving waits until QEMU accepts connections on its sockets and returns the one to QMP.
func (m *machine) serving(ctx context.Context) (net.Conn, error) {
	late := time.After(m.driver.serveWithin)
	for pause := time.Millisecond; ; pause = min(2*pause, 4*time.Millisecond) {
		if conn, err := net.Dial("unix", qmpSocket(m.runDir())); err == nil {
			return conn, nil
		}
		select {
		case <-m.Exited():
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
	p, err := d.home.Adopt(ctx, h, func() error { return removeRunFiles(h.RunDir) })
	if err != nil {
		return nil, err
	}
	m := newMachine(d, p)
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
	mark := []byte("path=" + comma(agentSocket(runDir)))
	pid, start, err := d.home.Find(func(_ int, cmdline []byte) bool {
		return bytes.Contains(cmdline, mark) && bytes.Contains(cmdline, []byte("qemu"))
	})
	if err != nil {
		return vmm.Handle{}, fmt.Errorf("find the machine of vm %s: %w", id, err)
	}
	return d.home.Handle(d.program(vmm.Spec{ID: id, Dir: dir, RunDir: runDir}), pid, start), nil
}
