package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"golang.org/x/sys/unix"
)

// Cgroup is the path of a control group of version 2 (Documentation/admin-guide/cgroup-v2.rst). The empty one stands for none:
// its methods do nothing.
type Cgroup string

// FindCgroup returns where a group called name can be made, for members that must not die with the caller: as near to the
// root of the hierarchy as the caller may write, so above the service or session that it runs in. Nothing is made. Where it
// may write nowhere, as an ordinary user without delegation, the error says so.
func FindCgroup(name string) (Cgroup, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for _, dir := range cgroupPath(string(mounts), string(self)) {
		if unix.Access(dir, unix.W_OK|unix.X_OK) == nil && unix.Access(filepath.Join(dir, "cgroup.procs"), unix.W_OK) == nil {
			return Cgroup(filepath.Join(dir, name)), nil
		}
	}
	return "", errkind.New(api.KindUnavailable, "no control group of version 2 that may be written to")
}

// cgroupPath returns the directories of the caller's control groups, from the root of the hierarchy to its own.
func cgroupPath(mountinfo, self string) []string {
	var root string
	for line := range strings.Lines(mountinfo) { // proc_pid_mountinfo(5)
		f := strings.Fields(line)
		if _, fs, ok := strings.Cut(line, " - "); ok && strings.HasPrefix(fs, "cgroup2 ") && len(f) > 4 {
			root = f[4]
		}
	}
	if root == "" {
		return nil
	}
	dirs := []string{root}
	for line := range strings.Lines(self) { // cgroups(7)
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::/")
		if !ok || path == "" || strings.HasPrefix(path, "..") { // above the root of our namespace
			continue
		}
		for part := range strings.SplitSeq(path, "/") {
			dirs = append(dirs, filepath.Join(dirs[len(dirs)-1], part))
		}
	}
	return dirs
}

// Child returns the group called name in g. It is not made.
func (g Cgroup) Child(name string) Cgroup {
	if g == "" {
		return ""
	}
	return Cgroup(filepath.Join(string(g), name))
}

// Make makes g and the group that it is in. One that exists is fine.
func (g Cgroup) Make() error {
	if g == "" {
		return nil
	}
	err := os.MkdirAll(string(g), 0o755)
	for n := 0; errors.Is(err, os.ErrNotExist) && n < 10; n++ { // a Remove took the parent away in between
		err = os.MkdirAll(string(g), 0o755)
	}
	return err
}

// Remove removes g, and the group that it is in when that is empty then. A group that has members is of kind busy and is left
// alone; one that does not exist is fine.
func (g Cgroup) Remove() error {
	if g == "" {
		return nil
	}
	err := unix.Rmdir(string(g))
	if errors.Is(err, unix.EBUSY) {
		return errkind.New(api.KindBusy, "control group %s is in use", g)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "remove control group", Path: string(g), Err: err}
	}
	_ = unix.Rmdir(filepath.Dir(string(g))) // busy while others are in it
	return nil
}

// End kills the members of g and removes it. It waits for them until ctx ends.
func (g Cgroup) End(ctx context.Context) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := g.Remove()
		if !errkind.Is(err, api.KindBusy) {
			return err
		}
		// Kernels before 5.14 have no such file: then the wait is for those that end by themselves.
		_ = os.WriteFile(filepath.Join(string(g), "cgroup.kill"), []byte("1"), 0)
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove control group %s: %w", g, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// Empty returns the names of the groups in g that have no members.
func (g Cgroup) Empty() ([]string, error) {
	if g == "" {
		return nil, nil
	}
	events, err := filepath.Glob(filepath.Join(string(g), "*", "cgroup.events"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, path := range events {
		b, err := os.ReadFile(path) // one that was removed meanwhile cannot be read
		if err == nil && strings.Contains(string(b), "populated 0\n") {
			names = append(names, filepath.Base(filepath.Dir(path)))
		}
	}
	return names, nil
}

// Sweep removes the groups in g that are empty: what a crash left. The others are in use.
func (g Cgroup) Sweep() error {
	entries, err := os.ReadDir(string(g))
	if g == "" || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue // a file of the kernel's
		}
		if e := g.Child(e.Name()).Remove(); !errkind.Is(e, api.KindBusy) {
			err = errors.Join(err, e)
		}
	}
	_ = unix.Rmdir(string(g)) // busy while one is in use
	return err
}
