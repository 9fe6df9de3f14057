package qemu

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/qemu/qmp"
	"github.com/banger-vm/banger/internal/vmm/vmmproc"
)

// machine is one QEMU process.
type machine struct {
	*vmmproc.Process
	driver *Driver
	agent  vmmproc.Line

	mu      sync.Mutex    // guards what follows: the waiter and the listener write it
	over    bool          // the process is gone: nobody listens any more
	monitor net.Conn      // the QMP connection
	client  *qmp.Client   // on monitor; nil: there never was one
	heard   chan struct{} // closed when monitor has ended; nil: nobody listened
	told    qmp.Reason    // why QEMU ends, by its own word
	halt    halt
}

func newMachine(d *Driver, p *vmmproc.Process) *machine {
	m := &machine{Process: p, driver: d, halt: halt{changed: make(chan struct{})}}
	p.Follow(m)
	return m
}

func (m *machine) runDir() string { return m.Handle().RunDir }

// DialAgent implements vmm.Machine. QEMU serves one connection at a time, so the one before is closed first.
func (m *machine) DialAgent(ctx context.Context) (net.Conn, error) {
	m.agent.Replace(nil)
	conn, err := vmmproc.Dial(ctx, agentSocket(m.runDir()))
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("connect to the guest's control channel: %w", ctx.Err())
	case err != nil:
		return nil, errkind.New(api.KindUnavailable, "connect to the guest's control channel: %w", err)
	}
	m.agent.Replace(conn)
	return conn, nil
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
	client := qmp.NewClient(conn, qmp.Listener{Event: func(e qmp.Event) { m.hear(conn, e) }, Status: func(status string) {
		if status == qmp.StatusIOError {
			m.halted(conn)
		}
	}})
	m.monitor, m.client, m.heard = conn, client, heard
	go func() {
		defer close(heard)
		defer conn.Close()
		if err := client.Listen(); err != nil {
			m.driver.cfg.Log.Debug("qmp", "id", m.Handle().ID, "err", err)
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

// Verdict implements vmmproc.Owner.
func (m *machine) Verdict(killed bool, status *os.ProcessState) vmm.Exit {
	return gather(m.Handle(), m.hearOut(), killed, status).verdict()
}

// CleanUp implements vmmproc.Owner.
func (m *machine) CleanUp() error {
	m.agent.Replace(nil)
	return removeRunFiles(m.runDir())
}

func removeRunFiles(runDir string) error {
	return vmmproc.RemoveFiles(agentSocket(runDir), qmpSocket(runDir), pidFile(runDir))
}
