package daemon

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/banger-vm/banger/internal/rpcserver"
)

func TestAuthorize(t *testing.T) {
	own := uint32(os.Geteuid())
	for _, c := range []struct {
		name   string
		group  int
		caller rpcserver.Caller
		want   rpcserver.Class
	}{
		{"root may do everything", -1, rpcserver.Caller{UID: 0}, rpcserver.Admin},
		{"so may the daemon's user", -1, rpcserver.Caller{UID: own}, rpcserver.Admin},
		{"a member of the group may use it", 42, rpcserver.Caller{UID: own + 1000, Groups: []uint32{100, 42}}, rpcserver.Write},
		{"a stranger may not", 42, rpcserver.Caller{UID: own + 1000, Groups: []uint32{100}}, 0},
		{"without a group there are no members", -1, rpcserver.Caller{UID: own + 1000, Groups: []uint32{1<<32 - 1, 0}}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := (&Daemon{group: c.group}).authorize(c.caller); got != c.want {
				t.Errorf("got %v, want %v", int(got), int(c.want))
			}
		})
	}
}

func TestListen(t *testing.T) {
	mode := func(t *testing.T, group int) (os.FileMode, int) {
		path := filepath.Join(t.TempDir(), "s")
		if err := os.WriteFile(path, nil, 0o666); err != nil { // what a crash left
			t.Fatal(err)
		}
		l, err := listen(path, group)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return st.Mode().Perm(), int(st.Sys().(*syscall.Stat_t).Gid)
	}
	t.Run("without a group the socket is private", func(t *testing.T) {
		if m, _ := mode(t, -1); m != 0o600 {
			t.Errorf("mode %v", m)
		}
	})
	t.Run("with a group its members may connect, and nobody else", func(t *testing.T) {
		group := os.Getegid()
		if os.Geteuid() == 0 {
			group = 4242
		}
		if m, g := mode(t, group); m != 0o660 || g != group {
			t.Errorf("mode %v, group %d", m, g)
		}
	})
}
