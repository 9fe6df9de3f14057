package guest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/control"
	"github.com/banger-vm/banger/internal/guest"
)

// cable is what a virtio-serial port is to the guest: one stream that never ends, whatever happens to hosts. Bytes of a host
// that has gone stay in it, and the guest is not told.
type cable struct {
	guest net.Conn // our end of the guest's stream

	mu   sync.Mutex // a new host replaces the one before while the guest writes
	host net.Conn
}

func newCable(t *testing.T) *cable {
	ours, agents := net.Pipe()
	c := &cable{guest: ours}
	var running sync.WaitGroup
	running.Go(func() { control.Serve(t.Context(), agents, handlers(), slog.New(slog.DiscardHandler)) })
	running.Go(c.fromGuest)
	t.Cleanup(func() {
		ours.Close()
		running.Wait()
	})
	return c
}

// fromGuest carries bytes to the host of the moment, or drops them.
func (c *cable) fromGuest() {
	buf := make([]byte, 4096)
	for {
		n, err := c.guest.Read(buf)
		if err != nil {
			return
		}
		c.mu.Lock()
		host := c.host
		c.mu.Unlock()
		if host != nil {
			host.Write(buf[:n])
		}
	}
}

// dial connects a host. As QEMU does, it lets the one before go.
func (c *cable) dial(context.Context) (net.Conn, error) {
	host, far := net.Pipe()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.host != nil {
		c.host.Close()
	}
	c.host = far
	go io.Copy(c.guest, struct{ io.Reader }{far})
	return host, nil
}

func (c *cable) connect(t *testing.T) (*guest.Conn, net.Conn) {
	t.Helper()
	conn, _ := c.dial(t.Context())
	gc, err := guest.Connect(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	return gc, conn
}

func mustAnswer(t *testing.T, c *guest.Conn) {
	t.Helper()
	if err := c.Call(t.Context(), guestapi.MethodHello, nil, nil); err != nil {
		t.Fatal(err)
	}
}

func TestOneStreamForManyHosts(t *testing.T) {
	t.Run("garbage before the first host", func(t *testing.T) {
		c := newCable(t)
		c.guest.Write(bytes.Repeat([]byte("garbage\n\x00\x01"), 3000)) // until the agent has read all of it
		gc, _ := c.connect(t)
		mustAnswer(t, gc)
	})
	t.Run("a hundred hosts, each gone without a word", func(t *testing.T) {
		c := newCable(t)
		for range 100 {
			gc, conn := c.connect(t)
			mustAnswer(t, gc)
			conn.Close()
		}
	})
	t.Run("a host that dies inside a frame", func(t *testing.T) {
		c := newCable(t)
		gc, conn := c.connect(t)
		mustAnswer(t, gc)
		// The head of a data frame of 60,000 bytes (yamux: version, type, flags, stream, length) and a few of these.
		frame := append([]byte{0, 0, 0, 1, 0, 0, 0, 99, 0, 0, 0xea, 0x60}, "only a few"...)
		if _, err := conn.Write(frame); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		gc, _ = c.connect(t)
		mustAnswer(t, gc)
	})
	t.Run("garbage in the middle of a session", func(t *testing.T) {
		c := newCable(t)
		gc, conn := c.connect(t)
		mustAnswer(t, gc)
		conn.Write([]byte("\xffthis is no frame at all"))
		gc, _ = c.connect(t)
		mustAnswer(t, gc)
	})
	t.Run("a host that dies while the guest floods it", func(t *testing.T) {
		c := newCable(t)
		gc, conn := c.connect(t)
		s, err := gc.Open(t.Context(), "flood", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.ReadFull(s, make([]byte, 1000))
		conn.Close()
		gc, _ = c.connect(t)
		mustAnswer(t, gc)
	})
	t.Run("two quick hosts: the later has the guest", func(t *testing.T) {
		c := newCable(t)
		for range 20 {
			first, _ := c.dial(t.Context())
			lost := make(chan error, 1)
			go func() {
				gc, err := guest.Connect(t.Context(), first)
				if err == nil {
					<-gc.Done()
					err = errors.New("channel gone")
				}
				lost <- err
			}()
			gc, _ := c.connect(t)
			mustAnswer(t, gc)
			if err := <-lost; err == nil {
				t.Fatal("the first host still believes it is connected")
			}
		}
	})
}
