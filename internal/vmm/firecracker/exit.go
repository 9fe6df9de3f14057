package firecracker

import (
	"os"

	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/vmmproc"
)

// evidence is what is known of the end of a machine. Firecracker ends in good order whenever the guest resets the machine, for
// whatever reason; the console has the reason.
type evidence struct {
	halted  bool             // the guest's kernel had halted
	killed  bool             // by our Kill
	status  *os.ProcessState // nil: another daemon's child
	console string           // the end of what the guest printed
	log     string           // the end of what Firecracker printed
}

// verdict says how the machine ended. Only a guest that powered off ended cleanly, be it just before it was killed.
func (e evidence) verdict() vmm.Exit {
	panicked := vmmproc.PanicIn(e.console)
	switch {
	case e.halted || vmmproc.PowerOffIn(e.console):
		return vmm.Exit{Reason: "guest powered off", Clean: true}
	case e.killed:
		return vmm.Exit{Reason: "killed"}
	case panicked != "" && e.orderly():
		return vmm.Exit{Reason: "guest kernel panicked: " + panicked}
	case vmmproc.RebootIn(e.console) && e.orderly(), e.status != nil && e.status.Success():
		return vmm.Exit{Reason: "guest rebooted"}
	}
	return vmm.Exit{Reason: vmmproc.Crash(Name, e.status, e.log)}
}

// orderly reports whether Firecracker may have ended by its own will. Of another daemon's child only the console can tell.
func (e evidence) orderly() bool { return e.status == nil || e.status.Success() }
