package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// output is what a program has printed so far.
type output struct {
	mu sync.Mutex // the program's copier writes while a test looks
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// client is a CLI that runs.
type client struct {
	t        *testing.T
	cmd      *exec.Cmd
	out, err output
}

// start starts the CLI in a process group of its own, so that nothing but the test sends it signals.
func (h house) start(t *testing.T, args ...string) *client {
	t.Helper()
	c := &client{t: t, cmd: h.command(args...)}
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.err
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.cmd.Process.Kill() }) //nolint:errcheck // it has ended, unless the test failed
	return c
}

// prints waits until the CLI has printed text on either output.
func (c *client) prints(text string) {
	c.t.Helper()
	eventually(c.t, text, func() bool { return strings.Contains(c.out.String()+c.err.String(), text) })
}

func (c *client) signal(s syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

// ends waits for the CLI's end and wants this exit status, -1 for a signal, and these patterns on standard error.
func (c *client) ends(code int, patterns ...string) {
	c.t.Helper()
	wait(c.cmd)
	if got := c.cmd.ProcessState.ExitCode(); got != code {
		c.t.Errorf("%q: exit status %d, want %d\n%s%s", c.cmd.Args[1:], got, code, c.out.String(), c.err.String())
	}
	for _, p := range patterns {
		if !regexp.MustCompile("(?m)" + p).MatchString(c.err.String()) {
			c.t.Errorf("%q: no %q on standard error:\n%s", c.cmd.Args[1:], p, c.err.String())
		}
	}
}

// wait waits for a program's end, and kills one that does not end.
func wait(cmd *exec.Cmd) {
	defer time.AfterFunc(3*time.Minute, func() { cmd.Process.Kill() }).Stop() //nolint:errcheck // it has just ended, then
	cmd.Wait()                                                                //nolint:errcheck // its status says it
}

// fails runs the CLI to its end, which is to be as ends says, with a hint.
func (h house) fails(t *testing.T, code int, pattern string, args ...string) {
	t.Helper()
	h.start(t, args...).ends(code, pattern, "^hint: ")
}

// fresh is a banger of its own, whose daemon is stopped at the end of the test, when nothing may be left.
func (h house) fresh(t *testing.T) house {
	t.Helper()
	root, err := os.MkdirTemp("", "bge") // short: sockets live below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	other := house{root: root, bin: h.bin}
	t.Cleanup(func() {
		other.banger("daemon", "stop") //nolint:errcheck // it may not run
		if left := other.left(); left != "" {
			t.Errorf("left behind:\n%s", left)
		}
	})
	return other
}

// empty wants that there is no VM, nor anything of one. The house may have other processes: its daemon.
func (h house) empty(t *testing.T) {
	t.Helper()
	if names := h.must(t, "vm", "list", "--quiet"); names != "" {
		t.Errorf("VMs are left: %s", names)
	}
	if left := h.left(); strings.Contains(left, "qemu") || strings.Contains(left, "/vms/") {
		t.Errorf("left behind:\n%s", left)
	}
}

// with restarts the daemon with failpoints and an empty log, until the end of the test.
func (h house) with(t *testing.T, points string) {
	t.Helper()
	h.banger("daemon", "stop") //nolint:errcheck // it may not run
	if err := os.Truncate(filepath.Join(h.root, "state/bangerd.log"), 0); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BANGER_FAILPOINTS", points)
	h.must(t, "daemon", "start")
	t.Cleanup(func() { h.banger("daemon", "stop") }) //nolint:errcheck // as above
}

// reaches waits until the VM called name is at a failpoint.
func (h house) reaches(t *testing.T, name, point string) {
	t.Helper()
	mark := []byte(fmt.Sprintf("msg=failpoint vm=%s step=%s\n", name, point))
	eventually(t, string(mark), func() bool {
		log, err := os.ReadFile(filepath.Join(h.root, "state/bangerd.log"))
		return err == nil && bytes.Contains(log, mark)
	})
}

// repository is a new git repository with one commit.
func repository(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "repo")
	git(t, "init", "-q", "-b", "main", dir)
	if err := os.WriteFile(filepath.Join(dir, "hello.txt"), []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	git(t, "-C", dir, "add", ".")
	git(t, "-C", dir, "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "commit", "-q", "-m", "first")
	return dir
}

func git(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, out)
	}
}
