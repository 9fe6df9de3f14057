package disk_test

import (
	"errors"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/errkind"
)

func TestChoose(t *testing.T) {
	none := errors.New("ext4 cannot")
	both, raw := []string{"raw", "qcow2"}, []string{"raw"}
	for _, c := range []struct {
		name  string
		facts disk.Facts
		want  string
		kind  errkind.Kind
	}{
		{"reflink is best", disk.Facts{Formats: both}, disk.Reflink, ""},
		{"qcow2 is next", disk.Facts{Reflink: none, Formats: both, Forced: "auto"}, disk.QCOW2, ""},
		{"qcow2 is before dmsnap", disk.Facts{Reflink: none, Formats: both}, disk.QCOW2, ""},
		{"dmsnap is next", disk.Facts{Reflink: none, Formats: raw}, disk.DMSnap, ""},
		{"copy is last", disk.Facts{Reflink: none, DMSnap: none, Formats: raw}, disk.Copy, ""},
		{"a forced one wins", disk.Facts{Formats: both, Forced: disk.Copy}, disk.Copy, ""},
		{"a forced reflink needs the file system", disk.Facts{Reflink: none, Formats: both, Forced: disk.Reflink}, "", api.KindPrecondition},
		{"a forced qcow2 needs the VMM", disk.Facts{Formats: raw, Forced: disk.QCOW2}, "", api.KindPrecondition},
		{"a forced dmsnap is taken", disk.Facts{Formats: both, Forced: disk.DMSnap}, disk.DMSnap, ""},
		{"a forced dmsnap needs the kernel", disk.Facts{DMSnap: none, Formats: raw, Forced: disk.DMSnap}, "", api.KindPrecondition},
		{"an unknown one is invalid", disk.Facts{Formats: both, Forced: "zfs"}, "", api.KindInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := disk.Choose(c.facts)
			if got.Name != c.want || errkind.Of(err) != c.kind {
				t.Errorf("Choose = %+v, %v", got, err)
			}
			if (got.Why == "") != (err != nil) || (err != nil && errkind.Hint(err) == "") {
				t.Errorf("no reason or no hint: %+v, %v", got, err)
			}
		})
	}
}
