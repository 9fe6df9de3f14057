package control

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/mdlayher/vsock"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/guest"
)

func TestHasDevice(t *testing.T) {
	bus := t.TempDir()
	for name, number := range map[string]string{"virtio0": "0x0002\n", "virtio1": "0x0013\n"} {
		if err := os.Mkdir(filepath.Join(bus, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(bus, name, "device"), []byte(number), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if !hasDevice(bus, vsockDevice) {
		t.Error("the socket device is not found")
	}
	if hasDevice(bus, "0x0003") || hasDevice(filepath.Join(bus, "none"), vsockDevice) {
		t.Error("a device is found that is not there")
	}
}

// queue is a listener whose connections are made by the test.
type queue struct{ conns chan net.Conn }

func (q queue) Accept() (net.Conn, error) {
	if c, ok := <-q.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (q queue) Close() error   { return nil }
func (q queue) Addr() net.Addr { return nil }

// from is a connection from an address.
type from struct {
	net.Conn
	cid uint32
}

func (f from) RemoteAddr() net.Addr { return &vsock.Addr{ContextID: f.cid, Port: 5} }

func TestOnlyTheHostIsHeard(t *testing.T) {
	q := queue{make(chan net.Conn, 3)}
	local, other := net.Pipe()
	host, _ := net.Pipe()
	q.conns <- from{local, vsock.Local}
	q.conns <- from{host, vsock.Host}
	close(q.conns)
	v := &Vsock{q}
	conn, err := v.Accept()
	if err != nil || conn.(from).Conn != host {
		t.Fatalf("accepted %v, %v", conn, err)
	}
	if _, err := other.Read(make([]byte, 1)); err == nil {
		t.Error("a process of the guest was not turned away")
	}
	if _, err := v.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestNewestConnectionIsServed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	handlers := map[string]call.Handler{guestapi.MethodSync: func(context.Context, *call.Call) (any, error) { return nil, nil }}
	go func() { ended <- serveNewest(ctx, l, handlers, slog.New(slog.DiscardHandler)) }()
	connect := func() *guest.Conn {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c, err := guest.Connect(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Call(t.Context(), guestapi.MethodSync, nil, nil); err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := connect()
	second := connect()
	if err := first.Call(t.Context(), guestapi.MethodSync, nil, nil); err == nil {
		t.Error("the first connection is served beside the second")
	}
	second.Close()
	connect()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}
