package rpcserver

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// sockets returns the two ends of a Unix connection.
func sockets(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near.(*net.UnixConn), far.(*net.UnixConn)
}

// splice joins a client and a guest until ctx ends, and returns their ends and what Splice returns.
func splice(ctx context.Context, t *testing.T) (client, guest *net.UnixConn, ended chan error) {
	t.Helper()
	client, near := sockets(t)
	guest, peer := sockets(t)
	ended = make(chan error, 1)
	go func() { ended <- (&Conn{UnixConn: near, r: bufio.NewReader(near)}).Splice(ctx, peer) }()
	return client, guest, ended
}

func TestSplice(t *testing.T) {
	t.Run("the end of the client's bytes is a half-close, and the answer to it arrives", func(t *testing.T) {
		client, guest, ended := splice(t.Context(), t)
		said := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
		go func() {
			client.Write(said)
			client.CloseWrite()
		}()
		heard, err := io.ReadAll(guest)
		if err != nil || !bytes.Equal(heard, said) {
			t.Fatalf("the guest got %d bytes of %d: %v", len(heard), len(said), err)
		}
		go func() {
			guest.Write(heard)
			guest.Close()
		}()
		if back, err := io.ReadAll(client); err != nil || !bytes.Equal(back, said) {
			t.Errorf("%d bytes of %d came back: %v", len(back), len(said), err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Run("a client that goes away in the middle of the output ends the guest's stream", func(t *testing.T) {
		client, guest, ended := splice(t.Context(), t)
		go func() {
			io.CopyN(io.Discard, client, 1<<20)
			client.Close()
		}()
		block := make([]byte, 1<<16)
		var err error
		for err == nil {
			_, err = guest.Write(block)
		}
		if <-ended == nil {
			t.Error("the splice ended well")
		}
	})
	t.Run("a guest that goes away ends both directions, although the client says nothing", func(t *testing.T) {
		client, guest, ended := splice(t.Context(), t)
		guest.Close()
		<-ended
		if b, err := io.ReadAll(client); err != nil || len(b) != 0 {
			t.Errorf("%q, %v", b, err)
		}
	})
	t.Run("the end of the daemon ends it, although the guest reads nothing and says nothing", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		client, _, ended := splice(ctx, t)
		if err := client.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil { // the buffers are full by then
			t.Fatal(err)
		}
		block := make([]byte, 1<<16)
		for err := error(nil); err == nil; {
			_, err = client.Write(block)
		}
		cancel()
		<-ended
	})
}
