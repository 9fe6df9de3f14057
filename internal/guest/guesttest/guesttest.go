// Package guesttest serves an agent inside a test process, so that what talks to guests can be tested without one.
package guesttest

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"

	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/agent/control"
	"github.com/banger-vm/banger/internal/guest"
)

// Serve starts an agent with handlers and returns the way to it. As with a real machine, a new connection ends the one
// before. Everything ends with the test.
func Serve(t testing.TB, handlers map[string]call.Handler) guest.Dialer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var agents sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		agents.Wait()
	})
	var mu sync.Mutex // guards last: two dials at once must not leave two connections
	var last net.Conn
	return func(ctx2 context.Context) (net.Conn, error) {
		if err := ctx2.Err(); err != nil {
			return nil, err
		}
		host, agent := net.Pipe()
		mu.Lock()
		defer mu.Unlock()
		if last != nil {
			last.Close()
		}
		last = agent
		agents.Go(func() { ServeConn(ctx, agent, handlers) })
		return host, nil
	}
}

// ServeConn is an agent with handlers on the guest's end of one connection, until that or ctx ends.
func ServeConn(ctx context.Context, conn net.Conn, handlers map[string]call.Handler) error {
	return control.Serve(ctx, conn, handlers, slog.New(slog.DiscardHandler))
}
