package qcow2_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/disk/disktest"
	"github.com/banger-vm/banger/internal/disk/qcow2"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
)

// qemuDisk reads and writes through QEMU's own block layer, and has every image checked.
type qemuDisk struct{ dir string }

func (d qemuDisk) Read(ctx context.Context, a disk.Attachment) ([]byte, error) {
	if err := host.Run(ctx, host.Command{Argv: []string{"qemu-img", "check", "-q", "-f", a.Format, a.Path}}); err != nil {
		return nil, err
	}
	raw := filepath.Join(d.dir, "raw")
	if err := host.Run(ctx, host.Command{Argv: []string{"qemu-img", "convert", "-f", a.Format, "-O", "raw", a.Path, raw}}); err != nil {
		return nil, err
	}
	return os.ReadFile(raw)
}

func (d qemuDisk) Write(ctx context.Context, a disk.Attachment, off int64, data []byte) error {
	src := filepath.Join(d.dir, "data")
	padded := append(bytes.Clone(data), make([]byte, (disk.SectorSize-len(data)%disk.SectorSize)%disk.SectorSize)...)
	if len(padded) > len(data) { // qemu-io writes whole sectors: keep what follows
		old, err := d.Read(ctx, a)
		if err != nil {
			return err
		}
		copy(padded[len(data):], old[off+int64(len(data)):])
	}
	if err := os.WriteFile(src, padded, 0o600); err != nil {
		return err
	}
	cmd := fmt.Sprintf("write -s %s %d %d", src, off, len(padded))
	return host.Run(ctx, host.Command{Argv: []string{"qemu-io", "-f", a.Format, "-c", cmd, a.Path}})
}

func needQEMU(t testing.TB) {
	t.Helper()
	for _, name := range []string{"qemu-img", "qemu-io"} {
		if _, err := host.LookPath(name); err != nil {
			t.Skip(err)
		}
	}
}

func TestCloner(t *testing.T) {
	needQEMU(t)
	disktest.Run(t, func(t *testing.T) disktest.Env {
		return disktest.Env{Cloner: qcow2.New(), Dir: t.TempDir(), Full: disktest.FullDir(t), Disk: qemuDisk{t.TempDir()}}
	})
}

func newVolume(t testing.TB, size int64) disk.Volume {
	t.Helper()
	dir := t.TempDir()
	v := disk.Volume{Base: filepath.Join(dir, "a:base,x=1.ext4"), Path: filepath.Join(dir, "disk"), Size: size}
	if err := os.WriteFile(v.Base, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(v.Base, 1<<20); err != nil {
		t.Fatal(err)
	}
	return v
}

func info(t *testing.T, path string) (i struct {
	VirtualSize   int64  `json:"virtual-size"`
	ClusterSize   int    `json:"cluster-size"`
	Backing       string `json:"full-backing-filename"`
	BackingFormat string `json:"backing-filename-format"`
}) {
	t.Helper()
	out, err := host.Output(t.Context(), host.Command{Argv: []string{"qemu-img", "info", "--output=json", path}})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &i); err != nil {
		t.Fatal(err)
	}
	return i
}

func TestQEMUReadsOurHeader(t *testing.T) {
	needQEMU(t)
	for _, size := range []int64{1 << 20, 8 << 30, 512<<30 + 512, 4 << 40} {
		t.Run(fmt.Sprintf("of a disk of %d bytes", size), func(t *testing.T) {
			v := newVolume(t, 1<<20)
			if err := qcow2.New().Create(t.Context(), v); err != nil {
				t.Fatal(err)
			}
			v.Size = size
			a, err := qcow2.New().Activate(t.Context(), v)
			if err != nil {
				t.Fatal(err)
			}
			got := info(t, a.Path)
			if got.VirtualSize != size || got.ClusterSize != 65536 || got.Backing != v.Base || got.BackingFormat != "raw" {
				t.Errorf("qemu-img info: %+v", got)
			}
			if err := (qemuDisk{t.TempDir()}).Write(t.Context(), a, size-512, bytes.Repeat([]byte{1}, 512)); err != nil {
				t.Error(err)
			}
			if err := host.Run(t.Context(), host.Command{Argv: []string{"qemu-img", "check", "-q", a.Path}}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Run("a clone of another base exists", func(t *testing.T) {
		v := newVolume(t, 1<<20)
		if err := qcow2.New().Create(t.Context(), v); err != nil {
			t.Fatal(err)
		}
		w := newVolume(t, 1<<20)
		w.Path = v.Path
		if err := qcow2.New().Create(t.Context(), w); !errkind.Is(err, api.KindExists) {
			t.Errorf("create: %v", err)
		}
		if _, err := qcow2.New().Activate(t.Context(), w); !errkind.Is(err, api.KindExists) {
			t.Errorf("activate: %v", err)
		}
	})
	t.Run("more than a clone can have", func(t *testing.T) {
		v := newVolume(t, 4<<40+512)
		if err := qcow2.New().Create(t.Context(), v); !errkind.Is(err, api.KindInvalid) {
			t.Errorf("create: %v", err)
		}
		v.Size = 1 << 20
		if err := qcow2.New().Create(t.Context(), v); err != nil {
			t.Fatal(err)
		}
		v.Size = 4<<40 + 512
		if _, err := qcow2.New().Activate(t.Context(), v); !errkind.Is(err, api.KindInvalid) {
			t.Errorf("activate: %v", err)
		}
	})
	for name, content := range map[string][]byte{"empty": nil, "cut short": []byte("QFI\xfb\x00\x00\x00\x03"), "zeros": make([]byte, 4<<16)} {
		t.Run("a file that is "+name+" is lost data, and kept", func(t *testing.T) {
			v := newVolume(t, 1<<20)
			if err := os.WriteFile(v.Path+".qcow2", content, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := qcow2.New().Create(t.Context(), v); !errkind.Is(err, api.KindDataLoss) {
				t.Errorf("create: %v", err)
			}
			if _, err := qcow2.New().Activate(t.Context(), v); !errkind.Is(err, api.KindDataLoss) {
				t.Errorf("activate: %v", err)
			}
			if got, _ := os.ReadFile(v.Path + ".qcow2"); !bytes.Equal(got, content) {
				t.Error("the file was changed")
			}
		})
	}
}

// BenchmarkCreate clones a base whose size is 64 GiB, and a small one: the times are to be the same.
func BenchmarkCreate(b *testing.B) {
	for _, size := range []int64{1 << 20, 64 << 30} {
		b.Run(fmt.Sprintf("base of %d MiB", size>>20), func(b *testing.B) {
			v := newVolume(b, size)
			if err := os.Truncate(v.Base, size); err != nil {
				b.Fatal(err)
			}
			path := v.Path
			for i := 0; b.Loop(); i++ {
				v.Path = fmt.Sprintf("%s%d", path, i)
				if err := qcow2.New().Create(b.Context(), v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
