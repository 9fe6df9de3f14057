package publish

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/agent/dialer"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/guesttest"
)

// listen opens a port of the "guest", which is this process, that answers a line and what it ends with.
func listen(t *testing.T, serve func(net.Conn)) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); serve(c) }()
		}
	}()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func echo(c net.Conn) {
	all, err := io.ReadAll(c) // ends with the client's half-close
	if err == nil {
		c.Write([]byte(strings.ToUpper(string(all)))) //nolint:errcheck // the client misses it
	}
}

// free returns an address with a port that nobody has.
func free(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}

func link(t *testing.T, handlers map[string]call.Handler) *guest.Link {
	t.Helper()
	l := guest.NewLink(guesttest.Serve(t, handlers), slog.New(slog.DiscardHandler))
	t.Cleanup(func() { l.Close() })
	return l
}

func web(ports ...banger.Publish) banger.VM {
	return banger.VM{ID: "aaaaaaaaaaaa", Name: "web", Spec: banger.Spec{Publish: ports}}
}

func ports(t *testing.T) (*Ports, *atomic.Int32) {
	t.Helper()
	var used atomic.Int32
	p := New(func(banger.VMID) func() { used.Add(1); return func() { used.Add(-1) } }, slog.New(slog.DiscardHandler))
	t.Cleanup(p.CloseAll)
	return p, &used
}

func dial(t *testing.T, a netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", a.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

func TestForward(t *testing.T) {
	p, used := ports(t)
	at := free(t)
	if err := p.Open(web(banger.Publish{Host: at, Guest: listen(t, echo)}), link(t, dialer.Handlers())); err != nil {
		t.Fatal(err)
	}
	t.Run("what goes in comes out, and the end of one direction is passed on", func(t *testing.T) {
		c := dial(t, at)
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		c.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || string(got) != "HELLO" {
			t.Errorf("got %q %v", got, err)
		}
	})
	t.Run("when the VM stops, its port is free and its connections end", func(t *testing.T) {
		c := dial(t, at)
		if _, err := c.Write([]byte("never answered")); err != nil {
			t.Fatal(err)
		}
		p.Close("aaaaaaaaaaaa")
		p.Close("aaaaaaaaaaaa") // may be repeated
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the connection lives")
		}
		if n := used.Load(); n != 0 {
			t.Errorf("%d connections are still counted as use", n)
		}
		l, err := net.Listen("tcp", at.String())
		if err != nil {
			t.Fatalf("the port is not free: %v", err)
		}
		l.Close()
	})
}

func TestGuestThatDoesNotListen(t *testing.T) {
	p, _ := ports(t)
	at := free(t)
	if err := p.Open(web(banger.Publish{Host: at, Guest: free(t).Port()}), link(t, dialer.Handlers())); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", at.String())
	if err == nil {
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) { // which may come before Dial has returned
		t.Errorf("got %v, want a reset, as of a port that nobody listens on", err)
	}
}

func TestPortInUse(t *testing.T) {
	p, _ := ports(t)
	first, second := free(t), free(t)
	l := link(t, map[string]call.Handler{guestapi.MethodDial: func(context.Context, *call.Call) (any, error) { return nil, nil }})
	if err := p.Open(web(banger.Publish{Host: first, Guest: 80}), l); err != nil {
		t.Fatal(err)
	}
	both := []banger.Publish{{Host: second, Guest: 80}, {Host: first, Guest: 80}}
	busy := func(t *testing.T, err error, hint string) {
		t.Helper()
		if !errkind.Is(err, api.KindBusy) || !strings.Contains(err.Error(), first.String()) || !strings.Contains(errkind.Hint(err), hint) {
			t.Errorf("got %v, hint %q", err, errkind.Hint(err))
		}
	}
	t.Run("the error names the VM that has it, and nothing stays open", func(t *testing.T) {
		other := banger.VM{ID: "bbbbbbbbbbbb", Name: "db", Spec: banger.Spec{Publish: both}}
		busy(t, p.Check(other.ID, both), `vm "web"`)
		busy(t, p.Open(other, l), `vm "web"`)
		free, err := net.Listen("tcp", second.String())
		if err != nil {
			t.Fatalf("the other port is not free: %v", err)
		}
		free.Close()
	})
	t.Run("the VM's own ports are free to it", func(t *testing.T) {
		if err := p.Check("aaaaaaaaaaaa", both); err != nil {
			t.Error(err)
		}
		if err := p.Open(web(both...), l); err != nil {
			t.Error(err)
		}
	})
	t.Run("a stranger's port is looked for with ss", func(t *testing.T) {
		p.CloseAll()
		stranger, err := net.Listen("tcp", first.String())
		if err != nil {
			t.Fatal(err)
		}
		defer stranger.Close()
		busy(t, p.Check("aaaaaaaaaaaa", both), "ss -ltnp")
	})
	t.Run("one port twice, and an address that the host has not", func(t *testing.T) {
		if err := p.Check("", []banger.Publish{both[0], both[0]}); !errkind.Is(err, api.KindInvalid) {
			t.Errorf("got %v", err)
		}
		nowhere := banger.Publish{Host: netip.MustParseAddrPort("198.51.100.7:8080"), Guest: 80}
		if err := p.Check("", []banger.Publish{nowhere}); !errkind.Is(err, api.KindInvalid) || errkind.Hint(err) == "" {
			t.Errorf("got %v", err)
		}
	})
}
