// Package call is the agent's end of one call on the control channel: a request line, a response line, and for stream
// methods the bytes after it.
package call

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"syscall"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/internal/errkind"
)

// Handler serves one method. A plain method returns its result. A stream method calls [Call.Accept] when its parameters
// are good, and then owns the connection until it returns; what it returns after that is only logged. ctx ends when the
// host goes away or the agent powers off.
type Handler func(ctx context.Context, c *Call) (any, error)

// Call is one request. Reads after Accept give the bytes that follow the request line; writes go to the host.
type Call struct {
	net.Conn
	r        *bufio.Reader
	req      api.Request
	accepted bool
}

// Read reads from the host.
func (c *Call) Read(p []byte) (int, error) { return c.r.Read(p) }

// Params decodes the request's parameters into v.
func (c *Call) Params(v any) error {
	if len(c.req.Params) == 0 {
		return nil
	}
	if err := json.Unmarshal(c.req.Params, v); err != nil {
		return errkind.New(api.KindInvalid, "parameters of %s: %w", c.req.Method, err)
	}
	return nil
}

// Accept sends the response line of a stream method. From now on the connection carries bytes.
func (c *Call) Accept(result any) error {
	c.accepted = true
	return api.Reply(c.Conn, c.req, result, nil)
}

// ExitStatus is the exit frame of a stream whose handler ends with err, which may be nil.
func ExitStatus(err error) frame.ExitStatus {
	switch {
	case err == nil:
		return frame.ExitStatus{}
	case errors.Is(err, syscall.ENOSPC):
		err = errkind.WithHint(err, "a disk of the guest is full, which `df -h` in it shows: make room, or use a VM with a larger --disk-size or --root-size")
	}
	return frame.ExitStatus{Code: 1, Error: err.Error(), Hint: errkind.Hint(err)}
}

// Serve reads the request on conn, runs its handler and answers. It closes conn. The error is for the log: of a read, of
// a write, or of a stream handler after Accept.
func Serve(ctx context.Context, conn net.Conn, handlers map[string]Handler) error {
	defer conn.Close()
	c := &Call{Conn: conn, r: bufio.NewReader(conn)}
	if err := api.ReadLine(c.r, &c.req); err != nil {
		return err
	}
	h, ok := handlers[c.req.Method]
	if !ok {
		return api.Reply(conn, c.req, nil, errkind.Wire(errkind.New(api.KindInvalid, "the agent has no method %q", c.req.Method)))
	}
	result, err := h(ctx, c)
	if c.accepted {
		return err
	}
	if err != nil {
		return api.Reply(conn, c.req, nil, errkind.Wire(err))
	}
	if result == nil {
		result = api.Empty{}
	}
	return api.Reply(conn, c.req, result, nil)
}
