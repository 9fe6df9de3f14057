package web_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/web"
)

func handler() http.Handler {
	return web.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "metrics\n") }))
}

// serve serves on a free port until the test ends, and returns host and port.
func serve(t *testing.T) string {
	t.Helper()
	s, err := web.Listen("127.0.0.1:0", false, handler(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s.Addr().String()
}

// ask makes a request with that Host and returns the status.
func ask(t *testing.T, address, method, path, host string) int {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func TestServer(t *testing.T) {
	address := serve(t)
	for _, c := range []struct {
		name, method, path, host string
		want                     int
	}{
		{"metrics are served", "GET", "/metrics", address, 200},
		{"also to one who says localhost", "GET", "/metrics", "localhost:80", 200},
		{"and to an IPv6 address without a port", "GET", "/metrics", "[::1]", 200},
		{"a name that leads here is refused", "GET", "/metrics", "evil.example:80", 421},
		{"also one that looks like an address", "GET", "/metrics", "127.0.0.1.evil.example", 421},
		{"nothing else is there", "GET", "/", address, 404},
		{"nothing can be changed", "POST", "/metrics", address, 405},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := ask(t, address, c.method, c.path, c.host); got != c.want {
				t.Errorf("status %d, want %d", got, c.want)
			}
		})
	}
}

func TestListen(t *testing.T) {
	taken := serve(t)
	for _, c := range []struct {
		name, address string
		kind          api.ErrorKind
		hint          string
	}{
		{"an address of every interface", "0.0.0.0:0", api.KindInvalid, "metrics_public"},
		{"no address, which is every interface", ":0", api.KindInvalid, "metrics_public"},
		{"a name", "host.example:0", api.KindInvalid, "metrics_public"},
		{"no port", "127.0.0.1", api.KindInvalid, "127.0.0.1:9190"},
		{"a port that is taken", taken, api.KindUnavailable, "another address"},
	} {
		t.Run(c.name+" is refused, with a hint", func(t *testing.T) {
			_, err := web.Listen(c.address, false, handler(), slog.New(slog.DiscardHandler))
			if !errkind.Is(err, c.kind) || !strings.Contains(errkind.Hint(err), c.hint) {
				t.Errorf("got %v (%s), hint %q", err, errkind.Of(err), errkind.Hint(err))
			}
		})
	}
	t.Run("who insists may listen on every interface", func(t *testing.T) {
		s, err := web.Listen("0.0.0.0:0", true, handler(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
}
