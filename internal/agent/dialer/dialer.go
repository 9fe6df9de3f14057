// Package dialer connects the control channel to what listens inside the guest.
package dialer

import (
	"context"
	"io"
	"net"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/errkind"
)

// Handlers returns the agent's method that this package serves.
func Handlers() map[string]call.Handler { return map[string]call.Handler{guestapi.MethodDial: dial} }

func dial(ctx context.Context, c *call.Call) (any, error) {
	var p guestapi.Dial
	if err := c.Params(&p); err != nil {
		return nil, err
	}
	if p.Network != "tcp" && p.Network != "unix" {
		return nil, errkind.New(api.KindInvalid, "bad network %q: want tcp or unix", p.Network)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, p.Network, p.Address)
	if err != nil {
		return nil, errkind.WithHint(errkind.New(api.KindUnavailable, "%w", err), "`banger vm ports` shows what listens in the guest")
	}
	defer conn.Close()
	if err := c.Accept(nil); err != nil {
		return nil, err
	}
	return nil, Join(c, conn)
}

// Join copies both ways between the host's end c and a connection in the guest until both have ended. The end of one
// direction is passed on as a half-close: closing a stream of the control channel ends our direction only.
func Join(c *call.Call, conn net.Conn) error {
	up := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, struct{ io.Reader }{c})
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			half.CloseWrite() //nolint:errcheck // the copy's error says more
		}
		up <- err
	}()
	_, err := io.Copy(struct{ io.Writer }{c}, conn)
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite() //nolint:errcheck // as above
	} else {
		c.Conn.Close()
	}
	<-up
	return err
}
