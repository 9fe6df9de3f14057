package vmm

import (
	"fmt"
	"strings"
)

// BootFacts are what a guest's kernel must be told about the machine it wakes up on.
type BootFacts struct {
	Accel   string // AccelKVM or AccelTCG
	Console string // the serial console's device name, such as ttyS0
	// TSCKHz is the rate of the guest's time stamp counter in kHz, where the guest cannot find it out; 0: it can.
	TSCKHz int
	// ResetByKeyboard says that the VMM takes a reset by the keyboard controller, which is all that the controller is there for, as
	// the end, and no triple fault.
	ResetByKeyboard bool
	NoPCI           bool // the machine has no PCI bus
}

// BootArgs is the one place that composes a driver's part of a kernel command line. Parameters are described in the
// kernel's Documentation/admin-guide/kernel-parameters.txt.
func BootArgs(f BootFacts) string {
	reset := "reboot=t" // by a triple fault
	if f.ResetByKeyboard {
		reset = "reboot=k"
	}
	args := []string{
		"console=" + f.Console,
		// A panic resets the machine at once, and a VMM that does not reboot then exits: no guest hangs after a panic.
		reset, "panic=-1",
		"quiet",
		"cryptomgr.notests=1", // self tests of ciphers: 0.2 s under TCG
	}
	if f.ResetByKeyboard {
		args = append(args, "i8042.noaux", "i8042.nomux", "i8042.dumbkbd") // nothing to look for behind the controller
	}
	if f.NoPCI {
		args = append(args, "pci=off")
	}
	if f.TSCKHz > 0 {
		// On a machine with neither PIT nor HPET that works, the kernel's own calibration fails, and about half of all boots hang.
		args = append(args, fmt.Sprintf("tsc_early_khz=%d", f.TSCKHz))
	}
	if f.Accel == AccelTCG {
		// TCG does not speculate, so the guest needs no defence against speculation.
		args = append(args, "mitigations=off")
	}
	return strings.Join(args, " ")
}
