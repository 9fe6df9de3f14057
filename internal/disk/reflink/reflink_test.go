package reflink_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/disk/disktest"
	"github.com/banger-vm/banger/internal/disk/reflink"
	"github.com/banger-vm/banger/internal/errkind"
	"golang.org/x/sys/unix"
)

func TestCloner(t *testing.T) {
	for _, fstype := range []string{"xfs", "btrfs"} {
		t.Run("on "+fstype, func(t *testing.T) {
			dir := disktest.Mounted(t, fstype)
			if err := reflink.Probe(dir); err != nil {
				t.Fatalf("probe: %v", err)
			}
			disktest.Run(t, func(t *testing.T) disktest.Env {
				sub, err := os.MkdirTemp(dir, "check-")
				if err != nil {
					t.Fatal(err)
				}
				return disktest.Env{Cloner: reflink.New(), Dir: sub, Full: disktest.FullDir(t), Disk: disktest.RawDisk{}}
			})
			if entries, _ := filepath.Glob(filepath.Join(dir, ".reflink-probe-*")); len(entries) > 0 {
				t.Errorf("the probe left %v", entries)
			}
		})
	}
}

func TestAFileSystemWithoutReflink(t *testing.T) {
	dir := t.TempDir()
	if err := reflink.Probe(dir); err == nil {
		t.Skip("the file system of the temporary directory can share blocks")
	}
	base := filepath.Join(dir, "base")
	if err := os.WriteFile(base, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("makes create unavailable and leaves nothing", func(t *testing.T) {
		err := reflink.New().Create(t.Context(), disk.Volume{Base: base, Path: filepath.Join(dir, "a"), Size: 4096})
		if !errkind.Is(err, api.KindUnavailable) {
			t.Errorf("error %v, want kind unavailable", err)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 1 {
			t.Errorf("left %v", entries)
		}
	})
	t.Run("is the reason of the choice", func(t *testing.T) {
		c, err := disk.Choose(disk.Facts{Reflink: unix.EOPNOTSUPP, Formats: []string{"raw", "qcow2"}})
		if err != nil || c.Name != disk.QCOW2 {
			t.Errorf("choice %+v, %v", c, err)
		}
	})
}
