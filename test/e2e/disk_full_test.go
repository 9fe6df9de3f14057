package e2e

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// small is the shared house as it is in a mount namespace of its own, where its directory is a tmpfs that holds a copy of the
// image and has little room besides.
type small struct {
	house
	ns string // the namespace, as nsenter(1) takes it
}

// room is how much is free on the tmpfs at first, in bytes.
const room = 128 << 20

func newSmall(t *testing.T) small {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a small file system")
	}
	h := guests(t)
	h.must(t, "daemon", "stop") // what is copied must hold still
	held := t.TempDir()
	script := `set -e
mount --bind "$1" "$2"
size=$(du -s --block-size=1 "$2/state/images" "$2/state/kernels" "$2/cache" | awk '{ sum += $1 } END { print sum }')
mount -t tmpfs -o "mode=700,size=$((size + $3))" tmpfs "$1"
cp -a --sparse=always "$2/state" "$2/cache" "$1/"
umount "$2"
echo ready
read -r end` // until the test closes standard input
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", h.root, held, fmt.Sprint(room))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() }) //nolint:errcheck // the namespace goes with its last process
	if said, err := io.ReadAll(io.LimitReader(out, 6)); err != nil || string(said) != "ready\n" {
		t.Fatalf("the small file system was not made: %q %v", said, err)
	}
	s := small{h, fmt.Sprintf("/proc/%d/ns/mnt", cmd.Process.Pid)}
	t.Cleanup(func() { s.run(t, "banger", "daemon", "stop") })
	return s
}

// run runs a program in the namespace and returns its exit status and what it said.
func (s small) run(t *testing.T, argv ...string) (int, string) {
	t.Helper()
	cmd := exec.Command("nsenter", append([]string{"--mount=" + s.ns, "--"}, argv...)...)
	cmd.Env = append(os.Environ(), "BANGER_ROOT="+s.root)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

func (s small) ok(t *testing.T, argv ...string) string {
	t.Helper()
	code, out := s.run(t, argv...)
	if code != 0 {
		t.Fatalf("%q: exit status %d\n%s", argv, code, out)
	}
	return strings.TrimSpace(out)
}

// fill takes all room but left bytes, until the returned function is called.
func (s small) fill(t *testing.T, left int64) (free func()) {
	t.Helper()
	ballast := filepath.Join(s.root, "ballast")
	s.ok(t, "sh", "-c", fmt.Sprintf("fallocate -l $(( $(stat -f -c '%%a * %%S' %s) - %d )) %s", s.root, left, ballast))
	return func() { s.ok(t, "rm", ballast) }
}

func TestFullHostDisk(t *testing.T) {
	s := newSmall(t)
	full := func(t *testing.T, argv ...string) {
		t.Helper()
		code, out := s.run(t, argv...)
		if code != 69 || !strings.Contains(strings.ToLower(out), "no space left on device") || !strings.Contains(out, "\nhint: ") {
			t.Errorf("%q: exit status %d\n%s", argv, code, out)
		}
		if left := s.ok(t, "sh", "-c", "ls -A "+s.root+"/state/vms; find "+s.root+"/state/images -name '.staging*'"); left != "" {
			t.Errorf("left: %s", left)
		}
	}
	create := []string{"banger", "vm", "create", "--start", "--name", "full", "--memory", "128M"}
	t.Run("a create on a full disk says so, leaves nothing, and succeeds when there is room again", func(t *testing.T) {
		s.ok(t, "banger", "daemon", "start")
		free := s.fill(t, 1<<20)
		full(t, create...)
		free()
		s.ok(t, create...)
		s.ok(t, "banger", "vm", "delete", "--force", "full")
	})
	t.Run("so does an image build", func(t *testing.T) {
		free := s.fill(t, 48<<20)
		defer free()
		full(t, "banger", "image", "build", "debian", "too-big")
		s.ok(t, "banger", "image", "list")
	})
	t.Run("a guest that writes to a full disk is halted, says so, and goes on when there is room again, with nothing lost", func(t *testing.T) {
		s.ok(t, create...)
		free := s.fill(t, 8<<20)
		ended := make(chan int, 1)
		go func() {
			code, _ := s.run(t, "banger", "exec", "full", "--", "dd", "if=/dev/urandom", "of=/root/big", "bs=1M", "count=64", "conv=fsync")
			ended <- code
		}()
		state := func() string {
			return s.ok(t, "banger", "vm", "show", "--format", "{{.State}}{{range .Conditions}} {{.Type}}: {{.Message}}{{end}}", "full")
		}
		eventually(t, "the condition", func() bool { return strings.HasPrefix(state(), "running disk: the guest is halted") })
		code, out := s.run(t, "banger", "exec", "full", "--", "true")
		if code != 69 || !strings.Contains(out, "the host's disk is full") || !strings.Contains(out, "\nhint: ") {
			t.Errorf("exit status %d\n%s", code, out)
		}
		free()
		if code := <-ended; code != 0 {
			t.Errorf("the command that wrote ended with %d", code)
		}
		if got := state(); got != "running" {
			t.Errorf("state %q", got)
		}
		if got := s.ok(t, "banger", "exec", "full", "--", "sh", "-c", "stat -c %s /root/big; dmesg | grep -i 'ext4.*error'; true"); got != fmt.Sprint(64<<20) {
			t.Errorf("got %q", got)
		}
		s.ok(t, "banger", "vm", "delete", "--force", "full")
	})
	t.Run("a daemon that cannot write its database says so at its start, and starts when there is room again", func(t *testing.T) {
		s.ok(t, "banger", "daemon", "stop")
		free := s.fill(t, 0)
		if code, out := s.run(t, "banger", "vm", "list"); code == 0 || !strings.Contains(out, "hint: ") {
			t.Errorf("exit status %d\n%s", code, out)
		}
		free()
		s.ok(t, "banger", "vm", "list")
	})
}
