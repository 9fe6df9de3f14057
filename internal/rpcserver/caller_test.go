package rpcserver_test

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/rpcserver"
)

// methods are one of each class, and a stream.
func methods() []rpcserver.Method {
	answer := func(context.Context, api.Empty) (api.Ping, error) { return api.Ping{PID: 7}, nil }
	return []rpcserver.Method{
		rpcserver.Call(rpcserver.Read, "t.read", "Reads.", answer),
		rpcserver.Call(rpcserver.Write, "t.write", "Writes.", answer),
		rpcserver.Call(rpcserver.Admin, "t.admin", "Administers.", answer),
		rpcserver.Stream[api.Empty, api.Ping](rpcserver.Write, rpcserver.Bytes, "t.stream", "Streams.",
			func(_ context.Context, _ api.Empty, c *rpcserver.Conn) error { return c.Accept(api.Ping{PID: 8}) }),
	}
}

// serve serves s on a socket until the test ends, and returns its path.
func serve(t *testing.T, s *rpcserver.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		l.Close()
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ended)
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return path
}

// call makes one call on a connection of its own.
func call(t *testing.T, socket, method string) (api.Ping, error) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var p api.Ping
	return p, api.StartCall(conn, bufio.NewReader(conn), method, api.Empty{}, &p)
}

func TestPermission(t *testing.T) {
	for _, class := range []rpcserver.Class{0, rpcserver.Read, rpcserver.Write, rpcserver.Admin} {
		name := "a caller who may do nothing"
		if class > 0 {
			name = "a caller of class " + class.String()
		}
		t.Run(name+" gets that far and no further, in calls and streams", func(t *testing.T) {
			s := rpcserver.New(methods(), func(rpcserver.Caller) rpcserver.Class { return class }, slog.New(slog.DiscardHandler))
			socket := serve(t, s)
			for _, m := range methods() {
				_, err := call(t, socket, m.Name)
				var wire *api.Error
				switch {
				case class >= m.Class && err != nil:
					t.Errorf("%s: %v", m.Name, err)
				case class < m.Class && (!errors.As(err, &wire) || wire.Kind != api.KindPermission || wire.Hint == ""):
					t.Errorf("%s: got %v, want kind permission with a hint", m.Name, err)
				}
			}
		})
	}
}

func TestCaller(t *testing.T) {
	t.Run("the kernel says who calls, with all groups", func(t *testing.T) {
		got := make(chan rpcserver.Caller, 1)
		s := rpcserver.New(methods(), func(c rpcserver.Caller) rpcserver.Class { got <- c; return rpcserver.Admin }, slog.New(slog.DiscardHandler))
		if _, err := call(t, serve(t, s), "t.read"); err != nil {
			t.Fatal(err)
		}
		caller := <-got
		groups, err := os.Getgroups()
		if err != nil {
			t.Fatal(err)
		}
		want := []uint32{uint32(os.Getegid())}
		for _, g := range groups {
			want = append(want, uint32(g))
		}
		if int(caller.UID) != os.Geteuid() || !slices.Equal(caller.Groups, want) {
			t.Errorf("got %+v, want uid %d, groups %v", caller, os.Geteuid(), want)
		}
	})
}
