package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestCgroupPath(t *testing.T) {
	const (
		pure   = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
		hybrid = "40 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n41 30 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
		old    = "40 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
	)
	for _, c := range []struct {
		name, mounts, self string
		want               []string
	}{
		{"the root comes first, our own group last", pure, "0::/user.slice/user-1000.slice\n",
			[]string{"/sys/fs/cgroup", "/sys/fs/cgroup/user.slice", "/sys/fs/cgroup/user.slice/user-1000.slice"}},
		{"beside version 1 the second version's mount and line count", hybrid, "4:memory:/jail\n0::/\n", []string{"/sys/fs/cgroup/unified"}},
		{"a group above our namespace's root is out of reach", pure, "0::/../other\n", []string{"/sys/fs/cgroup"}},
		{"version 1 alone has none", old, "4:memory:/jail\n", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.want, cgroupPath(c.mounts, c.self)); d != "" {
				t.Error(d)
			}
		})
	}
}

// ours returns a group for this test, which nothing is left of at its end.
func ours(t *testing.T) Cgroup {
	t.Helper()
	g, err := FindCgroup("banger-test-" + strconv.Itoa(os.Getpid()))
	if err != nil {
		t.Skipf("%v", err)
	}
	t.Cleanup(func() {
		if _, err := os.Stat(string(g)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("left: %s, %v", g, err)
		}
	})
	return g
}

func members(t *testing.T, g Cgroup) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(string(g), "cgroup.procs"))
	if err != nil {
		t.Error(err)
	}
	return strings.Fields(string(b))
}

func TestCgroup(t *testing.T) {
	t.Run("a program is born in its group, and the group's end is its own", func(t *testing.T) {
		g := ours(t).Child("one")
		if err := g.Make(); err != nil {
			t.Fatal(err)
		}
		p, err := Detached{Argv: []string{"sleep", "1000"}, Dir: "/", Group: g}.Start()
		if err != nil {
			t.Fatal(errors.Join(err, g.End(t.Context())))
		}
		if got := members(t, g); len(got) != 1 || got[0] != strconv.Itoa(p.Pid) {
			t.Errorf("members %q, want %d", got, p.Pid)
		}
		if err := g.End(t.Context()); err != nil {
			t.Error(err)
		}
		st, err := p.Wait()
		if err != nil || st.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Errorf("the program: %v, %v", st, err)
		}
		if err := g.End(t.Context()); err != nil {
			t.Errorf("a second end: %v", err)
		}
	})
	t.Run("a group that is in use is neither swept nor removed", func(t *testing.T) {
		all := ours(t)
		used, empty := all.Child("used"), all.Child("empty")
		if err := errors.Join(used.Make(), empty.Make()); err != nil {
			t.Fatal(err)
		}
		p, err := Detached{Argv: []string{"sleep", "1000"}, Dir: "/", Group: used}.Start()
		if err != nil {
			t.Fatal(errors.Join(err, all.Sweep()))
		}
		if names, err := all.Empty(); err != nil || !slices.Equal(names, []string{filepath.Base(string(empty))}) {
			t.Errorf("empty are %q, %v", names, err)
		}
		if err := all.Sweep(); err != nil {
			t.Error(err)
		}
		if err := used.Remove(); !errkind.Is(err, api.KindBusy) {
			t.Errorf("removing the used group: %v", err)
		}
		if _, err := os.Stat(string(empty)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the empty group: %v", err)
		}
		if got := members(t, used); len(got) != 1 {
			t.Errorf("the used group has %q", got)
		}
		if err := used.End(t.Context()); err != nil {
			t.Error(err)
		}
		p.Wait() //nolint:errcheck // killed
	})
	t.Run("an end that takes too long is given up with its context", func(t *testing.T) {
		g := ours(t).Child("parent")
		if err := g.Child("inner").Make(); err != nil { // it keeps the group busy
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := g.End(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if err := errors.Join(unix.Rmdir(filepath.Join(string(g), "inner")), g.End(t.Context())); err != nil {
			t.Error(err)
		}
	})
	t.Run("no group is a group of which nothing is asked", func(t *testing.T) {
		var none Cgroup
		if err := errors.Join(none.Make(), none.Sweep(), none.Remove(), none.End(t.Context())); err != nil || none.Child("x") != "" {
			t.Errorf("child %q, %v", none.Child("x"), err)
		}
	})
}
