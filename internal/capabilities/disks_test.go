package capabilities_test

import (
	"context"
	"path/filepath"
	"slices"
	"testing"

	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/capabilities"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/vm/capability"
)

// listing is a cloner that only notes what it is to remove.
type listing struct {
	disk.Cloner
	removed *[]string
}

func (l listing) Remove(_ context.Context, v disk.Volume) error {
	*l.removed = append(*l.removed, filepath.Base(v.Path))
	return nil
}

// TestDestroyOfAnUnknownVM: of a VM without a record nobody knows who made its disks, so every cloner is asked. One may hold
// devices that would not go with the directory.
func TestDestroyOfAnUnknownVM(t *testing.T) {
	var one, other []string
	d := &capabilities.Disks{Cloners: map[string]disk.Cloner{"one": listing{removed: &one}, "other": listing{removed: &other}}}
	if err := d.Destroy(t.Context(), &capability.Run{VM: banger.VM{ID: "0123456789ab"}, Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	for _, removed := range [][]string{one, other} {
		if !slices.Equal(removed, []string{"root", "work"}) {
			t.Errorf("a cloner was asked to remove %q", removed)
		}
	}
}
