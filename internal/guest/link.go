package guest

import (
	"context"
	"log/slog"
	"net"
	"sync"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Link keeps one [Conn] to a VM's agent.
type Link struct {
	dial   Dialer
	log    *slog.Logger
	turn   chan struct{} // holds a token while somebody connects
	closed chan struct{}

	mu   sync.Mutex // Get reads conn while another Get or Close replaces it
	conn *Conn
}

// NewLink returns a Link that connects through dial when it is first used.
func NewLink(dial Dialer, log *slog.Logger) *Link {
	return &Link{dial: dial, log: log, turn: make(chan struct{}, 1), closed: make(chan struct{})}
}

// Get returns the open channel, or opens it, as long as ctx allows. Concurrent callers share one attempt's result; a
// caller whose ctx ends does not disturb the others.
func (l *Link) Get(ctx context.Context) (*Conn, error) {
	if c := l.current(); c != nil {
		return c, nil
	}
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, gone(ctx, "open the control channel", ctx.Err())
	case <-l.closed:
		return nil, errClosed()
	}
	defer func() { <-l.turn }()
	if c := l.current(); c != nil {
		return c, nil
	}
	select {
	case <-l.closed:
		return nil, errClosed()
	default:
		return l.connect(ctx)
	}
}

// connect is run by the holder of the turn.
func (l *Link) connect(ctx context.Context) (*Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-l.closed:
			cancel()
		case <-ctx.Done():
		}
	}()
	conn, err := l.dial(ctx)
	if err != nil {
		return nil, gone(ctx, "reach the machine's control socket", &dialError{err})
	}
	c, err := Connect(ctx, conn)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.closed:
		c.Close()
		return nil, errClosed()
	default:
	}
	if l.conn != nil {
		l.log.Debug("control channel opened again")
	}
	l.conn = c
	return c, nil
}

func (l *Link) current() *Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil || l.conn.session.IsClosed() {
		return nil
	}
	return l.conn
}

// Close ends the channel and any attempt to open it. Get fails from then on.
func (l *Link) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.closed:
		return nil
	default:
	}
	close(l.closed)
	if l.conn == nil {
		return nil
	}
	return l.conn.Close()
}

func errClosed() error {
	return errkind.New(api.KindUnavailable, "the control channel is closed: %w", net.ErrClosed)
}

// dialError marks a failure on the host's side of the channel.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }
