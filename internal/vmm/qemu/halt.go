package qemu

import (
	"fmt"
	"net"
	"time"

	"github.com/banger-vm/banger/internal/vmm/qemu/qmp"
	"golang.org/x/sys/unix"
)

// QEMU halts a guest whose write finds the host's disk full (werror=enospc, its default), and repeats the write when the guest goes
// on. So nothing is lost; but the guest would stand still until somebody says go.

const (
	roomToGoOn = 64 << 20 // bytes that must be free before a halted guest goes on
	lookEvery  = 2 * time.Second
)

// halt is whether the guest is halted. machine.mu guards it.
type halt struct {
	why     string
	changed chan struct{} // closed, and replaced, when why changes
}

func (m *machine) setHalt(why string) (changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.halt.why == why {
		return false
	}
	m.halt.why = why
	close(m.halt.changed)
	m.halt.changed = make(chan struct{})
	return true
}

// Halted implements vmm.Halter.
func (m *machine) Halted() (why string, changed <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.halt.why, m.halt.changed
}

// halted notes that the guest stands still, and has it go on when there is room, for as long as conn is open.
func (m *machine) halted(conn net.Conn) {
	why := fmt.Sprintf("the guest is halted because the host's disk is full; it goes on by itself when %d MiB are free below %s",
		roomToGoOn>>20, m.Handle().Dir)
	if !m.setHalt(why) {
		return
	}
	m.driver.cfg.Log.Warn("guest halted: the disk is full", "id", m.Handle().ID, "dir", m.Handle().Dir)
	go m.goOn(conn)
}

func (m *machine) goOn(conn net.Conn) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	_, changed := m.Halted()
	for {
		if room(m.Handle().Dir) >= roomToGoOn && qmp.Cont(conn) != nil {
			return // the connection has ended: the next listener sees the status
		}
		select {
		case <-tick.C:
		case <-changed:
			return
		case <-m.Exited():
			return
		}
	}
}

// resumed notes that the guest goes on. If the disk is full again, QEMU says so again.
func (m *machine) resumed() {
	if m.setHalt("") {
		m.driver.cfg.Log.Info("guest goes on: there is room on the disk", "id", m.Handle().ID)
	}
}

// room is how many bytes are free for the files in dir.
func room(dir string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0
	}
	return int64(st.Bavail) * st.Bsize
}
