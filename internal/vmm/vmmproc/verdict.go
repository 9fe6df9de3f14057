package vmmproc

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/banger-vm/banger/api/guestapi"
)

// What Linux prints on the console when it ends (kernel/panic.c and kernel/reboot.c).
const (
	panicMark  = "Kernel panic - not syncing: "
	rebootMark = "reboot: Restarting system"
)

// PanicIn returns the message of the kernel's last panic in what a console printed; empty: none.
func PanicIn(console string) string { return After(console, panicMark) }

// PowerOffIn tells whether the agent, on a machine that cannot power off, restarted it instead, as the kernel said on the console.
func PowerOffIn(console string) bool {
	return strings.Contains(console, rebootMark+" with command '"+guestapi.PowerOffRestart+"'")
}

// halted is what the kernel says when it stops for good on a machine that it cannot power off; its wording has changed over time.
var halted = regexp.MustCompile(`(?m)^(\[[^\n]{1,30}\] )?reboot: (System halted|Power down|Power off not available: System halted instead)\s*$`)

// HaltIn tells whether the kernel said on the console that it has halted.
func HaltIn(console string) bool { return halted.MatchString(console) }

// RebootIn tells whether the kernel said on the console that it restarts the machine.
func RebootIn(console string) bool { return strings.Contains(console, rebootMark) }

// After returns the rest of the line that follows the last mark in text.
func After(text, mark string) string {
	i := strings.LastIndex(text, mark)
	if i < 0 {
		return ""
	}
	line, _, _ := strings.Cut(text[i+len(mark):], "\n")
	return strings.TrimSpace(line)
}

// Crash says how a VMM called name crashed, and ends with what it printed last. status is nil when another daemon was its parent.
func Crash(name string, status *os.ProcessState, log string) string {
	how := name + " crashed or was killed"
	if status != nil {
		how = name + " ended with " + status.String()
		if ws, ok := status.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			how = name + " was killed by signal " + strconv.Itoa(int(ws.Signal())) + " (" + ws.Signal().String() + ")"
		}
	}
	return how + Colon(log)
}

// Colon returns text behind a colon; nothing when it is empty.
func Colon(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}
