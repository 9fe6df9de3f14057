// Package rpcserver serves package api on a Unix socket: it accepts connections, checks who calls, and hands requests to
// the rows of a method table.
//
// A connection whose first line asks for a stream method belongs to that one call. Any other connection is an ordinary
// JSON-RPC 2.0 connection (creachadair/jrpc2), where requests are served concurrently; when the client closes it, the
// contexts of its unfinished calls end. A client that only ends its own side, as `nc -N` does, still gets its answers.
//
// A connection that begins with a capital letter is HTTP, and one request is served on it: `curl --unix-socket SOCKET
// http://localhost/metrics`.
package rpcserver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/creachadair/jrpc2"
)

// concurrency bounds the calls of one connection that are served at once.
const concurrency = 64

// Server serves a method table.
type Server struct {
	table     map[string]Method
	authorize func(Caller) Class
	log       *slog.Logger
	observer  Observer
	http      http.Handler // nil: nothing

	mu    sync.Mutex                      // guards conns and closing: Shutdown must see every connection that was accepted
	conns map[net.Conn]context.CancelFunc // of the context of the connection's calls
	done  bool
	wg    sync.WaitGroup
}

// New returns a server of methods. authorize tells what a caller may do; zero is nothing.
func New(methods []Method, authorize func(Caller) Class, log *slog.Logger) *Server {
	table := make(map[string]Method, len(methods))
	for _, m := range methods {
		if _, twice := table[m.Name]; twice {
			panic("rpcserver: method " + m.Name + " stands twice in the table")
		}
		table[m.Name] = m
	}
	return &Server{table: table, authorize: authorize, log: log, observer: nobody{}, conns: map[net.Conn]context.CancelFunc{}}
}

// Observer is told of what is served. Its methods are called concurrently and must not block.
type Observer interface {
	// CallEnded tells of an ordinary call of a method that there is, which has been answered.
	CallEnded(method string, took time.Duration, err error)
	// StreamBegan tells of a stream call. The function that it returns is called once, with how the stream ended.
	StreamBegan(method string) (ended func(err error))
}

type nobody struct{}

func (nobody) CallEnded(string, time.Duration, error) {}
func (nobody) StreamBegan(string) func(error)         { return func(error) {} }

// Observe has o told of what is served from now on. It must not be called after Serve.
func (s *Server) Observe(o Observer) { s.observer = o }

// HandleHTTP serves h to callers who may read. It must not be called after Serve.
func (s *Server) HandleHTTP(h http.Handler) { s.http = h }

// Serve accepts connections on l until l is closed. ctx is the parent of every call's context.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	for {
		conn, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		ctx, cancel := context.WithCancel(ctx)
		if !s.track(conn, cancel) {
			cancel()
			conn.Close()
			continue
		}
		go func() {
			defer s.untrack(conn)
			s.serveConn(ctx, conn)
		}()
	}
}

// Shutdown waits for the calls under way until ctx ends, then closes what is left. The listener must be closed before.
func (s *Server) Shutdown(ctx context.Context) {
	s.mu.Lock()
	s.done = true
	s.mu.Unlock()
	idle := make(chan struct{})
	go func() { s.wg.Wait(); close(idle) }()
	select {
	case <-idle:
		return
	case <-ctx.Done():
	}
	s.mu.Lock()
	for c, cancel := range s.conns {
		cancel()
		c.Close()
	}
	s.mu.Unlock()
	<-idle
}

func (s *Server) track(c net.Conn, cancel context.CancelFunc) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return false
	}
	s.conns[c] = cancel
	s.wg.Add(1)
	return true
}

func (s *Server) untrack(c net.Conn) {
	c.Close()
	s.mu.Lock()
	s.conns[c]()
	delete(s.conns, c)
	s.mu.Unlock()
	s.wg.Done()
}

