package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Limits is what the members of a control group may have of the host, together.
type Limits struct {
	CPUs   int   // processors' worth of time; where that is short, other groups with as many get as much
	Memory int64 // bytes; files in the page cache count, and are dropped before anything is killed
	Tasks  int   // processes and threads
}

// cpuPeriod is the kernel's own, in microseconds.
const cpuPeriod = 100_000

// The share of processors that a group with one CPU asks for, and the largest one.
const (
	cpuWeight    = 100
	maxCPUWeight = 10_000
)

// limiting lists the controllers behind Limits. There is no limit behind io: groups that have it share a disk evenly.
func limiting() []string { return []string{"cpu", "io", "memory", "pids"} }

// Limit limits g, which has been made. What the kernel has no controller for, or does not let the caller use, stays without
// limit: Lacks tells.
func (g Cgroup) Limit(l Limits) error {
	if g == "" {
		return nil
	}
	home := filepath.Dir(string(g))
	delegate(filepath.Dir(home))
	delegate(home)
	var errs []error
	for _, f := range []struct{ name, value string }{
		{"cpu.max", fmt.Sprintf("%d %d", l.CPUs*cpuPeriod, cpuPeriod)},
		{"cpu.weight", strconv.Itoa(min(l.CPUs*cpuWeight, maxCPUWeight))},
		{"memory.max", strconv.FormatInt(l.Memory, 10)},
		{"pids.max", strconv.Itoa(l.Tasks)},
	} {
		if err := writeTo(filepath.Join(string(g), f.name), f.value); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// delegate gives the groups in dir what controllers dir has. It is refused where dir is not the caller's, and where dir is not
// the root and has members of its own ("no internal process constraint").
func delegate(dir string) {
	given := controllers(dir, "cgroup.subtree_control")
	for _, c := range controllers(dir, "cgroup.controllers") {
		if slices.Contains(limiting(), c) && !slices.Contains(given, c) {
			_ = writeTo(filepath.Join(dir, "cgroup.subtree_control"), "+"+c) // Lacks says what became of it
		}
	}
}

// Lacks names the controllers of Limits that the groups in g do without. Before g is made it says what can be expected.
func (g Cgroup) Lacks() []string {
	if g == "" {
		return limiting()
	}
	has := controllers(string(g), "cgroup.controllers")
	if _, err := os.Stat(string(g)); err != nil {
		has = controllers(filepath.Dir(string(g)), "cgroup.controllers")
	}
	return slices.DeleteFunc(limiting(), func(c string) bool { return slices.Contains(has, c) })
}

// controllers returns what a file of a group lists; a group that has no such file has none.
func controllers(dir, file string) []string {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b))
}

// writeTo writes to a file of the kernel's, which is not made.
func writeTo(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
