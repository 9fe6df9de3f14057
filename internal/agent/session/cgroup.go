package session

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// cgroup is the cgroup of a session's processes; empty where the guest has none. See cgroup-v2.rst of the kernel.
type cgroup string

// newCgroup makes the cgroup of one session below root. A guest whose kernel cannot kill a cgroup (before 5.14) has none.
func newCgroup(root, id string) cgroup {
	if root == "" {
		return ""
	}
	g := cgroup(filepath.Join(root, id))
	if os.MkdirAll(string(g), 0o755) != nil || unix.Access(g.file("cgroup.kill"), unix.W_OK) != nil {
		_ = os.Remove(string(g))
		return ""
	}
	return g
}

func (g cgroup) file(name string) string { return filepath.Join(string(g), name) }

// open returns the directory to start a process in, nil without a cgroup.
func (g cgroup) open() *os.File {
	if g == "" {
		return nil
	}
	f, err := os.Open(string(g))
	if err != nil {
		return nil
	}
	return f
}

// kill kills every process in the group.
func (g cgroup) kill() {
	if g != "" {
		_ = os.WriteFile(g.file("cgroup.kill"), []byte("1"), 0) // one that is gone has no processes
	}
}

// removeWait is how long processes that were killed may take to leave a cgroup.
const removeWait = 5 * time.Second

// remove kills what is left in the group, and removes it. A cgroup has processes until they were reaped.
func (g cgroup) remove() {
	if g == "" {
		return
	}
	g.kill()
	deadline := time.Now().Add(removeWait)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := os.Remove(string(g))
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return
		}
		time.Sleep(pause)
	}
}
