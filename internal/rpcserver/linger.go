package rpcserver

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/creachadair/jrpc2/channel"
	"golang.org/x/sys/unix"
)

// lingering is a connection's channel that tells a client which has said everything (shutdown(2) of its writing side, as
// `nc -N` and `socat` do) from one that is gone. A JSON-RPC server takes the end of the input for the end of the client and
// drops what it has not answered, so that end is held back until all is answered or the client is gone.
type lingering struct {
	channel.Channel
	conn *net.UnixConn

	mu       sync.Mutex // guards the fields below: answers are sent while the end is awaited
	owed     int        // requests that were received and not yet answered
	ended    bool       // there are no more requests
	answered chan struct{}
}

func newLingering(conn *net.UnixConn, r io.Reader) *lingering {
	return &lingering{Channel: channel.Line(r, conn), conn: conn, answered: make(chan struct{})}
}

// Recv returns the next request. The end comes when nothing is owed, or nobody is there to take it.
func (l *lingering) Recv() ([]byte, error) {
	msg, err := l.Channel.Recv()
	switch {
	case err == nil && wantsAnswer(msg):
		l.mu.Lock()
		l.owed++
		l.mu.Unlock()
	case errors.Is(err, io.EOF):
		l.awaitEnd()
	}
	return msg, err
}

// Send sends an answer.
func (l *lingering) Send(msg []byte) error {
	err := l.Channel.Send(msg)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.owed--; l.owed == 0 && l.ended {
		close(l.answered)
	}
	return err
}

func (l *lingering) awaitEnd() {
	l.mu.Lock()
	l.ended = true
	owed := l.owed
	l.mu.Unlock()
	if owed <= 0 {
		return
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		untilGone(l.conn)
	}()
	select {
	case <-l.answered:
	case <-gone:
	}
}

// untilGone returns when the peer has closed both directions, or conn is closed here. Of the two ends that a read cannot tell
// apart, poll(2) reports only that one as POLLHUP. The callback runs again at each event of the connection.
func untilGone(conn *net.UnixConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return // closed
	}
	raw.Read(func(fd uintptr) bool { //nolint:errcheck // an error means that it was closed here
		fds := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(fds, 0)
		return err == nil && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
}

// wantsAnswer reports whether a request line will be answered: all are but notifications, which have no id.
func wantsAnswer(line []byte) bool {
	var req struct{ ID json.RawMessage }
	return json.Unmarshal(line, &req) != nil || len(req.ID) > 0
}
