package host

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// groupOf returns a directory that looks like a control group with the named files in it.
func groupOf(t *testing.T, dir string, files map[string]string) Cgroup {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Cgroup(dir)
}

func TestLimits(t *testing.T) {
	size := Limits{CPUs: 3, Memory: 1 << 30, Tasks: 40}
	read := func(t *testing.T, dir, name string) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	t.Run("what there is a controller for is limited, and the groups above pass it on", func(t *testing.T) {
		above := t.TempDir()
		home := filepath.Join(above, "home")
		groupOf(t, above, map[string]string{"cgroup.controllers": "cpuset pids\n", "cgroup.subtree_control": ""})
		groupOf(t, home, map[string]string{"cgroup.controllers": "pids\n", "cgroup.subtree_control": "pids\n"})
		g := groupOf(t, filepath.Join(home, "vm"), map[string]string{"pids.max": "max\n", "cpu.max": "max 100000\n", "cpu.weight": "100\n"})
		if err := g.Limit(size); err != nil {
			t.Fatal(err)
		}
		got := []string{read(t, above, "cgroup.subtree_control"), read(t, home, "cgroup.subtree_control"),
			read(t, string(g), "cpu.max")[:13], read(t, string(g), "cpu.weight")[:3], read(t, string(g), "pids.max")[:2]}
		if d := cmp.Diff([]string{"+pids", "pids\n", "300000 100000", "300", "40"}, got); d != "" {
			t.Error(d)
		}
		if _, err := os.Stat(filepath.Join(string(g), "memory.max")); err == nil {
			t.Error("a limit without a controller was made as a file")
		}
	})
	t.Run("a group that is not there yet lacks what the one above has not, and one that is there what it has not itself", func(t *testing.T) {
		above := string(groupOf(t, t.TempDir(), map[string]string{"cgroup.controllers": "cpu io memory\n"}))
		home := Cgroup(filepath.Join(above, "home"))
		if d := cmp.Diff([]string{"pids"}, home.Lacks()); d != "" {
			t.Error(d)
		}
		groupOf(t, string(home), map[string]string{"cgroup.controllers": "memory pids\n"})
		if d := cmp.Diff([]string{"cpu", "io"}, home.Lacks()); d != "" {
			t.Error(d)
		}
	})
	t.Run("a limit that the kernel refuses is an error", func(t *testing.T) {
		g := groupOf(t, filepath.Join(t.TempDir(), "home", "vm"), nil)
		if err := os.Mkdir(filepath.Join(string(g), "pids.max"), 0o700); err != nil { // which nobody can write to
			t.Fatal(err)
		}
		if err := g.Limit(size); err == nil || !strings.Contains(err.Error(), "pids.max") {
			t.Errorf("got %v", err)
		}
	})
}

func TestLimitsOfThisKernel(t *testing.T) {
	all := ours(t)
	if lacks := all.Lacks(); slices.Contains(lacks, "pids") {
		t.Skipf("the host's control groups of version 2 have no %s", strings.Join(lacks, ", "))
	}
	g := all.Child("one")
	if err := g.Make(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.End(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	if err := g.Limit(Limits{CPUs: 1, Memory: 64 << 20, Tasks: 1}); err != nil {
		t.Fatal(err)
	}
	if lacks := all.Lacks(); slices.Contains(lacks, "pids") {
		t.Fatalf("the groups lack %q", lacks)
	}
	// A shell that must start a program says on its own that it cannot fork, and does not end well.
	p, err := Detached{Argv: []string{"sh", "-c", "sleep 0; exit 0"}, Dir: "/", Group: g}.Start()
	if err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(); err != nil || st.Success() {
		t.Errorf("with one task, a shell started a second: %v, %v", st, err)
	}
}
