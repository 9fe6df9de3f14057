package lab

import "testing"

// testService takes the system's daemon, a service of systemd, through what its VMs must outlive, and one thing that they must not.
func (i inner) testService(t *testing.T) {
	in := inner{i.lab, t}
	// The state of the other daemon is copied for its image and its kernel.
	in.root("sh", "-c", "mkdir -p /var/lib/banger && cp state/banger.db* /var/lib/banger/")
	in.root("bin/banger", "system", "install")
	in.root("banger", "vm", "create", "--quiet", "--start", "--name", "tenant", "--image", "empty", "--memory", "128M")
	show := func(field string) string {
		return in.root("banger", "vm", "show", "--format", "{{."+field+"}}", "tenant")
	}
	boot, daemon := show("BootID"), in.root("banger", "daemon", "status", "--format", "{{.PID}}")
	runsOn := func(after string) {
		t.Helper()
		if again := in.root("banger", "daemon", "status", "--format", "{{.PID}}"); again == daemon {
			t.Fatalf("after %s the daemon still is process %s", after, daemon)
		} else {
			daemon = again
		}
		in.root("banger", "vm", "ping", "tenant")
		if now := show("BootID"); now != boot || boot == "" {
			t.Errorf("after %s: boot id %q, was %q", after, now, boot)
		}
	}
	in.root("systemctl", "restart", "bangerd")
	runsOn("a restart")
	in.root("systemctl", "kill", "--kill-who=main", "--signal=KILL", "bangerd")
	in.root("sh", "-c", "until banger --no-start vm list; do sleep 0.2; done")
	runsOn("a crash")
	in.root("sh", "-c", "echo >> bin/bangerd")
	in.root("bin/banger", "system", "install")
	runsOn("an upgrade")

	// A shutdown of the host is played: the lab goes on.
	in.root("sh", "-c", `mkdir -p stand-in /run/systemd/system/bangerd.service.d && printf '#!/bin/sh\necho stopping\n' > stand-in/systemctl && chmod +x stand-in/systemctl &&
		printf '[Service]\nEnvironment=PATH=%s/stand-in:/usr/bin:/usr/sbin\n' "$PWD" > /run/systemd/system/bangerd.service.d/stand-in.conf && systemctl daemon-reload`)
	in.root("systemctl", "restart", "bangerd")
	if state := show("State") + show("LastError"); state != "stopped" {
		t.Errorf("after the host was shut down the VM is %s", state)
	}
	in.root("rm", "-r", "/run/systemd/system/bangerd.service.d")
	in.root("banger", "vm", "start", "tenant")
	in.root("banger", "vm", "delete", "--force", "tenant")
	in.root("banger", "system", "uninstall", "--purge", "--yes")
	if left := in.root("sh", "-c", "pgrep -l 'qemu|bangerd'; ls -d /var/lib/banger /run/banger 2>&1 | grep -v 'No such'; nft list tables | grep banger; true"); left != "" {
		t.Errorf("left:\n%s", left)
	}
}

// root runs a program in the lab as root does who has set nothing.
func (i inner) root(argv ...string) string {
	i.t.Helper()
	return i.must(i.t, append([]string{"exec", "-C", innerAt, vmName, "--"}, argv...)...)
}
