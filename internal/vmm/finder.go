package vmm

import (
	"context"

	"github.com/banger-vm/banger/internal/banger"
)

// Finder is an optional interface of a [Driver]: it finds a machine by the directories it was started with. It closes the
// one gap in which a handle cannot help: a daemon that was killed after the machine started and before its handle was
// stored.
type Finder interface {
	// Find returns the handle of the live machine of the VM id whose spec had these directories. Kind not-found: there is none.
	Find(ctx context.Context, id banger.VMID, dir, runDir string) (Handle, error)
}
