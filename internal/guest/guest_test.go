package guest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/guesttest"
)

// handlers are an agent's with one method of each sort.
func handlers() map[string]call.Handler {
	return map[string]call.Handler{
		guestapi.MethodHello: func(context.Context, *call.Call) (any, error) { return guestapi.Hello{VMID: "vm1"}, nil },
		"fail": func(context.Context, *call.Call) (any, error) {
			return nil, errkind.WithHint(errkind.New(api.KindBusy, "the door is locked"), "knock")
		},
		"panic": func(context.Context, *call.Call) (any, error) { panic("on purpose") },
		"wait": func(ctx context.Context, c *call.Call) (any, error) {
			_, err := c.Read(make([]byte, 1)) // ends with the host's stream
			return nil, err
		},
		"echo": func(_ context.Context, c *call.Call) (any, error) {
			if err := c.Accept(api.Empty{}); err != nil {
				return nil, err
			}
			_, err := io.Copy(c.Conn, readerOnly{c})
			return nil, err
		},
		"flood": func(_ context.Context, c *call.Call) (any, error) {
			if err := c.Accept(api.Empty{}); err != nil {
				return nil, err
			}
			_, err := io.Copy(c.Conn, zeros{})
			return nil, err
		},
	}
}

type readerOnly struct{ io.Reader }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func open(t *testing.T, h map[string]call.Handler) *guest.Conn {
	t.Helper()
	link := guest.NewLink(guesttest.Serve(t, h), slog.New(slog.DiscardHandler))
	t.Cleanup(func() { link.Close() })
	c, err := link.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCall(t *testing.T) {
	c := open(t, handlers())
	t.Run("gives the result", func(t *testing.T) {
		var h guestapi.Hello
		if err := c.Call(t.Context(), guestapi.MethodHello, nil, &h); err != nil || h.VMID != "vm1" {
			t.Fatalf("hello is %+v, %v", h, err)
		}
	})
	t.Run("keeps the kind and hint of the agent's error", func(t *testing.T) {
		err := c.Call(t.Context(), "fail", nil, nil)
		if !errkind.Is(err, api.KindBusy) || errkind.Hint(err) != "knock" || !strings.Contains(err.Error(), "the door is locked") {
			t.Fatalf("error is %v of kind %v with hint %q", err, errkind.Of(err), errkind.Hint(err))
		}
	})
	t.Run("a method the agent does not have is invalid", func(t *testing.T) {
		if err := c.Call(t.Context(), "no.such", nil, nil); !errkind.Is(err, api.KindInvalid) {
			t.Fatalf("error is %v", err)
		}
	})
	t.Run("a handler that panics ends its call only", func(t *testing.T) {
		if err := c.Call(t.Context(), "panic", nil, nil); !errkind.Is(err, api.KindUnavailable) {
			t.Fatalf("error is %v", err)
		}
		if err := c.Call(t.Context(), guestapi.MethodHello, nil, nil); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("ends in the guest when its context ends", func(t *testing.T) {
		ended := make(chan struct{})
		h := handlers()
		h["wait"] = func(ctx context.Context, c *call.Call) (any, error) {
			defer close(ended)
			_, err := c.Read(make([]byte, 1))
			return nil, err
		}
		c := open(t, h)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := c.Call(ctx, "wait", nil, nil); !errkind.Is(err, api.KindTimeout) {
			t.Fatalf("error is %v of kind %v", err, errkind.Of(err))
		}
		<-ended
	})
	t.Run("many at once", func(t *testing.T) {
		var calls sync.WaitGroup
		for range 200 {
			calls.Go(func() {
				if err := c.Call(t.Context(), guestapi.MethodHello, nil, nil); err != nil {
					t.Error(err)
				}
			})
		}
		calls.Wait()
	})
}

func TestStream(t *testing.T) {
	t.Run("half-close keeps the other direction", func(t *testing.T) {
		s, err := open(t, handlers()).Open(t.Context(), "echo", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		go func() {
			s.Write(sent)
			s.CloseWrite()
		}()
		got, err := io.ReadAll(s)
		if err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("got %d bytes of %d, %v", len(got), len(sent), err)
		}
	})
	t.Run("what came with the response is read first, by io.Copy too", func(t *testing.T) {
		h := map[string]call.Handler{"greet": func(_ context.Context, c *call.Call) (any, error) {
			// One write, so that the host reads both at once.
			_, err := c.Write([]byte(`{"jsonrpc":"2.0","id":1,"result":{}}` + "\nhello"))
			return nil, errors.Join(err, c.Close())
		}}
		s, err := open(t, h).Open(t.Context(), "greet", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := io.Copy(&b, s); err != nil || !strings.HasPrefix(b.String(), "hello") {
			t.Fatalf("got %q, %v", b.String(), err)
		}
	})
	t.Run("closing a stream the agent floods frees both ends", func(t *testing.T) {
		ended := make(chan struct{})
		h := handlers()
		flood := h["flood"]
		h["flood"] = func(ctx context.Context, c *call.Call) (any, error) {
			defer close(ended)
			return flood(ctx, c)
		}
		c := open(t, h)
		s, err := c.Open(t.Context(), "flood", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.ReadFull(s, make([]byte, 100))
		s.Close()
		<-ended
		if n := c.Streams(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
		if err := c.Call(t.Context(), guestapi.MethodHello, nil, nil); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("the context of Open does not bound the stream", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s, err := open(t, handlers()).Open(ctx, "echo", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		cancel()
		s.Write([]byte("x"))
		if _, err := s.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestLink(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	t.Run("shares one connection", func(t *testing.T) {
		var dials int
		serve := guesttest.Serve(t, handlers())
		link := guest.NewLink(func(ctx context.Context) (net.Conn, error) { dials++; return serve(ctx) }, log)
		defer link.Close()
		var gets sync.WaitGroup
		for range 20 {
			gets.Go(func() {
				if _, err := link.Get(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		gets.Wait()
		if dials != 1 {
			t.Errorf("%d dials, want 1", dials)
		}
	})
	t.Run("connects again after a loss", func(t *testing.T) {
		var last net.Conn
		serve := guesttest.Serve(t, handlers())
		link := guest.NewLink(func(ctx context.Context) (conn net.Conn, err error) {
			last, err = serve(ctx)
			return last, err
		}, log)
		defer link.Close()
		c, err := link.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		last.Close()
		<-c.Done()
		if err := c.Call(t.Context(), guestapi.MethodHello, nil, nil); !errkind.Is(err, api.KindUnavailable) {
			t.Fatalf("error on a lost channel is %v of kind %v", err, errkind.Of(err))
		}
		c, err = link.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Call(t.Context(), guestapi.MethodHello, nil, nil); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("closing it ends a wait", func(t *testing.T) {
		dialing := make(chan struct{})
		link := guest.NewLink(func(ctx context.Context) (net.Conn, error) {
			close(dialing)
			<-ctx.Done()
			return nil, ctx.Err()
		}, log)
		go func() {
			<-dialing
			link.Close()
		}()
		if _, err := link.Get(t.Context()); err == nil {
			t.Fatal("no error")
		}
		if _, err := link.Get(t.Context()); !errkind.Is(err, api.KindUnavailable) {
			t.Fatalf("error after Close is %v", err)
		}
	})
}

func TestWaitReady(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	silent := func(ctx context.Context) (net.Conn, error) {
		host, far := net.Pipe()
		go io.Copy(io.Discard, far)
		t.Cleanup(func() { far.Close() })
		return host, nil
	}
	t.Run("an agent that answers", func(t *testing.T) {
		link := guest.NewLink(guesttest.Serve(t, handlers()), log)
		defer link.Close()
		h, err := guest.WaitReady(t.Context(), link, nil)
		if err != nil || h.VMID != "vm1" {
			t.Fatalf("hello is %+v, %v", h, err)
		}
	})
	t.Run("a guest that never answers is at fault", func(t *testing.T) {
		link := guest.NewLink(silent, log)
		defer link.Close()
		_, err := guest.WaitReady(t.Context(), link, nil, guest.AgentAnswers(20*time.Millisecond))
		if !errkind.Is(err, api.KindGuest) || !strings.Contains(err.Error(), "agent answering") {
			t.Fatalf("error is %v of kind %v", err, errkind.Of(err))
		}
	})
	t.Run("a guest that nobody listens in is at fault, where the dial waits for it", func(t *testing.T) {
		link := guest.NewLink(func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done()
			return nil, fmt.Errorf("nobody listens: %w", ctx.Err())
		}, log)
		defer link.Close()
		_, err := guest.WaitReady(t.Context(), link, nil, guest.AgentAnswers(20*time.Millisecond))
		if !errkind.Is(err, api.KindGuest) {
			t.Fatalf("error is %v of kind %v", err, errkind.Of(err))
		}
	})
	t.Run("a machine without a socket is the host's fault", func(t *testing.T) {
		link := guest.NewLink(func(context.Context) (net.Conn, error) { return nil, errors.New("no such socket") }, log)
		defer link.Close()
		_, err := guest.WaitReady(t.Context(), link, nil, guest.AgentAnswers(20*time.Millisecond))
		if !errkind.Is(err, api.KindUnavailable) || !strings.Contains(err.Error(), "no such socket") {
			t.Fatalf("error is %v of kind %v", err, errkind.Of(err))
		}
	})
	t.Run("a machine that ends does not keep anybody waiting", func(t *testing.T) {
		exited := make(chan struct{})
		close(exited)
		link := guest.NewLink(silent, log)
		defer link.Close()
		_, err := guest.WaitReady(t.Context(), link, exited)
		if !errkind.Is(err, api.KindGuest) || !strings.Contains(err.Error(), "machine ended") {
			t.Fatalf("error is %v of kind %v", err, errkind.Of(err))
		}
	})
	t.Run("a missing requirement is named, with the guest's own reason", func(t *testing.T) {
		h := handlers()
		h[guestapi.MethodHello] = func(context.Context, *call.Call) (any, error) {
			return guestapi.Hello{Warnings: []string{"bring up the network: no interface"}}, nil
		}
		link := guest.NewLink(guesttest.Serve(t, h), log)
		defer link.Close()
		_, err := guest.WaitReady(t.Context(), link, nil, guest.AgentAnswers(time.Minute), guest.NetworkUp(time.Minute))
		if !errkind.Is(err, api.KindGuest) || !strings.Contains(err.Error(), "network up: bring up the network: no interface") {
			t.Fatalf("error is %v of kind %v", err, errkind.Of(err))
		}
	})
	t.Run("the caller gives up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		link := guest.NewLink(silent, log)
		defer link.Close()
		if _, err := guest.WaitReady(ctx, link, nil); !errkind.Is(err, api.KindCanceled) {
			t.Fatalf("error is %v of kind %v", err, errkind.Of(err))
		}
	})
}
