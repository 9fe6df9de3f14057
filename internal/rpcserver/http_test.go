package rpcserver_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/rpcserver"
)

func TestHTTP(t *testing.T) {
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Method+" "+r.URL.Path) })
	for _, c := range []struct {
		name    string
		class   rpcserver.Class
		handler http.Handler
		want    int
	}{
		{"who may read gets the handler's answer", rpcserver.Read, hello, 200},
		{"who may not is refused", 0, hello, 403},
		{"a server without a handler has nothing", rpcserver.Admin, nil, 404},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := rpcserver.New(methods(), func(rpcserver.Caller) rpcserver.Class { return c.class }, slog.New(slog.DiscardHandler))
			s.HandleHTTP(c.handler)
			socket := serve(t, s)
			client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			}}}
			for range 2 {
				resp, err := client.Get("http://localhost/metrics")
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != c.want || !resp.Close {
					t.Errorf("status %d, want %d; close %v; %v", resp.StatusCode, c.want, resp.Close, err)
				}
				if c.want == 200 && string(body) != "GET /metrics" {
					t.Errorf("got %q", body)
				}
			}
			if _, err := call(t, socket, "t.read"); (err == nil) != (c.class >= rpcserver.Read) {
				t.Errorf("a call on the same socket: %v", err)
			}
		})
	}
}

// diary is an observer that writes down what it is told.
type diary struct {
	mu    sync.Mutex
	lines []string
	wrote chan struct{}
}

func (d *diary) write(line string) {
	d.mu.Lock()
	d.lines = append(d.lines, line)
	d.mu.Unlock()
	d.wrote <- struct{}{}
}

func (d *diary) CallEnded(method string, _ time.Duration, err error) {
	d.write(method + " " + string(errkind.Of(err)))
}

func (d *diary) StreamBegan(method string) func(error) {
	d.write(method + " begins")
	return func(err error) { d.write(method + " ends " + string(errkind.Of(err))) }
}

func TestObserver(t *testing.T) {
	broken := append(methods(), rpcserver.Call(rpcserver.Read, "t.broken", "Fails.",
		func(context.Context, api.Empty) (api.Ping, error) {
			return api.Ping{}, errkind.New(api.KindBusy, "busy")
		}))
	d := &diary{wrote: make(chan struct{}, 8)}
	s := rpcserver.New(broken, func(rpcserver.Caller) rpcserver.Class { return rpcserver.Write }, slog.New(slog.DiscardHandler))
	s.Observe(d)
	socket := serve(t, s)
	for _, step := range []struct {
		method string
		lines  []string
	}{
		{"t.read", []string{"t.read "}},
		{"t.broken", []string{"t.broken busy"}},
		{"t.admin", []string{"t.admin permission"}},
		{"t.stream", []string{"t.stream begins", "t.stream ends "}},
	} {
		d.lines = nil
		_, err := call(t, socket, step.method)
		var wire *api.Error
		if err != nil && !errors.As(err, &wire) {
			t.Fatalf("%s: %v", step.method, err)
		}
		for range step.lines {
			<-d.wrote
		}
		d.mu.Lock()
		if !slices.Equal(d.lines, step.lines) {
			t.Errorf("%s: told %q, want %q", step.method, d.lines, step.lines)
		}
		d.mu.Unlock()
	}
}
