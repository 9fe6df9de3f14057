// Package control is the guest's end of the control channel: it opens the channel again for each host that comes, and
// hands every stream the host opens to a [call.Handler].
//
// A line is the byte stream that leads to the host: a virtio-serial [Port], or a connection. A session is one host on that
// line, from handshake (package channel) to its end; its multiplexer is go-yamux. Sessions follow each other on one line and
// never overlap: before the next handshake begins, nothing of the session before reads or writes any more.
package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-yamux/v5"

	"github.com/banger-vm/banger/api/guestapi/channel"
	"github.com/banger-vm/banger/internal/agent/call"
)

// never is longer than any guest lives; a paused guest must find its channel whole.
const never = 1000 * time.Hour

// Serve serves hosts on line, one after the other, until line ends or ctx does, and closes line. The error is nil at the
// line's end.
func Serve(ctx context.Context, line net.Conn, handlers map[string]call.Handler, log *slog.Logger) error {
	defer line.Close()
	unblock := context.AfterFunc(ctx, func() { line.Close() })
	defer unblock()
	var seen *channel.Nonce
	for ctx.Err() == nil {
		rest, err := channel.Guest(line, seen)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		s := &sessionConn{Conn: line, rest: rest}
		if err := serveSession(ctx, s, handlers, log); err != nil {
			log.Debug("control session ended", "err", err)
		}
		if err := s.handBack(); err != nil {
			return err
		}
		if seen = s.next.Load(); seen == nil && s.ended.Load() {
			return nil
		}
	}
	return ctx.Err()
}

func serveSession(ctx context.Context, conn *sessionConn, handlers map[string]call.Handler, log *slog.Logger) error {
	session, err := yamux.Server(conn, &yamux.Config{
		AcceptBacklog: 256, PingBacklog: 32, MaxIncomingStreams: 1024,
		MeasureRTTInterval: never, ConnectionWriteTimeout: never,
		InitialStreamWindowSize: 256 << 10, MaxStreamWindowSize: 2 << 20, // the guest may have little memory
		MaxMessageSize: 64 << 10, ReadBufSize: 4096, LogOutput: logWriter{log},
	}, nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var calls sync.WaitGroup
	defer calls.Wait()
	defer cancel()
	defer session.Close()
	stop := context.AfterFunc(ctx, func() { session.Close() })
	defer stop()
	for {
		stream, err := session.AcceptStream()
		if err != nil {
			return err
		}
		calls.Go(func() { serveCall(ctx, stream, handlers, log) })
	}
}

// serveCall runs one call. A panic ends that call only: the end of PID 1 would be the end of the guest and of its data.
func serveCall(ctx context.Context, stream *yamux.Stream, handlers map[string]call.Handler, log *slog.Logger) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("call panicked", "panic", p, "stack", string(debug.Stack()))
			stream.Reset()
		}
	}()
	if err := call.Serve(ctx, stream, handlers); err != nil && !errors.Is(err, io.EOF) {
		log.Debug("call ended", "err", err)
	}
}

// logWriter passes the multiplexer's lines on; they tell of hosts that went away.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.log.Debug("yamux", "line", string(bytes.TrimSpace(p)))
	return len(p), nil
}

// sessionConn is a line lent to one session. Close takes the line away from the session without closing it. A read
// that meets the SYN of another host ends the session.
type sessionConn struct {
	net.Conn
	rest    []byte // read with the handshake, before anything else
	watch   channel.Watch
	reading sync.Mutex // held in Read and Write, so that handBack can wait for the last ones
	writing sync.Mutex
	closed  atomic.Bool
	ended   atomic.Bool                   // the line itself has ended
	next    atomic.Pointer[channel.Nonce] // of the host that wants to take over
}

func (c *sessionConn) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.read(p)
	if err != nil && !c.closed.Load() {
		c.ended.Store(true)
	}
	if nonce, ok := c.watch.Feed(p[:n]); ok {
		c.next.Store(&nonce)
		return 0, io.EOF
	}
	return n, err
}

func (c *sessionConn) read(p []byte) (int, error) {
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

func (c *sessionConn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

// Close ends what reads and writes the line now.
func (c *sessionConn) Close() error {
	c.closed.Store(true)
	return c.Conn.SetDeadline(time.Unix(1, 0))
}

// handBack waits until nothing of the session touches the line any more, and makes the line usable again.
func (c *sessionConn) handBack() error {
	c.Close()
	c.reading.Lock()
	defer c.reading.Unlock()
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.Conn.SetDeadline(time.Time{})
}

// The session has no deadlines of its own: they would undo Close.

func (c *sessionConn) SetDeadline(time.Time) error      { return nil }
func (c *sessionConn) SetReadDeadline(time.Time) error  { return nil }
func (c *sessionConn) SetWriteDeadline(time.Time) error { return nil }
