package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

var systemdBuild sync.Mutex //nolint:gochecknoglobals // held while the image is looked for and built, by tests that run at once

// systemdImage returns the name of an image with systemd, which the first test that asks builds.
func systemdImage(t *testing.T) string {
	t.Helper()
	systemdBuild.Lock()
	defer systemdBuild.Unlock()
	if !strings.Contains("\n"+shared.must(t, "image", "list", "--quiet")+"\n", "\nsystemd\n") {
		shared.must(t, "image", "build", "debian", "systemd", "--init", "/sbin/init",
			"--package", "systemd", "--package", "systemd-sysv", "--package", "dbus", "--package", "udev")
	}
	return "systemd"
}

// TestOwnInit has an image's own init as PID 1: systemd, with the agent beside it.
func TestOwnInit(t *testing.T) {
	h := guests(t)
	t.Parallel() // with the test below, and after those that stop the daemon
	h.must(t, "vm", "create", "--start", "--name", "own-init", "--image", systemdImage(t), "--memory", "512M")
	defer h.must(t, "vm", "delete", "--force", "own-init")
	exec := func(words ...string) string {
		return h.must(t, append([]string{"exec", "own-init", "--"}, words...)...)
	}
	eventually(t, "systemd has started everything", func() bool {
		out, _ := h.banger("exec", "own-init", "--", "systemctl", "is-system-running") // it fails until that is so
		return strings.TrimSpace(out) == "running"
	})
	if got := exec("cat", "/proc/1/comm"); got != "systemd" {
		t.Errorf("PID 1 is %q", got)
	}
	if failed := exec("systemctl", "--failed", "--no-legend"); failed != "" {
		t.Errorf("units have failed: %s", failed)
	}
	if got := h.must(t, "ssh", "own-init", "--", "hostname"); got != "own-init" {
		t.Errorf("by ssh the name is %q", got)
	}
	repo := repository(t)
	h.must(t, "vm", "workspace", "prepare", "own-init", repo)
	if got := exec("git", "-C", "/root/repo", "log", "--format=%s"); got != "first" {
		t.Errorf("the workspace's log is %q", got)
	}
	agent := exec("pgrep", "-f", "banger-agent")
	exec("systemctl", "daemon-reexec")
	if again := exec("pgrep", "-f", "banger-agent"); again != agent {
		t.Errorf("the agent is %q, was %q", again, agent)
	}
	exec("sh", "-c", "echo '[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStop=/bin/sh -c \"echo stopped by systemd > /root/stopped\"\n"+
		"[Install]\nWantedBy=multi-user.target' > /etc/systemd/system/last.service; systemctl enable --now last")
	h.must(t, "vm", "stop", "own-init")
	if why := h.field(t, "own-init", "{{.State}}{{.LastError}}"); why != "stopped" {
		t.Errorf("after the stop: %q", why)
	}
	h.must(t, "vm", "start", "own-init")
	if got := exec("cat", "/root/stopped"); got != "stopped by systemd" {
		t.Errorf("got %q", got)
	}
	// PID 1 is called init until systemd has begun, which is after the agent answers.
	eventually(t, "PID 1 is systemd", func() bool { return exec("cat", "/proc/1/comm") == "systemd" })
}

// TestSilentGuest stops a guest before it can answer.
func TestSilentGuest(t *testing.T) {
	h := guests(t)
	t.Parallel() // waits for the whole time that a guest has
	c := h.start(t, "vm", "create", "--start", "--name", "silent", "--memory", "128M")
	eventually(t, "QEMU runs", func() bool {
		id, err := h.banger("vm", "show", "--format", "{{.ID}}", "silent")
		id = strings.TrimSpace(id)
		line := lineWith(h.left(), "guest="+id+" ")
		if _, noSocket := os.Stat(filepath.Join(h.root, "run/vms", id, "agent.sock")); err != nil || line == "" || noSocket != nil {
			return false
		}
		pid, err := strconv.Atoi(strings.Split(line, "/")[2])
		return err == nil && syscall.Kill(pid, syscall.SIGSTOP) == nil
	})
	c.ends(76, `^banger: create vm "silent": agent: guest is not ready: no agent answering within `, "^hint: ")
	h.fails(t, 66, `^banger: no VM "silent"`, "vm", "show", "silent")
}
