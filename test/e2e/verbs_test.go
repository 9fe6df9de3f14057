package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/vm"
)

// capabilities are the chain's, in the order of a start.
var capabilities = []string{"disks", "nic", "auth", "boot", "machine", "agent"} //nolint:gochecknoglobals // a table

// around returns the failpoints before and after what each capability does at phase: attach, detach or destroy.
func around(phase string, names ...string) []string {
	var all []string
	for _, name := range names {
		all = append(all, name+"."+phase, name+"."+phase+".done")
	}
	return all
}

// steps returns the service's own failpoints of a verb.
func steps(verb string) []string {
	return slices.DeleteFunc(vm.Steps(), func(s string) bool { return !strings.HasPrefix(s, verb+".") })
}

// crash runs a command on a daemon that kills itself at the failpoint, which it must reach.
func (h house) crash(t *testing.T, at string, args ...string) {
	t.Helper()
	h.must(t, "daemon", "stop")
	t.Setenv("BANGER_FAILPOINTS", at+"=kill")
	out, err := h.banger(args...)
	os.Unsetenv("BANGER_FAILPOINTS")
	if err == nil {
		t.Fatalf("banger %s did not pass %s:\n%s", strings.Join(args, " "), at, out)
	}
	h.must(t, "daemon", "start") // which makes the state right
}

// still fails the test if anything of a running VM is left: a process, a socket, a handle, an initramfs with its keys.
func (h house) still(t *testing.T) {
	t.Helper()
	for _, pattern := range []string{"run/vms/*", "state/vms/*/machine.json", "state/vms/*/initrd", "state/vms/*/*.partial"} {
		left, err := filepath.Glob(filepath.Join(h.root, pattern))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	}
	if left := h.left(); strings.Contains(left, "qemu") {
		t.Errorf("left behind:\n%s", left)
	}
}

func TestCrashesOfVerbs(t *testing.T) {
	h := guests(t)
	const name = "verbs"
	state := func() string { return h.field(t, name, "{{.State}}") }
	h.must(t, "vm", "create", "--name", name, "--memory", "256M")
	t.Cleanup(func() { h.banger("vm", "delete", "--force", name) }) //nolint:errcheck // the last test has deleted it
	for _, at := range slices.Concat(steps("start"), around("attach", capabilities...)) {
		t.Run("a daemon killed at "+at+" of a start leaves the VM as it was, and the same start succeeds", func(t *testing.T) {
			before := state()
			h.crash(t, at, "vm", "start", name)
			if now := state(); now != before && now != "stopped" {
				t.Errorf("state %s, was %s", now, before)
			}
			h.still(t)
			h.must(t, "vm", "start", name)
			h.must(t, "vm", "stop", name)
		})
	}
	detach := slices.Clone(capabilities)
	slices.Reverse(detach)
	for _, at := range slices.Concat(steps("stop"), around("detach", detach...)) {
		t.Run("a daemon killed at "+at+" of a stop finishes it", func(t *testing.T) {
			h.must(t, "vm", "start", name)
			h.must(t, "exec", name, "--", "sh", "-c", "echo "+at+" > /root/at")
			h.crash(t, at, "vm", "stop", name)
			h.must(t, "vm", "wait", "--for", "stopped", "--timeout", "1m", name)
			h.must(t, "vm", "stop", name)
			h.still(t)
		})
	}
	t.Run("what the guest had written before the last of these stops is there", func(t *testing.T) {
		h.must(t, "vm", "start", name)
		if got := h.must(t, "exec", name, "--", "cat", "/root/at"); got != "disks.detach.done" {
			t.Errorf("got %q", got)
		}
	})
	for _, at := range slices.Concat(steps("set"), around("attach", "disks")) {
		t.Run("a daemon killed at "+at+" of a set that grows a disk leaves a VM that starts with the size", func(t *testing.T) {
			size := "1" + string(rune('1'+slices.Index(append(steps("set"), around("attach", "disks")...), at))) + "G"
			h.must(t, "vm", "start", name)
			h.crash(t, at, "vm", "set", "--disk-size", size, "--restart", name)
			h.still(t)
			h.must(t, "vm", "set", "--disk-size", size, "--restart", name)
			h.must(t, "vm", "start", name)
			if got := h.must(t, "exec", name, "--", "df", "-B1G", "--output=size", "/root"); !strings.HasSuffix(got, strings.TrimSuffix(size, "G")) {
				t.Errorf("the work disk has %q, want %s", got, size)
			}
			h.must(t, "vm", "stop", name)
		})
	}
	for _, at := range slices.Concat(steps("delete"), around("destroy", "auth", "disks")) {
		t.Run("a daemon killed at "+at+" of a delete leaves a VM that can be deleted", func(t *testing.T) {
			h.must(t, "vm", "create", "--name", "doomed", "--memory", "256M")
			h.crash(t, at, "vm", "delete", "doomed")
			h.must(t, "vm", "delete", "--force", "doomed")
			if names := h.must(t, "vm", "list", "-q"); names != name {
				t.Errorf("VMs: %q", names)
			}
		})
	}
}

func TestHostReboot(t *testing.T) {
	h := guests(t)
	t.Run("after a reboot of the host VMs are stopped, say why, and start with what they had written", func(t *testing.T) {
		h.must(t, "vm", "create", "--start", "--name", "rebooted", "--memory", "256M")
		defer h.must(t, "vm", "delete", "--force", "rebooted")
		h.must(t, "exec", "rebooted", "--", "sh", "-c", "echo kept > /root/note; sync")
		pid := h.field(t, "rebooted", "{{.PID}}")
		kill9(t, h.daemonPID(t))
		kill9(t, number(t, pid))
		eventually(t, "the machine is gone", func() bool { return !alive(pid) })
		if err := os.RemoveAll(filepath.Join(h.root, "run")); err != nil {
			t.Fatal(err)
		}
		if got := h.field(t, "rebooted", "{{.State}}: {{.LastError}}"); !strings.HasPrefix(got, "stopped: ") || !strings.Contains(got, "while the daemon was away") {
			t.Errorf("got %q", got)
		}
		h.still(t)
		h.must(t, "vm", "start", "rebooted")
		if got := h.must(t, "exec", "rebooted", "--", "cat", "/root/note"); got != "kept" {
			t.Errorf("got %q", got)
		}
	})
}

func TestStopDuringCopy(t *testing.T) {
	h := guests(t)
	t.Run("a stop does not wait for a copy into the guest, and the copy says what happened", func(t *testing.T) {
		h.must(t, "vm", "create", "--start", "--name", "busy", "--memory", "256M")
		defer h.must(t, "vm", "delete", "--force", "busy")
		c := h.start(t, "cp", file(t, 400<<20), "busy:/root/big")
		eventually(t, "the copy is under way", func() bool {
			_, err := h.banger("exec", "busy", "--", "sh", "-c", "test $(stat -c %s /root/big* | head -1) -gt 1000000")
			return err == nil
		})
		h.must(t, "vm", "stop", "busy")
		c.ends(69, "^banger: ", "^hint: ")
		if got := h.field(t, "busy", "{{.State}}"); got != "stopped" {
			t.Errorf("state %s", got)
		}
	})
}

func alive(pid string) bool {
	_, err := os.Stat("/proc/" + pid)
	return err == nil
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
