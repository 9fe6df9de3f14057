package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func (h house) daemonPID(t *testing.T) int {
	t.Helper()
	pid, err := strconv.Atoi(h.must(t, "daemon", "status", "--format", "{{.PID}}"))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func kill9(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func TestCrashes(t *testing.T) {
	h := guests(t)
	t.Run("a VM outlives its daemon, killed or stopped, and is adopted with the same boot and its published port", func(t *testing.T) {
		h.must(t, "vm", "create", "--start", "--name", "survivor", "--memory", "256M", "--publish", "48084:80")
		defer h.must(t, "vm", "delete", "--force", "survivor")
		bootID := h.must(t, "exec", "survivor", "--", "cat", "/proc/sys/kernel/random/boot_id")
		kill9(t, h.daemonPID(t))
		if got := h.must(t, "exec", "survivor", "--", "cat", "/proc/sys/kernel/random/boot_id"); got != bootID {
			t.Errorf("after kill -9: boot id %q, was %q", got, bootID)
		}
		h.must(t, "daemon", "stop")
		if got := h.must(t, "exec", "survivor", "--", "cat", "/proc/sys/kernel/random/boot_id"); got != bootID {
			t.Errorf("after stop: boot id %q, was %q", got, bootID)
		}
		h.must(t, "exec", "survivor", "--", "sh", "-c", serveLocally)
		h.must(t, "daemon", "stop")
		h.must(t, "vm", "list")
		if out, err := exec.Command("bash", "-c", getPort, "48084").CombinedOutput(); err != nil || string(out) != "from the guest\n" {
			t.Errorf("the published port, after another daemon has come: %v, %q", err, out)
		}
	})
	t.Run("a VM whose QEMU is killed has failed, says so, and starts again", func(t *testing.T) {
		h.must(t, "vm", "create", "--start", "--name", "victim", "--memory", "256M")
		defer h.must(t, "vm", "delete", "--force", "victim")
		pid, err := strconv.Atoi(h.field(t, "victim", "{{.PID}}"))
		if err != nil {
			t.Fatal(err)
		}
		kill9(t, pid)
		eventually(t, "state failed", func() bool { return h.field(t, "victim", "{{.State}}") == "failed" })
		if why := h.field(t, "victim", "{{.LastError}}"); !strings.Contains(why, "killed") {
			t.Errorf("last error %q", why)
		}
		h.must(t, "vm", "start", "victim")
		h.must(t, "vm", "stop", "victim")
	})
	t.Run("a guest whose kernel panics has failed, and the reason is the panic", func(t *testing.T) {
		h.must(t, "vm", "create", "--start", "--name", "panic", "--memory", "256M")
		defer h.must(t, "vm", "delete", "--force", "panic")
		h.banger("exec", "panic", "--", "sh", "-c", "echo c > /proc/sysrq-trigger") //nolint:errcheck // it is cut off
		eventually(t, "state failed", func() bool { return h.field(t, "panic", "{{.State}}") == "failed" })
		if why := h.field(t, "panic", "{{.LastError}}"); !strings.Contains(why, "panic") {
			t.Errorf("last error %q", why)
		}
	})
	for _, step := range []string{"disks.attach", "nic.attach", "auth.attach", "boot.attach", "machine.attach", "agent.attach", "ports.attach"} {
		for _, at := range []string{step, step + ".done"} {
			t.Run("a daemon killed at "+at+" of a create leaves nothing, and the same create then succeeds", func(t *testing.T) {
				h.must(t, "daemon", "stop")
				t.Setenv("BANGER_FAILPOINTS", at+"=kill")
				if out, err := h.banger("vm", "create", "--start", "--name", "again", "--memory", "256M"); err == nil {
					t.Fatalf("the create succeeded although the daemon was killed:\n%s", out)
				}
				os.Unsetenv("BANGER_FAILPOINTS")
				if names := h.must(t, "vm", "list", "--quiet"); names != "" {
					t.Errorf("VMs are left: %s", names)
				}
				if left := h.left(); strings.Contains(left, "qemu") || strings.Contains(left, "/vms/") {
					t.Errorf("left behind:\n%s", left)
				}
				if at != step {
					return // one whole create a step is proof enough
				}
				h.must(t, "vm", "create", "--start", "--name", "again", "--memory", "256M")
				h.must(t, "vm", "delete", "--force", "again")
			})
		}
	}
}

func TestBuildCrashes(t *testing.T) {
	h := guests(t)
	recipe := filepath.Join(t.TempDir(), "crashed.toml")
	if err := os.WriteFile(recipe, []byte("base = \"debian\"\n[[step]]\nrun = \"echo made > /made\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{"disks.attach.done", "machine.attach.done", "scratch.booted", "scratch.done", "scratch.stopped", "scratch.taken"} {
		t.Run("a daemon killed at "+step+" of a build leaves neither image nor machine", func(t *testing.T) {
			h.must(t, "daemon", "stop")
			t.Setenv("BANGER_FAILPOINTS", step+"=kill")
			if out, err := h.banger("image", "build", "-f", recipe); err == nil {
				t.Fatalf("the build succeeded although the daemon was killed:\n%s", out)
			}
			os.Unsetenv("BANGER_FAILPOINTS")
			if names := h.must(t, "image", "list", "--quiet"); strings.Contains(names, "crashed") {
				t.Errorf("half an image: %s", names)
			}
			for _, dir := range []string{"state/scratch", "run/scratch", "state/images/.staging-"} {
				if left, err := filepath.Glob(filepath.Join(h.root, dir) + "*/*"); err != nil || len(left) > 0 {
					t.Errorf("left behind: %v %v", left, err)
				}
			}
			if left := h.left(); strings.Contains(left, "qemu") {
				t.Errorf("left behind:\n%s", left)
			}
		})
	}
	h.must(t, "image", "build", "-f", recipe)
	defer h.must(t, "image", "delete", "crashed")
	if got := h.must(t, "vm", "run", "--rm", "--quiet", "--no-workspace", "--memory", "256M", "--image", "crashed", "--", "cat", "/made"); got != "made" {
		t.Errorf("the guest has %q", got)
	}
}

func TestKilledClient(t *testing.T) {
	h := guests(t)
	t.Run("when the client of vm run --rm is killed, its work is saved as a patch and its VM goes", func(t *testing.T) {
		repo := t.TempDir()
		for _, args := range [][]string{
			{"init", "-q", repo}, {"-C", repo, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "first"},
		} {
			if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
				t.Fatalf("git %v: %v\n%s", args, err, out)
			}
		}
		cmd := exec.Command(filepath.Join(h.bin, "banger"), "vm", "run", "--rm", "--name", "orphan", repo, "--",
			"sh", "-c", "echo precious > work.txt; echo written; sleep 1000")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		kill9(t, cmd.Process.Pid)
		cmd.Wait() //nolint:errcheck // it was killed
		eventually(t, "the orphan is gone", func() bool { return h.must(t, "vm", "list", "--quiet") == "" })
		patches, err := filepath.Glob(filepath.Join(h.root, "state/patches/*orphan*.patch"))
		if err != nil || len(patches) != 1 {
			t.Fatalf("patches: %v %v", patches, err)
		}
		if b, err := os.ReadFile(patches[0]); err != nil || !strings.Contains(string(b), "+precious") {
			t.Fatalf("%v\n%s", err, b)
		}
	})
}
