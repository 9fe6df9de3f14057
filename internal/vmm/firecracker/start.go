package firecracker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/firecracker/fcproc"
	"github.com/banger-vm/banger/internal/vmm/vmmproc"
	"golang.org/x/sys/unix"
)

// serveWithin is hundreds of times what Firecracker takes to open its socket.
const serveWithin = 30 * time.Second

// guestCID is the address of every guest: each has a vsock of its own, so they need not differ.
const guestCID = 3

// Start implements vmm.Driver. It returns once Firecracker has started the guest, which is before that runs far.
func (d *Driver) Start(ctx context.Context, s vmm.Spec) (vmm.Machine, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start firecracker: %w", err)
	}
	if err := preflight.Refuse(d.Check(ctx, s)); err != nil {
		return nil, err
	}
	if err := vacate(s); err != nil {
		return nil, err
	}
	cell := fcproc.NewCell(d.tools, s)
	if err := cell.Open(); err != nil {
		return nil, err
	}
	p, err := d.home.Start(d.program(cell, s))
	if err != nil {
		return nil, errors.Join(err, fcproc.CleanUp(s.Dir, s.RunDir))
	}
	m := newMachine(d, p)
	if err := m.boot(ctx, cell, s); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), vmmproc.KillTimeout)
		defer cancel()
		return nil, errors.Join(err, m.Kill(undo))
	}
	return m, nil
}

func (d *Driver) program(cell fcproc.Cell, s vmm.Spec) vmmproc.Program {
	return vmmproc.Program{Spec: s, Argv: cell.Argv(), Dir: cell.Dir(), Engine: d.Features().Engine, Console: true}
}

// vacate removes what a machine that is gone left. One that lives is of kind busy.
func vacate(s vmm.Spec) error {
	conn, err := net.Dial("unix", fcproc.APISocket(s.RunDir))
	if err == nil {
		conn.Close()
	}
	if err == nil || errors.Is(err, unix.EAGAIN) {
		return errkind.WithHint(errkind.New(api.KindBusy, "a machine runs in %s already", s.RunDir), "stop the VM first")
	}
	return fcproc.CleanUp(s.Dir, s.RunDir)
}

// boot tells Firecracker what the machine is, and starts the guest.
func (m *machine) boot(ctx context.Context, cell fcproc.Cell, s vmm.Spec) error {
	conn, err := m.serving(ctx)
	if err != nil {
		return err
	}
	c := newClient(conn)
	defer c.close()
	requests, err := configuration(cell, s)
	if err != nil {
		return err
	}
	for _, r := range append(requests, request{"/actions", instanceAction{actionStart}}) {
		if err := c.put(ctx, r.path, r.body); err != nil {
			return m.explain(err, r.path)
		}
	}
	return nil
}

// request is one PUT.
type request struct {
	path string
	body any
}

// configuration is everything that Firecracker is told before the start. The order of drives is that of the guest's devices.
func configuration(cell fcproc.Cell, s vmm.Spec) ([]request, error) {
	kernel, err := cell.Bring(s.Kernel, "kernel", true)
	if err != nil {
		return nil, err
	}
	initrd, err := cell.Bring(s.Initrd, "initrd", false)
	if err != nil {
		return nil, err
	}
	list := []request{
		{"/machine-config", machineConfiguration{VCPUCount: s.VCPU, MemSizeMiB: s.MemMiB}},
		{"/boot-source", bootSource{KernelImagePath: kernel, InitrdPath: initrd, BootArgs: kernelArgs(s)}},
		{"/entropy", entropyDevice{}},
		{"/vsock", vsock{GuestCID: guestCID, UDSPath: cell.Socket(fcproc.AgentSocket(s.RunDir))}},
	}
	for n, disk := range s.Disks {
		id := "disk" + strconv.Itoa(n)
		path, err := cell.Bring(disk.Path, id, disk.ReadOnly)
		if err != nil {
			return nil, err
		}
		list = append(list, request{"/drives/" + id, drive{DriveID: id, PathOnHost: path, IsReadOnly: disk.ReadOnly, CacheType: "Writeback"}})
	}
	if s.NIC != nil {
		list = append(list, request{"/network-interfaces/eth0", networkInterface{IfaceID: "eth0", HostDevName: s.NIC.Tap, GuestMAC: s.NIC.MAC}})
	}
	return list, nil
}

// explain adds to the error of a request why the process ended, if it did, and what to do.
func (m *machine) explain(err error, path string) error {
	var refused *APIError
	if errors.As(err, &refused) {
		hint := "`banger vm logs --source vmm NAME` has more of what Firecracker says"
		switch {
		case path == "/actions":
			hint = "`banger doctor` checks the host's KVM; " + hint
		case path == "/network-interfaces/eth0":
			hint = "see that nothing else uses the VM's tap device; " + hint
		}
		return errkind.WithHint(err, "%s", hint)
	}
	select {
	case <-m.Exited():
		return m.died()
	default:
		return err
	}
}

func (m *machine) died() error {
	return errkind.WithHint(errkind.New(api.KindUnavailable, "firecracker did not start: %s", m.Exit().Reason),
		"the words after the colon are Firecracker's own; `banger doctor` checks the host")
}

// serving waits until Firecracker accepts connections to its API, and returns the first.
func (m *machine) serving(ctx context.Context) (net.Conn, error) {
	late, canceled := time.After(m.driver.serveWithin), ctx.Done()
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		if conn, err := net.Dial("unix", fcproc.APISocket(m.Handle().RunDir)); err == nil {
			return conn, nil
		}
		select {
		case <-m.Exited():
			return nil, m.died()
		case <-canceled:
			return nil, fmt.Errorf("start firecracker: it does not serve its API: %w", ctx.Err())
		case <-late:
			err := errkind.New(api.KindTimeout, "start firecracker: it does not serve its API within %v", m.driver.serveWithin)
			return nil, errkind.WithHint(err, "see whether the host is overloaded, and what Firecracker says: `banger vm logs --source vmm NAME`")
		case <-time.After(pause):
		}
	}
}

// Adopt implements vmm.Driver.
func (d *Driver) Adopt(ctx context.Context, h vmm.Handle) (vmm.Machine, error) {
	p, err := d.home.Adopt(ctx, h, func() error { return fcproc.CleanUp(h.Dir, h.RunDir) })
	if err != nil {
		return nil, err
	}
	return newMachine(d, p), nil
}

// Find implements vmm.Finder.
func (d *Driver) Find(_ context.Context, id banger.VMID, dir, runDir string) (vmm.Handle, error) {
	pid, start, err := d.home.Find(func(_ int, cmdline []byte) bool { return fcproc.Runs(string(cmdline), string(id)) })
	if err != nil {
		return vmm.Handle{}, fmt.Errorf("find the machine of vm %s: %w", id, err)
	}
	s := vmm.Spec{ID: id, Dir: dir, RunDir: runDir}
	return d.home.Handle(d.program(fcproc.NewCell(d.tools, s), s), pid, start), nil
}