func (s *Server) serveConn(ctx context.Context, conn *net.UnixConn) {
	caller, err := callerOf(conn)
	if err != nil {
		s.log.Warn("caller not known", "err", err)
		return
	}
	class := s.authorize(caller)
	r := bufio.NewReaderSize(conn, 64<<10)
	if first, err := r.Peek(1); err == nil && isHTTP(first[0]) {
		s.serveHTTP(ctx, class, conn, r)
		return
	}
	line, req, err := firstLine(r)
	if err != nil {
		return // closed before it said anything
	}
	if m, ok := s.table[req.Method]; ok && m.stream != nil {
		s.serveStream(ctx, m, class, &Conn{UnixConn: conn, r: r, req: req})
		return
	}
	srv := jrpc2.NewServer(assigner{s, class}, &jrpc2.ServerOptions{
		Concurrency: concurrency, DisableBuiltin: true, NewContext: func() context.Context { return ctx },
	})
	srv.Start(newLingering(conn, io.MultiReader(bytes.NewReader(line), r)))
	srv.Wait() //nolint:errcheck // how a client leaves is its own affair
}

// firstLine reads the first request line and returns it as it came and decoded. A line that is no request decodes to the
// zero request, and the JSON-RPC server then says what is wrong with it.
func firstLine(r *bufio.Reader) ([]byte, api.Request, error) {
	var raw json.RawMessage
	var req api.Request
	err := api.ReadLine(r, &raw)
	var syntax *json.SyntaxError
	if err != nil && !errors.As(err, &syntax) {
		return nil, req, err
	}
	if err != nil {
		raw = json.RawMessage("{")
	}
	if json.Unmarshal(raw, &req) != nil {
		req = api.Request{}
	}
	return append(raw, '\n'), req, nil
}

func (s *Server) serveStream(ctx context.Context, m Method, class Class, c *Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := s.observer.StreamBegan(m.Name)
	err := permit(m, class)
	if err == nil {
		err = m.stream(ctx, c.req.Params, c)
	}
	ended(err)
	switch {
	case err == nil:
	case !c.accepted:
		if werr := api.Reply(c.UnixConn, c.req, nil, errkind.Wire(err)); werr != nil {
			s.log.Debug("answer", "method", m.Name, "err", werr)
		}
	default:
		s.log.Debug("stream ended", "method", m.Name, "err", err)
	}
}

func permit(m Method, class Class) error {
	if class >= m.Class {
		return nil
	}
	return errkind.WithHint(errkind.New(api.KindPermission, "you may not call %s", m.Name),
		"it needs %s permission on banger's daemon: root and the daemon's user have all, members of its group read and write", m.Class)
}

// assigner finds handlers for one connection's class of caller.
type assigner struct {
	s     *Server
	class Class
}

func (a assigner) Assign(_ context.Context, name string) jrpc2.Handler {
	m, ok := a.s.table[name]
	if !ok {
		return func(context.Context, *jrpc2.Request) (any, error) {
			return nil, wireError(jrpc2.MethodNotFound, errkind.New(api.KindInvalid, "there is no method %q", name))
		}
	}
	return func(ctx context.Context, req *jrpc2.Request) (any, error) {
		begun := time.Now()
		result, err := a.handle(ctx, m, req)
		a.s.observer.CallEnded(name, time.Since(begun), err)
		a.s.log.Debug("call", "method", name, "took", time.Since(begun), "err", err)
		if err == nil {
			return result, nil
		}
		return nil, wireError(jrpc2.Code(errkind.Of(err).Code()), err)
	}
}

// wireError returns err as an answer with a code.
func wireError(code jrpc2.Code, err error) error {
	wire := errkind.Wire(err)
	return (&jrpc2.Error{Code: code, Message: wire.Message}).WithData(wire)
}

func (a assigner) handle(ctx context.Context, m Method, req *jrpc2.Request) (any, error) {
	if m.stream != nil {
		return nil, errkind.New(api.KindInvalid, "%s is a stream: it must be the first line of a connection of its own", m.Name)
	}
	if err := permit(m, a.class); err != nil {
		return nil, err
	}
	return m.call(ctx, json.RawMessage(req.ParamString()))
}
