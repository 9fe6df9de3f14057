// Package e2e runs banger's programs as a user does, against real guests. The scripts in testdata read like sessions; the
// tests in Go kill what a script cannot.
//
// All tests share one daemon and one image, in a directory of their own below the system's temporary one, or in
// BANGER_E2E_ROOT, where the image stays for the next run. At the end the daemon is stopped and nothing may be left: see
// TestMain.
package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// house is where the tests' banger lives.
type house struct{ root, bin string }

var shared house //nolint:gochecknoglobals // TestMain's hand to the tests

func TestMain(m *testing.M) {
	if at := os.Getenv(worldEnv); at != "" {
		os.Exit(world(at))
	}
	flag.Parse()
	if testing.Short() {
		os.Exit(m.Run())
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	root := os.Getenv("BANGER_E2E_ROOT")
	if root == "" {
		dir, err := os.MkdirTemp("", "bge")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		root = dir
	}
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	shared = house{root: root, bin: bin}
	os.Setenv("BANGER_ROOT", root)
	os.Setenv("BANGER_WARM_STARTS", "false") // most tests are about boots; those in warm_test.go are not
	os.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	status := m.Run()
	if status != 0 { // a test that failed may have left VMs, whose machines would outlive the daemon
		if names, err := shared.banger("vm", "list", "-q"); err == nil && names != "" {
			shared.banger(append([]string{"vm", "delete", "--force"}, strings.Fields(names)...)...) //nolint:errcheck // what is left is reported
		}
	}
	if out, err := shared.banger("daemon", "stop"); err != nil {
		fmt.Fprintf(os.Stderr, "stop the daemon: %v\n%s", err, out)
		status = 1
	}
	if left := shared.left(); left != "" {
		fmt.Fprintf(os.Stderr, "the tests left behind:\n%s", left)
		status = 1
	}
	return status
}

// banger runs the CLI and returns both its outputs.
func (h house) banger(args ...string) (string, error) {
	out, err := h.command(args...).CombinedOutput()
	return string(out), err
}

// command is a CLI that is not started yet.
func (h house) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(h.bin, "banger"), args...)
	cmd.Env = append(os.Environ(), "BANGER_ROOT="+h.root)
	return cmd
}

func (h house) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := h.banger(args...)
	if err != nil {
		t.Fatalf("banger %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

// left lists the processes that name the tests' directory, and the VMs' directories.
func (h house) left() string {
	var b strings.Builder
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err.Error()
	}
	for _, path := range lines {
		if line, err := os.ReadFile(path); err == nil && bytes.Contains(line, []byte(h.root)) {
			fmt.Fprintf(&b, "%s: %s\n", path, bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
		}
	}
	for _, sub := range []string{"state/vms/*", "run/vms/*", "state/templates/making-*", "run/templates/*", "state/scratch/*", "run/scratch/*"} {
		dirs, err := filepath.Glob(filepath.Join(h.root, sub))
		if err != nil {
			return err.Error()
		}
		for _, dir := range dirs {
			fmt.Fprintln(&b, dir)
		}
	}
	return b.String()
}

// guests returns the shared house with an image and a kernel in it, or skips a test that boots guests in short mode.
func guests(t *testing.T) house {
	t.Helper()
	if testing.Short() {
		t.Skip("short: boots guests")
	}
	if shared.must(t, "image", "list", "--quiet") == "" || shared.must(t, "kernel", "list", "--quiet") == "" {
		shared.must(t, "vm", "create", "--name", "first") // builds and imports the default ones
		shared.must(t, "vm", "delete", "first")
	}
	return shared
}

// serveLocally is a guest's shell command that answers on port 80 of its loopback; getPort is a host's that asks port $0.
const (
	serveLocally = `nohup perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 80, Listen => 9, ReuseAddr => 1);
		open my $r, ">", "/run/serving"; while (my $c = $s->accept) { my $l = <$c>; print $c "from the guest\n"; close $c }' >/dev/null 2>&1 &
		until [ -e /run/serving ]; do sleep 0.05; done`
	getPort = `exec 3<>/dev/tcp/127.0.0.1/$0 && echo hello >&3 && cat <&3`
)

// TestScripts runs the scripts side by side on the shared daemon: none may stop it. TestCrashes does that, alone.
func TestScripts(t *testing.T) {
	guests(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("BANGER_ROOT", shared.root)
			env.Setenv("SERVER", serveLocally)
			env.Setenv("GET", getPort)
			for _, v := range []string{"GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"} {
				env.Setenv(v, "Ada")
			}
			for _, v := range []string{"GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"} {
				env.Setenv(v, "ada@example.org")
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": status},
	})
}

// status runs a command and checks its exit status: status N COMMAND [ARG...].
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND [ARG...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit, ok := err.(*exec.ExitError); ok {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("status %d, want %s", code, args[0])
	}
}

// field returns one field of `banger vm show`, by Go template.
func (h house) field(t *testing.T, vm, template string) string {
	t.Helper()
	return h.must(t, "vm", "show", "--format", template, vm)
}

// eventually waits until ok, which a background task of the daemon brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 1200 {
		if ok() {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	t.Fatalf("not seen in time: %s", what)
}
