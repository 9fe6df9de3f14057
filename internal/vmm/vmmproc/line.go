package vmmproc

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// MaxSocketPath is the longest path, in bytes, that fits the address of a Unix socket (unix(7)).
const MaxSocketPath = 107

// Dial connects to a VMM's socket. One connection may wait for the VMM to see the end of the one before; for others connect(2)
// says EAGAIN, and they are patient.
func Dial(ctx context.Context, path string) (net.Conn, error) {
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

// Line is the one connection to a guest's control channel. Its zero value has none.
type Line struct {
	mu   sync.Mutex // dials and the machine's end replace it concurrently
	conn net.Conn
}

// Replace makes conn, which may be nil, the one connection, and closes the one before it.
func (l *Line) Replace(conn net.Conn) {
	l.mu.Lock()
	old := l.conn
	l.conn = conn
	l.mu.Unlock()
	if old != nil {
		old.Close()
	}
}
