package e2e

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// hostVM is a VM that banger is installed in.
type hostVM struct {
	h house
	t *testing.T
}

// as runs a command as a user and returns its exit status and what it printed.
func (v hostVM) as(user string, argv ...string) (int, string) {
	v.t.Helper()
	if user != "root" {
		argv = append([]string{"runuser", "-u", user, "--"}, argv...)
	}
	cmd := exec.Command(filepath.Join(v.h.bin, "banger"), append([]string{"exec", "host", "--"}, argv...)...)
	out, err := cmd.CombinedOutput()
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode(), string(out)
	}
	if err != nil {
		v.t.Fatal(err)
	}
	return 0, string(out)
}

// wants runs a command as a user and wants an exit status and words.
func (v hostVM) wants(status int, words, user string, argv ...string) {
	v.t.Helper()
	if got, out := v.as(user, argv...); got != status || !strings.Contains(out, words) {
		v.t.Errorf("%s: %q: status %d, want %d and %q\n%s", user, argv, got, status, words, out)
	}
}

// must runs a command as root and returns what it printed.
func (v hostVM) must(argv ...string) string {
	v.t.Helper()
	status, out := v.as("root", argv...)
	if status != 0 {
		v.t.Fatalf("%q: status %d\n%s", argv, status, out)
	}
	return strings.TrimSpace(out)
}

// tree lists the files that an installation could have made: all but those of the kernel and of whoever logs in.
func (v hostVM) tree() []string {
	v.t.Helper()
	return strings.Split(v.must("find", "/", "-xdev", "(", "-path", "/proc", "-o", "-path", "/sys", "-o", "-path", "/dev", "-o", "-path", "/run",
		"-o", "-path", "/tmp", "-o", "-path", "/var/tmp", "-o", "-path", "/root", "-o", "-path", "/home", "-o", "-path", "/var/log", "-o", "-path", "/var/lib/systemd",
		")", "-prune", "-o", "-print"), "\n")
}

func TestSystemMode(t *testing.T) {
	h := guests(t)
	t.Parallel() // as others that take long, after those that stop the daemon
	h.must(t, "vm", "create", "--start", "--name", "host", "--image", systemdImage(t), "--memory", "1G")
	defer h.must(t, "vm", "delete", "--force", "host")
	v := hostVM{h, t}
	for _, program := range []string{"banger", "bangerd", "banger-agent"} {
		h.must(t, "cp", filepath.Join(h.bin, program), "host:/root/")
	}
	eventually(t, "the end of the boot", func() bool {
		_, out := v.as("root", "systemctl", "is-system-running", "--wait")
		return strings.Contains(out, "running") || strings.Contains(out, "degraded")
	})
	v.must("useradd", "--create-home", "ann")
	v.must("useradd", "--create-home", "bob")
	before := v.tree()

	if !t.Run("install", v.install) {
		return
	}
	t.Run("who may use it", v.users)
	t.Run("sandbox", v.sandbox)
	t.Run("stop and restart", v.outlive)
	t.Run("upgrade", v.upgrade)
	t.Run("uninstall", func(t *testing.T) { v.uninstall(t, before) })
}

func (v hostVM) install(t *testing.T) {
	v.t = t
	v.wants(66, "not installed", "root", "/root/banger", "system", "status")
	v.wants(0, "members of the group banger", "root", "/root/banger", "system", "install")
	v.wants(0, "active", "root", "systemctl", "is-active", "bangerd")
	v.wants(0, "enabled", "root", "systemctl", "is-enabled", "bangerd")
	v.wants(0, "active (running)", "root", "banger", "system", "status", "--format", "{{.Unit}} {{.Version}}")
	if got := v.must("stat", "--format", "%A %U:%G", "/run/banger", "/run/banger/bangerd.sock"); got != "drwxr-x--- root:banger\nsrw-rw---- root:banger" {
		t.Errorf("the socket and its directory are\n%s", got)
	}
}

func (v hostVM) users(t *testing.T) {
	v.t = t
	v.must("usermod", "-aG", "banger", "ann")
	v.wants(0, "Version:", "ann", "banger", "version")
	v.wants(0, "/var/lib/banger", "ann", "banger", "daemon", "status")
	v.wants(0, "NAME", "ann", "banger", "vm", "list")
	v.wants(1, "QEMU is not installed", "ann", "banger", "doctor") // the daemon answers, and finds what there is to find
	v.wants(77, "sudo banger daemon logs", "ann", "banger", "daemon", "logs")
	v.wants(77, "admin permission", "ann", "banger", "daemon", "stop")
	v.wants(77, "sudo banger system uninstall", "ann", "banger", "system", "uninstall")
	v.wants(77, "usermod -aG banger", "bob", "env", "BANGER_SYSTEM=1", "banger", "vm", "list")
	v.wants(69, "/home/bob/", "bob", "banger", "--no-start", "vm", "list")
	v.wants(69, "/home/ann/", "ann", "env", "BANGER_SYSTEM=0", "banger", "--no-start", "vm", "list")
}

