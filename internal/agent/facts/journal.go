// Package facts is what the agent knows about its guest and tells the host: how the boot went, what the guest uses, and
// what listens in it.
package facts

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api/guestapi"
)

// Journal collects the phases of a boot and what went wrong without stopping it. It is safe for concurrent use.
type Journal struct {
	mu       sync.Mutex // phases of concurrent parts of the boot arrive in any order
	phases   []guestapi.Phase
	warnings []string
}

// NewJournal returns a Journal that goes on where another process's ended.
func NewJournal(phases []guestapi.Phase, warnings []string) *Journal {
	return &Journal{phases: phases, warnings: warnings}
}

// Phase notes that the boot has just passed the phase called name.
func (j *Journal) Phase(name string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.phases = append(j.phases, guestapi.Phase{Name: name, AtMS: SinceBoot().Milliseconds()})
}

// Warn notes that what did not work, and why. A nil err is nothing.
func (j *Journal) Warn(what string, err error) {
	if err == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.warnings = append(j.warnings, fmt.Sprintf("%s: %v", what, err))
}

// Read returns what was noted so far.
func (j *Journal) Read() (phases []guestapi.Phase, warnings []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.phases), slices.Clone(j.warnings)
}

// SinceBoot is the time since the kernel started, suspended time included (CLOCK_BOOTTIME).
func SinceBoot() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
