package mounts

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api/guestapi"
)

func TestOptions(t *testing.T) {
	tests := []struct {
		name  string
		m     guestapi.Mount
		flags uintptr
		data  string
	}{
		{"ext4 as banger likes it", guestapi.Mount{Type: "ext4"}, unix.MS_NOATIME, "noinit_itable"},
		{"ext4 read-only", guestapi.Mount{Type: "ext4", ReadOnly: true}, unix.MS_NOATIME | unix.MS_RDONLY, ""},
		{"options replace the defaults", guestapi.Mount{Type: "ext4", Options: "rw,relatime,commit=60,discard"}, unix.MS_RELATIME, "commit=60,discard"},
		{"no options", guestapi.Mount{Type: "erofs", ReadOnly: true}, unix.MS_RDONLY, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if flags, data := Options(tt.m); flags != tt.flags || data != tt.data {
				t.Errorf("flags %#x, data %q, want %#x, %q", flags, data, tt.flags, tt.data)
			}
		})
	}
}

func TestMountWaitsForItsDevice(t *testing.T) {
	dir := t.TempDir()
	err := Mount(guestapi.Mount{Device: filepath.Join(dir, "none"), Type: "ext4"}, filepath.Join(dir, "target"), 1)
	if err == nil {
		t.Fatal("no error")
	}
	if _, err := os.Stat(filepath.Join(dir, "target")); err == nil {
		t.Error("a mount without a device made its target")
	}
}

func TestExt4Size(t *testing.T) {
	super := make([]byte, superLen)
	if _, _, ok := ext4Size(super); ok {
		t.Error("zeros are no ext4")
	}
	le := binary.LittleEndian
	le.PutUint16(super[superMagic:], ext4Magic)
	le.PutUint32(super[superBlocksLo:], 7)
	le.PutUint32(super[superLogBlock:], 2)
	le.PutUint32(super[superBlocksHi:], 1) // garbage unless the file system is 64-bit
	if blocks, size, ok := ext4Size(super); !ok || blocks != 7 || size != 4096 {
		t.Errorf("%d blocks of %d, %v", blocks, size, ok)
	}
	le.PutUint32(super[superFeatures:], feature64Bit)
	if blocks, _, _ := ext4Size(super); blocks != 1<<32+7 {
		t.Errorf("%d blocks", blocks)
	}
}

func TestTable(t *testing.T) {
	table, err := Table()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range table {
		if m.Target == "/proc" && m.Type == "proc" && !m.OnDisk() {
			return
		}
	}
	t.Errorf("no /proc in %v", table)
}
