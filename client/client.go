// Package client talks to banger's daemon over its Unix socket: one typed method for each method of package api.
//
// # Connections
//
// Every call has a connection of its own. So a [Client] holds nothing open, may be shared by any number of goroutines,
// needs no Close, and cancelling a call's context simply closes its connection, which is how the daemon learns of it: a
// plain call's work is then cancelled too, an operation goes on until it is cancelled by its id.
//
// # Trust
//
// Nothing is sent before the kernel has said who listens (SO_PEERCRED): the daemon must run as the caller or as root.
// Otherwise anybody who may write to the socket's directory could collect keys, environments and repositories.
//
// # Errors
//
// What the daemon reports is an [*api.Error], found with errors.As; failures of the connection have that type as well,
// with kind unavailable. A call that its context ended returns the context's cause.
package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"

	"github.com/banger-vm/banger/api"
)

// ErrNotRunning is what [Dial] and calls return, wrapped, when no daemon listens on the socket.
var ErrNotRunning error = &api.Error{Kind: api.KindUnavailable, Message: "the banger daemon is not running",
	Hint: "start it with `banger daemon start`"}

// errCut is a connection that ended too early.
var errCut error = &api.Error{Kind: api.KindUnavailable, Message: "the connection was cut",
	Hint: "the daemon or the VM has gone away; see `banger daemon logs` and `banger vm list`"}

// Options changes how [Dial] behaves; the zero value is right for nearly everyone.
type Options struct {
	// AnyProtocol accepts a daemon of another protocol version, for the few calls that never change: ping, info, stop.
	AnyProtocol bool
}

// Client calls one daemon.
type Client struct {
	socket string
	ping   api.Ping
}

// Dial finds out who listens on the Unix socket at socketPath and checks that both sides speak the same protocol version.
// No daemon there is [ErrNotRunning]; one of another user is of kind permission, one of another version of kind precondition.
func Dial(ctx context.Context, socketPath string, o Options) (*Client, error) {
	c := &Client{socket: socketPath}
	err := c.call(ctx, api.MethodPing, nil, &c.ping)
	if errors.Is(err, errCut) {
		// A daemon that dies cuts the connections it had not answered yet, before its socket refuses new ones.
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, err
	}
	if !o.AnyProtocol {
		if err := checkProtocol(c.ping); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// checkProtocol refuses a daemon of another protocol version. The way out depends on who is older: a daemon that is newer
// may have migrated its database, which the daemon beside this program would then refuse.
func checkProtocol(p api.Ping) error {
	const stop = "stop it with `banger daemon stop` (VMs keep running)"
	hint := stop + ", then run the command again: that starts the present version"
	switch {
	case p.Protocol == api.ProtocolVersion:
		return nil
	case p.Protocol > api.ProtocolVersion:
		hint = "this program is older than the daemon: use the banger that was installed with it; or " + stop + " to go back"
	}
	return &api.Error{Kind: api.KindPrecondition, Hint: hint, Message: fmt.Sprintf(
		"the daemon (version %s, pid %d) speaks protocol %d, this program %d", p.Version, p.PID, p.Protocol, api.ProtocolVersion)}
}

// Daemon returns what the daemon said of itself when it was dialled.
func (c *Client) Daemon() api.Ping { return c.ping }

// stream is one call's connection after its response line.
type stream struct {
	net.Conn
	r    *bufio.Reader
	ctx  context.Context // of the call, which the connection does not outlive
	stop func() bool
}

// Read reads what follows the response line.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && s.ctx.Err() != nil {
		err = context.Cause(s.ctx)
	}
	return n, err
}

// Close closes the connection and forgets the context.
func (s *stream) Close() error {
	s.stop()
	return s.Conn.Close()
}

// CloseWrite ends the bytes to the daemon and leaves the other direction open.
func (s *stream) CloseWrite() error { return s.Conn.(*net.UnixConn).CloseWrite() }

// failure turns an error of the connection into the caller's: its context's cause, or kind unavailable.
func (s *stream) failure(doing string, err error) error {
	var wire *api.Error
	switch {
	case s.ctx.Err() != nil:
		return context.Cause(s.ctx)
	case errors.As(err, &wire):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("%s: %w", doing, errCut)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// open connects, calls method and returns the connection for the bytes that follow. The context governs it until Close.
func (c *Client) open(ctx context.Context, method string, params, result any) (*stream, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, dialError(ctx, c.socket, err)
	}
	if err := checkPeer(conn.(*net.UnixConn), c.socket); err != nil {
		conn.Close()
		return nil, err
	}
	s := &stream{Conn: conn, r: bufio.NewReaderSize(conn, 64<<10), ctx: ctx}
	s.stop = context.AfterFunc(ctx, func() { conn.Close() })
	if params == nil {
		params = api.Empty{}
	}
	if err := api.StartCall(conn, s.r, method, params, result); err != nil {
		s.Close()
		return nil, s.failure("call "+method, err)
	}
	return s, nil
}

// call makes an ordinary call.
func (c *Client) call(ctx context.Context, method string, params, result any) error {
	s, err := c.open(ctx, method, params, result)
	if err != nil {
		return err
	}
	s.Close()
	return nil
}

// get is call for methods with a result.
func get[R any](ctx context.Context, c *Client, method string, params any) (R, error) {
	var r R
	err := c.call(ctx, method, params, &r)
	return r, err
}

func dialError(ctx context.Context, socket string, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w (no one listens on %s)", ErrNotRunning, socket)
	case errors.Is(err, fs.ErrPermission):
		return &api.Error{Kind: api.KindPermission, Message: "not allowed to connect to " + socket,
			Hint: "the daemon there is another user's; set BANGER_ROOT to a directory of your own"}
	}
	return fmt.Errorf("connect to the daemon: %w", err)
}

// checkPeer refuses a daemon of a stranger. The kernel remembers who called listen(2) (unix(7), SO_PEERCRED).
func checkPeer(conn *net.UnixConn, socket string) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *syscall.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return fmt.Errorf("ask who listens on %s: %w", socket, err)
	}
	return checkOwner(socket, int(cred.Uid), os.Geteuid())
}

func checkOwner(socket string, owner, caller int) error {
	if owner == caller || owner == 0 {
		return nil
	}
	return &api.Error{Kind: api.KindPermission,
		Message: fmt.Sprintf("%s is served by user %d, not by you (%d) or root", socket, owner, caller),
		Hint:    "do not use it; set BANGER_ROOT to a directory of your own"}
}
