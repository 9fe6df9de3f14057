package lab

import (
	"strings"
	"testing"
)

// testDMSnap takes a VM with device-mapper snapshots through its life.
func (i inner) testDMSnap(t *testing.T) {
	in := inner{i.lab, t}
	in.command("vm", "create", "--quiet", "--start", "--name", "web", "--image", "empty", "--memory", "128M", "--root-size", "128M")
	t.Cleanup(func() { in.command("daemon", "stop") })
	id := in.command("vm", "show", "--format", "{{.ID}}", "web")
	if d := in.devices(); strings.Count(d, "banger-"+id+"-root-") != 1 || strings.Count(d, "banger-"+id+"-work-") != 1 {
		t.Errorf("devices:\n%s", d)
	}
	kept := func(when string) {
		t.Helper()
		in.run("rm", "-rf", "back")
		in.command("cp", "web:/etc/kept", "back")
		in.command("cp", "web:/root/kept", "back-too")
		if got := in.run("cat", "back", "back-too"); got != "kept\nkept" {
			t.Errorf("%s: %q", when, got)
		}
	}
	in.run("sh", "-c", "echo kept > kept")
	in.command("cp", "kept", "web:/etc/kept")
	in.command("cp", "kept", "web:/root/kept")

	in.run("sh", "-c", "kill -9 $(pgrep -x bangerd)")
	kept("after the daemon was killed")
	in.command("vm", "stop", "web")
	if d := in.devices(); d != "" {
		t.Errorf("devices of a VM that does not run:\n%s", d)
	}
	in.command("vm", "start", "web")
	kept("after stop and start")
	in.command("vm", "delete", "--force", "web")
	if d := in.devices() + in.run("ls", "state/vms"); d != "" {
		t.Errorf("left:\n%s", d)
	}
}
