package qemu

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/qemu/qmp"
	"github.com/banger-vm/banger/internal/vmm/vmmproc"
)

// evidence is what is known of the end of a machine. What QEMU said comes first. Where it said nothing (it was killed, or nobody
// listened), its exit status or the pid file tells a crash from an end in good order, and the logs tell the kinds of the latter.
type evidence struct {
	told    qmp.Reason       // by QEMU; empty: nothing was heard
	killed  bool             // by our Kill
	status  *os.ProcessState // nil: another daemon's child
	pidFile bool             // is left, which QEMU removes when it ends in good order
	console string           // the end of what the guest printed
	log     string           // the end of what QEMU printed
}

func gather(h vmm.Handle, told qmp.Reason, killed bool, status *os.ProcessState) evidence {
	_, err := os.Stat(pidFile(h.RunDir))
	return evidence{
		told: told, killed: killed, status: status, pidFile: err == nil,
		console: vmmproc.Tail(filepath.Join(h.Dir, vmm.ConsoleLog), 16<<10), log: vmmproc.Tail(filepath.Join(h.Dir, vmm.VMMLog), 1<<10),
	}
}

// verdict says how the machine ended. Only a guest that powered off ended cleanly: a reset is how a kernel ends that panics
// or loses its way, and from a reboot somebody wanted it cannot be told.
func (e evidence) verdict() vmm.Exit {
	reason := e.told
	if reason == "" && e.orderly() {
		reason = e.guess()
	}
	panicked := vmmproc.PanicIn(e.console)
	switch {
	case reason == qmp.GuestShutdown:
		return vmm.Exit{Reason: "guest powered off", Clean: true}
	case reason == qmp.GuestPanic || reason == qmp.GuestReset && panicked != "":
		return vmm.Exit{Reason: "guest kernel panicked: " + panicked}
	case reason == qmp.GuestReset:
		return vmm.Exit{Reason: "guest rebooted"}
	case e.killed:
		return vmm.Exit{Reason: "killed"}
	case reason == qmp.HostSignal:
		return vmm.Exit{Reason: "qemu was told by a signal to end" + vmmproc.Colon(e.log)}
	case reason != "":
		return vmm.Exit{Reason: fmt.Sprintf("qemu shut down: %s", reason)}
	}
	return vmm.Exit{Reason: vmmproc.Crash(Name, e.status, e.log)}
}

// orderly reports whether QEMU ended by its own will and without a complaint.
func (e evidence) orderly() bool {
	if e.status != nil {
		return e.status.Success()
	}
	return !e.pidFile && !e.killed // who kills and hears nothing has killed
}

// signalMark is what QEMU prints when a signal ends it (softmmu/runstate.c).
const signalMark = "terminating on signal "

// guess is what QEMU would have said, from the logs.
func (e evidence) guess() qmp.Reason {
	switch {
	case strings.Contains(e.log, signalMark):
		return qmp.HostSignal
	case vmmproc.PanicIn(e.console) != "" || vmmproc.RebootIn(e.console):
		return qmp.GuestReset
	}
	return qmp.GuestShutdown
}