// sandbox does, before the daemon starts and in its place, what VMs and image builds need, and what no daemon should be able to do.
func (v hostVM) sandbox(t *testing.T) {
	v.t = t
	const probe = `set -eux
refused() { if "$@"; then exit 1; fi; }
mkdir /sys/fs/cgroup/probe && rmdir /sys/fs/cgroup/probe
unshare --mount mount -t tmpfs none /mnt
unshare --user --map-root-user true
install -m 4755 /bin/true /var/lib/banger/suid && test -u /var/lib/banger/suid && rm /var/lib/banger/suid
mknod /var/lib/banger/null c 1 3 && rm /var/lib/banger/null
chroot / true
touch /etc/banger/probe && rm /etc/banger/probe
refused touch /usr/probe
refused touch /etc/probe
refused touch /home/ann/probe
refused date --set "$(date)"
`
	v.must("sh", "-c", `printf %s "$0" >/root/probe && mkdir /run/systemd/system/bangerd.service.d &&
		printf '[Service]\nExecStartPre=/bin/sh /root/probe\n' >/run/systemd/system/bangerd.service.d/probe.conf`, probe)
	v.must("systemctl", "daemon-reload")
	if status, _ := v.as("root", "systemctl", "restart", "bangerd"); status != 0 {
		t.Errorf("the probe failed:\n%s", v.must("journalctl", "--unit=bangerd", "--lines=20", "--output=cat"))
	}
	v.must("rm", "-r", "/run/systemd/system/bangerd.service.d")
	v.must("systemctl", "daemon-reload")
}

// outlive takes a process of the daemon's control group for a machine: it is where a VMM is that has no group of its own. A
// real one would be emulated by an emulated machine, which takes minutes.
func (v hostVM) outlive(t *testing.T) {
	v.t = t
	pid := v.must("sh", "-c", `setsid sleep 100000 >/dev/null 2>&1 & echo $! >/sys/fs/cgroup/system.slice/bangerd.service/cgroup.procs; echo $!`)
	daemon := v.must("banger", "daemon", "status", "--format", "{{.PID}}")
	v.must("systemctl", "restart", "bangerd")
	v.must("kill", "-0", pid)
	if again := v.must("banger", "daemon", "status", "--format", "{{.PID}}"); again == daemon {
		t.Errorf("the daemon still has pid %s", again)
	}
	v.must("systemctl", "stop", "bangerd")
	v.must("kill", "-0", pid)
	v.wants(69, "sudo systemctl start bangerd", "ann", "banger", "vm", "list")
	v.must("systemctl", "start", "bangerd")
	v.must("kill", pid)
}

// upgrade installs a daemon that is another file, though not another version.
func (v hostVM) upgrade(t *testing.T) {
	v.t = t
	v.must("sh", "-c", "echo >>/root/bangerd")
	daemon := v.must("banger", "daemon", "status", "--format", "{{.PID}}")
	if _, out := v.as("root", "/root/banger", "system", "install"); !strings.HasPrefix(out, "replace  /usr/local/bin/bangerd\nbangerd ") {
		t.Errorf("the upgrade did\n%s", out)
	}
	if again := v.must("banger", "daemon", "status", "--format", "{{.PID}}"); again == daemon {
		t.Errorf("the old daemon runs, with pid %s", daemon)
	}
}

func (v hostVM) uninstall(t *testing.T, before []string) {
	v.t = t
	v.wants(0, "kept /var/lib/banger; `banger system uninstall --purge` removes it", "root", "banger", "system", "uninstall")
	if _, out := v.as("root", "systemctl", "is-active", "bangerd"); out != "inactive\n" {
		t.Errorf("the service is %s", out)
	}
	kept := slices.DeleteFunc(v.tree(), func(path string) bool { return slices.Contains(before, path) })
	for _, path := range kept {
		if !strings.HasPrefix(path, "/var/lib/banger") && !strings.HasPrefix(path, "/var/cache/banger") {
			t.Errorf("uninstall left %s", path)
		}
	}
	v.wants(0, "removes /var/lib/banger", "root", "/root/banger", "system", "uninstall", "--purge", "--yes")
	if d := cmp.Diff(before, v.tree()); d != "" {
		t.Errorf("--purge left or lost:\n%s", d)
	}
	v.wants(2, "", "root", "getent", "group", "banger")
	v.wants(2, "No such file", "root", "ls", "-d", "/run/banger")
}
