package disk

import (
	"fmt"
	"slices"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
)

// Names of the cloners: what configuration and VM records say.
const (
	Reflink = "reflink"
	QCOW2   = "qcow2"
	DMSnap  = "dmsnap"
	Copy    = "copy"
)

// Facts are what the choice of a cloner depends on.
type Facts struct {
	Forced  string   // the name of a cloner, or auto, or empty
	Reflink error    // nil: the state directory's file system clones files (reflink.Probe); else why it does not
	DMSnap  error    // nil: kernel and caller can make device-mapper snapshots (dmsnap.Probe); else why not
	Formats []string // disk formats the VMM opens, as vmm.Features has them
}

// Choice names a cloner and says why, in words for people.
type Choice struct {
	Name string
	Why  string
}

// Choose returns the best cloner that f allows: reflink (the clone is a plain file, and the VMM's fastest path), then qcow2,
// then dmsnap, whose clones do not survive a full file system, then copy, whose time depends on the image's size. A forced cloner
// that cannot work here is an error of kind precondition.
func Choose(f Facts) (Choice, error) {
	if f.Forced != "" && f.Forced != "auto" {
		return forced(f)
	}
	switch {
	case f.Reflink == nil:
		return Choice{Reflink, "the state directory's file system shares blocks between files"}, nil
	case slices.Contains(f.Formats, "qcow2"):
		return Choice{QCOW2, fmt.Sprintf("no reflink (%v), and the VMM opens qcow2", f.Reflink)}, nil
	case f.DMSnap == nil:
		return Choice{DMSnap, fmt.Sprintf("no reflink (%v), and the VMM opens raw disks only", f.Reflink)}, nil
	}
	return Choice{Copy, fmt.Sprintf("no reflink (%v), no device-mapper snapshots (%v), and the VMM opens raw disks only: every VM copies its image's blocks",
		f.Reflink, f.DMSnap)}, nil
}

// Needs returns how many bytes the cloner of that name takes at once to clone v's base: what is allocated of it for a copy,
// next to nothing for the others.
func Needs(cloner string, v Volume) int64 {
	if cloner != Copy {
		return 0
	}
	n, err := host.Allocated(v.Base)
	if err != nil {
		return 0 // there is no base, which is another's finding
	}
	return n
}

func forced(f Facts) (Choice, error) {
	chosen := Choice{f.Forced, "the configuration says so"}
	switch {
	case f.Forced == Reflink && f.Reflink != nil:
		return Choice{}, errkind.WithHint(errkind.New(api.KindPrecondition, "disk cloner reflink: %w", f.Reflink),
			"keep banger's state on XFS or btrfs, or set [disk] cloner to auto")
	case f.Forced == QCOW2 && !slices.Contains(f.Formats, "qcow2"):
		return Choice{}, errkind.WithHint(errkind.New(api.KindPrecondition, "disk cloner qcow2: the VMM opens %v only", f.Formats),
			"set [disk] cloner to auto")
	case f.Forced == DMSnap && f.DMSnap != nil:
		return Choice{}, errkind.WithHint(errkind.New(api.KindPrecondition, "disk cloner dmsnap: %w", f.DMSnap),
			"%s; or set [disk] cloner to auto", errkind.Hint(f.DMSnap))
	case f.Forced == Reflink, f.Forced == QCOW2, f.Forced == DMSnap, f.Forced == Copy:
		return chosen, nil
	}
	return Choice{}, errkind.WithHint(errkind.New(api.KindInvalid, "unknown disk cloner %q", f.Forced),
		"[disk] cloner is auto, %s, %s, %s or %s", Reflink, QCOW2, DMSnap, Copy)
}
