package vmm

import (
	"context"
	"syscall"

	"github.com/banger-vm/banger/internal/banger"
)

// Finder is an optional interface of a [Driver]: it finds a machine by the directories it was started with. It closes the
// one gap in which a handle cannot help: a daemon that was killed after the machine started and before its handle was
// stored.
type Finder interface {
	// Find returns the handle of the live machine of the VM id whose spec had these directories. Kind not-found: there is none.
	Find(ctx context.Context, id banger.VMID, dir, runDir string) (Handle, error)
}

// Signaler is an optional interface of a [Machine] whose process takes signals.
type Signaler interface {
	// Signal sends sig to the process. One that has ended is no error.
	Signal(sig syscall.Signal) error
}

// Pauser is an optional interface of a [Machine] whose processors can be halted. Both calls may be repeated.
type Pauser interface {
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
}

// Saver is an optional interface of a [Machine] that was started with Spec.Memory.
type Saver interface {
	// Save halts the guest for good and writes its processors and devices to the file state, which must not exist. That file, the
	// memory file and the disks as they are then make a machine again, any number of times. What is left to do with this one is to
	// kill it: before that its memory file may change.
	Save(ctx context.Context, state string) error
}

// Halter is an optional interface of a [Machine] that halts its guest where going on would lose what the guest writes: when the
// host's disk is full. The guest goes on by itself once there is room.
type Halter interface {
	// Halted returns why the guest is halted, for people, empty when it is not; and a channel that is closed when that changes.
	Halted() (why string, changed <-chan struct{})
}
