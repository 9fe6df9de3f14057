package rpcserver

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
)

// serve serves methods to a caller of class and returns a connection.
func serve(t *testing.T, class Class, methods ...Method) *net.UnixConn {
	t.Helper()
	addr := &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"}
	l, err := net.ListenUnix("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := New(methods, func(Caller) Class { return class }, slog.New(slog.DiscardHandler))
	served := make(chan error)
	go func() { served <- s.Serve(context.Background(), l) }()
	conn, err := net.DialUnix("unix", nil, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		l.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
		s.Shutdown(context.Background())
	})
	return conn
}

func say(t *testing.T, conn net.Conn, lines ...string) {
	t.Helper()
	if _, err := io.WriteString(conn, strings.Join(lines, "\n")+"\n"); err != nil {
		t.Fatal(err)
	}
}

func answer(t *testing.T, r *bufio.Reader) api.Response {
	t.Helper()
	var resp api.Response
	if err := api.ReadLine(r, &resp); err != nil {
		t.Fatal(err)
	}
	return resp
}

// waiting is a call that tells when it begins, and ends with release or its context.
type waiting struct {
	begun   chan struct{}
	release chan struct{}
	ended   chan error
}

func newWaiting() *waiting {
	return &waiting{make(chan struct{}), make(chan struct{}), make(chan error, 1)}
}

func (w *waiting) method(name string) Method {
	return Call(Read, name, "Waits.", func(ctx context.Context, _ api.Empty) (api.Empty, error) {
		close(w.begun)
		select {
		case <-w.release:
			w.ended <- nil
			return api.Empty{}, nil
		case <-ctx.Done():
			w.ended <- context.Cause(ctx)
			return api.Empty{}, ctx.Err()
		}
	})
}

func TestTheEndOfTheClient(t *testing.T) {
	const call, notify = `{"jsonrpc":"2.0","id":1,"method":"test.wait"}`, `{"jsonrpc":"2.0","method":"test.other"}`

	t.Run("a client that has said everything gets its answers, then the end", func(t *testing.T) {
		w, other := newWaiting(), newWaiting()
		close(other.release)
		conn := serve(t, Read, w.method("test.wait"), other.method("test.other"))
		say(t, conn, call, notify)
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		<-w.begun
		<-other.ended
		close(w.release)
		r := bufio.NewReader(conn)
		if resp := answer(t, r); resp.Error != nil || string(resp.ID) != "1" {
			t.Errorf("got %+v", resp)
		}
		if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
			t.Errorf("after the answer: %q, %v", rest, err)
		}
	})

	t.Run("a client that says nothing more and owes nothing is let go", func(t *testing.T) {
		conn := serve(t, Read)
		say(t, conn, `{"jsonrpc":"2.0","id":1,"method":"no.such"}`)
		r := bufio.NewReader(conn)
		if resp := answer(t, r); resp.Error == nil || api.KindOfCode(resp.Error.Code) != api.KindInvalid {
			t.Errorf("got %+v", resp)
		}
		conn.CloseWrite()
		if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
			t.Errorf("after the answer: %q, %v", rest, err)
		}
	})

	t.Run("a client that is gone cancels its calls", func(t *testing.T) {
		w := newWaiting()
		conn := serve(t, Read, w.method("test.wait"))
		say(t, conn, call)
		<-w.begun
		conn.Close()
		if err := <-w.ended; err == nil {
			t.Error("the call was not cancelled")
		}
	})

	t.Run("a client that ends its side first and then goes cancels its calls", func(t *testing.T) {
		w := newWaiting()
		conn := serve(t, Read, w.method("test.wait"))
		say(t, conn, call)
		conn.CloseWrite()
		<-w.begun
		conn.Close()
		if err := <-w.ended; err == nil {
			t.Error("the call was not cancelled")
		}
	})
}

func TestWhatAServerRefuses(t *testing.T) {
	calls := func(class Class) Method {
		return Call(class, "test.call", "Calls.", func(context.Context, api.Empty) (api.Empty, error) { return api.Empty{}, nil })
	}
	stream := Stream[api.Empty, api.Empty](Write, Bytes, "test.stream", "Streams.",
		func(_ context.Context, _ api.Empty, c *Conn) error { return c.Accept(api.Empty{}) })
	for name, tc := range map[string]struct {
		class Class
		lines []string // the last one's answer is looked at
		kind  api.ErrorKind
		says  string
	}{
		"a call above the caller's class":       {Read, []string{`{"jsonrpc":"2.0","id":1,"method":"test.call"}`}, api.KindPermission, "you may not call test.call"},
		"a stream above the caller's class":     {Read, []string{`{"jsonrpc":"2.0","id":1,"method":"test.stream"}`}, api.KindPermission, "you may not call test.stream"},
		"a stranger":                            {0, []string{`{"jsonrpc":"2.0","id":1,"method":"test.call"}`}, api.KindPermission, "you may not call test.call"},
		"a line that is no request":             {Admin, []string{`hello`}, api.KindInvalid, ""},
		"a method that there is not":            {Admin, []string{`{"jsonrpc":"2.0","id":1,"method":"test.none"}`}, api.KindInvalid, `there is no method "test.none"`},
		"parameters that have no names":         {Admin, []string{`{"jsonrpc":"2.0","id":1,"method":"test.call","params":[1]}`}, api.KindInvalid, "parameters of test.call"},
		"parameters that are no structure":      {Admin, []string{`{"jsonrpc":"2.0","id":1,"method":"test.call","params":1}`}, api.KindInvalid, ""},
		"a request of another JSON-RPC":         {Admin, []string{`{"id":1,"method":"test.call"}`}, api.KindInvalid, ""},
		"an unknown parameter of a stream":      {Admin, []string{`{"jsonrpc":"2.0","id":1,"method":"test.stream","params":{"x":1}}`}, api.KindInvalid, `"x"`},
		"a stream on a connection that had one": {Admin, []string{`{"jsonrpc":"2.0","id":1,"method":"test.call"}`, `{"jsonrpc":"2.0","id":2,"method":"test.stream"}`}, api.KindInvalid, "first line"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := serve(t, tc.class, calls(Write), stream)
			r := bufio.NewReader(conn)
			var resp api.Response
			for _, line := range tc.lines {
				say(t, conn, line)
				resp = answer(t, r)
			}
			if resp.Error == nil {
				t.Fatalf("no error: %s", resp.Result)
			}
			var wire *api.Error
			if !errors.As(resp.Error.Err(), &wire) || wire.Kind != tc.kind || !strings.Contains(wire.Message, tc.says) {
				t.Errorf("got %#v", resp.Error.Err())
			}
		})
	}
}

func TestNotificationsAreNotAnswered(t *testing.T) {
	for line, want := range map[string]bool{
		`{"jsonrpc":"2.0","id":1,"method":"m"}`: true, `{"jsonrpc":"2.0","method":"m"}`: false, `hello`: true,
		`[{"jsonrpc":"2.0","id":1,"method":"m"}]`: true,
	} {
		if got := wantsAnswer(json.RawMessage(line)); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}
