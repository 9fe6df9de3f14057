package rpcserver

import (
	"bufio"
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// isHTTP reports whether a connection that begins with this byte speaks HTTP: its requests begin with a method in capitals
// (RFC 9110, 9.1), and JSON never does.
func isHTTP(first byte) bool { return first >= 'A' && first <= 'Z' }

// serveHTTP serves one HTTP request on conn, whose bytes come from r.
func (s *Server) serveHTTP(ctx context.Context, class Class, conn *net.UnixConn, r *bufio.Reader) {
	c := &httpConn{UnixConn: conn, r: r, closed: make(chan struct{})}
	handler := s.http
	switch {
	case handler == nil:
		handler = http.NotFoundHandler()
	case class < Read:
		handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "you may not read from this daemon", http.StatusForbidden)
		})
	}
	srv := &http.Server{
		Handler: handler, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	srv.SetKeepAlivesEnabled(false) // an idle connection would hold up the end of the daemon
	srv.Serve(&oneConn{conn: c})    //nolint:errcheck // it ends with the connection, always with an error
}

// httpConn is a connection that tells when it is closed.
type httpConn struct {
	*net.UnixConn
	r      *bufio.Reader
	once   sync.Once
	closed chan struct{}
}

func (c *httpConn) Read(p []byte) (int, error) { return c.r.Read(p) }

func (c *httpConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.UnixConn.Close()
}

// oneConn is a listener of one connection: it accepts it, and ends with it.
type oneConn struct {
	conn     *httpConn
	accepted bool // only Accept, which is not called concurrently, knows it
}

func (l *oneConn) Accept() (net.Conn, error) {
	if l.accepted {
		<-l.conn.closed
		return nil, net.ErrClosed
	}
	l.accepted = true
	return l.conn, nil
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }
