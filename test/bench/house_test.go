package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/config"
)

// house is a banger of our own: programs, directories and daemon.
type house struct {
	bin     string
	scratch string // for what benchmarks make
	paths   config.Paths
	env     []string
}

// openHouse starts a daemon below root that logs its steps, and has it run a VM, for which it gets a kernel and an image.
func openHouse(root, scratch string) (*house, error) {
	h, err := newHouse(root, scratch)
	if err != nil {
		return nil, err
	}
	h.banger("daemon", "stop") //nolint:errcheck // mostly there is none; one that is would log too little
	if _, err := h.banger("run", "--rm", "--no-workspace", "--", "true"); err != nil {
		return nil, err
	}
	return h, nil
}

func newHouse(root, scratch string) (*house, error) {
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		return nil, err
	}
	paths, err := config.FindPaths(func(name string) (string, bool) { return root, name == "BANGER_ROOT" })
	if err != nil {
		return nil, err
	}
	return &house{bin: bin, scratch: scratch, paths: paths,
		env: append(os.Environ(), "BANGER_ROOT="+root, "BANGER_LOG_LEVEL=debug")}, nil
}

func (h *house) close() error {
	_, err := h.banger("daemon", "stop")
	return err
}

// banger runs the command line and returns its standard output.
func (h *house) banger(args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(h.bin, "banger"), args...)
	cmd.Env, cmd.Dir = h.env, h.scratch
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("banger %s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out)), nil
}

func (h *house) must(b *testing.B, args ...string) string {
	b.Helper()
	out, err := h.banger(args...)
	if err != nil {
		b.Fatal(err)
	}
	return out
}

// timed is how long a whole command takes.
func (h *house) timed(b *testing.B, args ...string) time.Duration {
	b.Helper()
	begun := time.Now()
	h.must(b, args...)
	return time.Since(begun)
}

func (h *house) dial(b *testing.B) *client.Client {
	b.Helper()
	c, err := client.Dial(b.Context(), h.paths.Socket(), client.Options{})
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// startVM creates and starts a VM that goes at the end of the benchmark.
func (h *house) startVM(b *testing.B, name string, flags ...string) {
	b.Helper()
	h.must(b, append([]string{"vm", "create", "--start", "--cold", "--name", name}, flags...)...)
	b.Cleanup(func() {
		if _, err := h.banger("vm", "delete", "--force", name); err != nil {
			b.Error(err)
		}
	})
}

// logSince returns what the daemon logged since mark, which [house.logMark] gave.
func (h *house) logSince(b *testing.B, mark int64) string {
	b.Helper()
	log, err := os.ReadFile(h.paths.DaemonLog())
	if err != nil {
		b.Fatal(err)
	}
	return string(log[mark:])
}

func (h *house) logMark(b *testing.B) int64 {
	b.Helper()
	st, err := os.Stat(h.paths.DaemonLog())
	if err != nil {
		b.Fatal(err)
	}
	return st.Size()
}

// took finds the durations of the log lines in which pattern matches.
func took(b *testing.B, log, pattern string) []time.Duration {
	b.Helper()
	var found []time.Duration
	for _, m := range regexp.MustCompile(`(?m)^.*`+pattern+`.* took=(\S+)`).FindAllStringSubmatch(log, -1) {
		d, err := time.ParseDuration(m[1])
		if err != nil {
			b.Fatal(err)
		}
		found = append(found, d)
	}
	if len(found) == 0 {
		b.Fatalf("the daemon's log has no line with %q", pattern)
	}
	return found
}

// spent is the processor time that the daemon and the machines it has seen end have used so far (proc_pid_stat(5)).
func spent(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const first, last = 11, 14 // utime, stime, cutime, cstime, counted from the state
	const tick = 10 * time.Millisecond
	var sum time.Duration
	for _, f := range fields[first : last+1] {
		n, err := strconv.Atoi(f)
		if err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(n) * tick
	}
	return sum
}

// machineArgs is the command line of the VMM that runs the VM.
func (h *house) machineArgs(ctx context.Context, c *client.Client, name string) ([]string, error) {
	vm, err := c.VMGet(ctx, name)
	if err != nil {
		return nil, err
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", vm.PID))
	return strings.Split(strings.TrimRight(string(line), "\x00"), "\x00"), err
}

// residentMiB is the resident memory of a process (proc_pid_status(5)).
func residentMiB(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	var kib float64
	m := regexp.MustCompile(`VmRSS:\s*(\d+) kB`).FindSubmatch(status)
	if m == nil {
		return 0, fmt.Errorf("process %d has no VmRSS", pid)
	}
	_, err = fmt.Sscan(string(m[1]), &kib)
	return kib / 1024, err
}
