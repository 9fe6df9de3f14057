package qemu

import (
	"os"
	"testing"

	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/qemu/qmp"
)

// status runs a shell script to its end.
func status(t *testing.T, script string) *os.ProcessState {
	t.Helper()
	p, err := host.Detached{Argv: []string{"sh", "-c", script}, Dir: "/"}.Start()
	if err != nil {
		t.Fatal(err)
	}
	st, err := p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestVerdict(t *testing.T) {
	const panicked = "[    1.2] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n[    1.3] CPU: 0"
	const panicReason = "guest kernel panicked: Attempted to kill init! exitcode=0x00000100"
	good, bad, signaled := status(t, "exit 0"), status(t, "exit 1"), status(t, "kill -9 $$")
	for _, c := range []struct {
		name string
		in   evidence
		want vmm.Exit
	}{
		{"a guest that powered off, by QEMU's word", evidence{told: qmp.GuestShutdown, status: good},
			vmm.Exit{Reason: "guest powered off", Clean: true}},
		{"QEMU's word counts more than an old panic on the console", evidence{told: qmp.GuestShutdown, console: panicked, status: good},
			vmm.Exit{Reason: "guest powered off", Clean: true}},
		{"a guest that powered off just before it was killed", evidence{told: qmp.GuestShutdown, killed: true, status: signaled},
			vmm.Exit{Reason: "guest powered off", Clean: true}},
		{"a reset without a panic", evidence{told: qmp.GuestReset, status: good}, vmm.Exit{Reason: "guest rebooted"}},
		{"a reset after a panic", evidence{told: qmp.GuestReset, console: panicked, status: good}, vmm.Exit{Reason: panicReason}},
		{"a signal, by QEMU's word", evidence{told: qmp.HostSignal, status: good, log: "qemu: terminating on signal 15"},
			vmm.Exit{Reason: "qemu was told by a signal to end: qemu: terminating on signal 15"}},
		{"a reason that we do not know", evidence{told: "host-ui", status: good}, vmm.Exit{Reason: "qemu shut down: host-ui"}},

		{"our kill", evidence{killed: true, status: signaled}, vmm.Exit{Reason: "killed"}},
		{"our kill of another daemon's child", evidence{killed: true}, vmm.Exit{Reason: "killed"}},
		{"a kill by others", evidence{status: signaled}, vmm.Exit{Reason: "qemu was killed by signal 9 (killed)"}},
		{"QEMU that gives up", evidence{status: bad, log: "qemu: no such disk"}, vmm.Exit{Reason: "qemu ended with exit status 1: qemu: no such disk"}},

		{"unheard: a good end", evidence{status: good}, vmm.Exit{Reason: "guest powered off", Clean: true}},
		{"unheard: a panic", evidence{status: good, console: panicked}, vmm.Exit{Reason: panicReason}},
		{"unheard: a reboot", evidence{status: good, console: "reboot: Restarting system"}, vmm.Exit{Reason: "guest rebooted"}},
		{"unheard: a signal", evidence{status: good, log: "terminating on signal 15 from pid 1"},
			vmm.Exit{Reason: "qemu was told by a signal to end: terminating on signal 15 from pid 1"}},
		{"unheard, another daemon's child: the pid file is gone", evidence{}, vmm.Exit{Reason: "guest powered off", Clean: true}},
		{"unheard, another daemon's child: the pid file is left", evidence{pidFile: true}, vmm.Exit{Reason: "qemu crashed or was killed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.in.verdict(); got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}
