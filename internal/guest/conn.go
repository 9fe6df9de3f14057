// Package guest is the host's end of the control channel: calls to the agent of a running VM, and whether that guest is
// ready.
//
// A [Dialer] reaches the VMM's end of the channel. [Connect] makes a [Conn] of it: handshake (package channel), then a
// multiplexer with one stream for each call. A [Link] keeps one Conn for a VM, made when it is first needed and again
// after it was lost. All methods are safe for concurrent use.
//
// A channel that is gone gives errors of kind unavailable. What the agent itself reports keeps its kind and hint.
package guest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/libp2p/go-yamux/v5"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi/channel"
	"github.com/banger-vm/banger/internal/errkind"
)

// Dialer connects to the host's end of a VM's control channel. A new connection ends the one before.
type Dialer func(ctx context.Context) (net.Conn, error)

// never outlasts any VM: a paused guest must find its channel whole.
const never = 1000 * time.Hour

// Conn is an open control channel.
type Conn struct {
	session *yamux.Session
}

// Connect opens the control channel on conn, which it takes over: it is closed when this fails. It waits for the agent
// as long as ctx allows.
func Connect(ctx context.Context, conn net.Conn) (*Conn, error) {
	if err := channel.Host(ctx, conn); err != nil {
		conn.Close()
		return nil, gone(ctx, "open the control channel", err)
	}
	session, err := yamux.Client(conn, &yamux.Config{
		AcceptBacklog: 256, PingBacklog: 32,
		MeasureRTTInterval: never, ConnectionWriteTimeout: never,
		InitialStreamWindowSize: 1 << 20, MaxStreamWindowSize: 4 << 20,
		MaxMessageSize: 64 << 10, ReadBufSize: 64 << 10, LogOutput: io.Discard,
	}, nil)
	if err != nil {
		conn.Close()
		return nil, errkind.New(api.KindInternal, "open the control channel: %w", err)
	}
	return &Conn{session: session}, nil
}

// Done is closed when the channel is gone.
func (c *Conn) Done() <-chan struct{} { return c.session.CloseChan() }

// Streams is the number of calls under way.
func (c *Conn) Streams() int { return c.session.NumStreams() }

// Close ends the channel and every call on it.
func (c *Conn) Close() error { return c.session.Close() }

// Call runs method and decodes its result into result, unless that is nil. When ctx ends, so does the call, also in the guest.
func (c *Conn) Call(ctx context.Context, method string, params, result any) error {
	s, err := c.Open(ctx, method, params, result)
	if err != nil {
		return err
	}
	return s.Stream.Reset() // nothing is under way that an orderly end could save
}

// Open starts the stream method. The result is what the agent answered before the first byte of the stream. ctx bounds
// the start only, not the stream.
func (c *Conn) Open(ctx context.Context, method string, params, result any) (*Stream, error) {
	ys, err := c.session.OpenStream(ctx)
	if err != nil {
		return nil, gone(ctx, "call "+method, err)
	}
	s := &Stream{Stream: ys, r: bufio.NewReaderSize(ys, 4096)}
	stop := context.AfterFunc(ctx, func() { ys.Reset() })
	err = api.StartCall(ys, s.r, method, params, result)
	if !stop() && ctx.Err() != nil {
		ys.Reset()
		return nil, fmt.Errorf("call %s: %w", method, ctx.Err())
	}
	var remote *api.Error
	if errors.As(err, &remote) {
		s.Close()
		return nil, err
	}
	if err != nil {
		ys.Reset()
		return nil, gone(ctx, "", err)
	}
	return s, nil
}

// Stream is a started stream call: a net.Conn with half-close.
type Stream struct {
	*yamux.Stream
	r *bufio.Reader // may hold bytes read together with the response line
}

// Read reads what the agent sends.
func (s *Stream) Read(p []byte) (int, error) {
	if s.r.Buffered() == 0 && len(p) >= s.r.Size() {
		return s.Stream.Read(p)
	}
	return s.r.Read(p)
}

// WriteTo copies all that the agent sends to w. It exists so that io.Copy reads in large pieces.
func (s *Stream) WriteTo(w io.Writer) (int64, error) {
	head, _ := s.r.Peek(s.r.Buffered())
	n, err := w.Write(head)
	s.r.Discard(n)
	if err != nil {
		return int64(n), err
	}
	m, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{s.Stream}, make([]byte, 64<<10))
	return int64(n) + m, err
}

// CloseWrite tells the agent that nothing more comes. Reads go on.
func (s *Stream) CloseWrite() error { return s.Stream.CloseWrite() }

// Close ends the stream for both sides. An agent that still sends is cut off.
func (s *Stream) Close() error {
	// Reset is a no-op once both ends have closed their half, which is the case after an orderly end that was read.
	s.Stream.CloseWrite()
	return s.Stream.Reset()
}

// gone gives err, of the channel itself, its kind: the context's, else unavailable.
func gone(ctx context.Context, what string, err error) error {
	if what != "" {
		err = fmt.Errorf("%s: %w", what, err)
	}
	if ctx.Err() != nil {
		if errors.Is(err, ctx.Err()) {
			return err
		}
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return errkind.WithHint(errkind.Wrap(api.KindUnavailable, err), "the guest's agent does not answer; `banger vm logs` shows the guest's console")
}
