package rpcserver

import (
	"bufio"
	"context"
	"io"
	"net"

	"github.com/banger-vm/banger/api"
)

// Conn is the client's end of a stream call, seen from the daemon.
type Conn struct {
	*net.UnixConn
	r        *bufio.Reader
	req      api.Request
	accepted bool
}

// Read reads the bytes that follow the request line.
func (c *Conn) Read(p []byte) (int, error) { return c.r.Read(p) }

// Accept answers the request. From now on the connection carries the method's payload.
func (c *Conn) Accept(result any) error {
	c.accepted = true
	return api.Reply(c.UnixConn, c.req, result, nil)
}

// Peer is the other end of a splice: a stream to a guest's agent.
type Peer interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// buffer is the size of a splice's copies: one frame and its header, so that a frame passes in one piece.
const buffer = 64<<10 + 16

// Splice joins the client and peer: each direction is copied until its end, and the end is passed on as a half-close. It
// returns, and closes peer, when the peer has said everything, or the client is gone.
//
// Nothing is decoded. A client that goes away ends its direction without the payload's own end mark; the half-close tells
// the agent. The end of ctx ends both directions, though neither side reads or says anything.
func (c *Conn) Splice(ctx context.Context, peer Peer) error {
	stop := context.AfterFunc(ctx, func() {
		peer.Close()       //nolint:errcheck // it is given up
		c.UnixConn.Close() //nolint:errcheck // as above
	})
	defer stop()
	up := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(onlyWriter{peer}, onlyReader{c.r}, make([]byte, buffer))
		peer.CloseWrite() //nolint:errcheck // the copy's error says more
		up <- err
	}()
	_, err := io.CopyBuffer(onlyWriter{c.UnixConn}, onlyReader{peer}, make([]byte, buffer))
	c.UnixConn.CloseWrite() //nolint:errcheck // as above
	peer.Close()            //nolint:errcheck // as above
	c.UnixConn.CloseRead()  //nolint:errcheck // ends the copy above
	<-up
	return err
}

// onlyWriter and onlyReader hide ReadFrom and WriteTo, which would bypass the buffer above.
type onlyWriter struct{ io.Writer }
type onlyReader struct{ io.Reader }

// join accepts the call with result and splices it to the agent's stream.
func (c *Conn) join(ctx context.Context, stream Peer, result any) error {
	if err := c.Accept(result); err != nil {
		stream.Close() //nolint:errcheck // the client is gone
		return err
	}
	return c.Splice(ctx, stream)
}

// untilHangUp returns a context that ends with ctx, and when the client closes its end. It is for payloads that only go to
// the client: what the client sends is discarded.
func (c *Conn) untilHangUp(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		io.Copy(io.Discard, onlyReader{c.r}) //nolint:errcheck // any end is a hang-up
	}()
	return ctx
}
