package kmod_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/kernels/kerneltest"
	"github.com/banger-vm/banger/internal/kernels/kmod"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

func write(t *testing.T, dir string, files map[string][]byte) string {
	t.Helper()
	for name, b := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func compressed(t *testing.T, b []byte, how string) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch how {
	case ".gz":
		w = gzip.NewWriter(&out)
	case ".xz":
		w, err = xz.NewWriter(&out)
	case ".zst":
		w, err = zstd.NewWriter(&out)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// tree is like the modules of a Debian kernel.
func tree(t *testing.T) *kmod.Tree {
	t.Helper()
	dir := write(t, filepath.Join(t.TempDir(), "6.1.0"), map[string][]byte{
		"modules.builtin":                         []byte("kernel/lib/crc16.ko\nkernel/drivers/virtio/virtio-anchor.ko\n"),
		"kernel/drivers/virtio/virtio.ko":         kerneltest.Module("depends=virtio_anchor", "vermagic=6.1.0 SMP mod_unload "),
		"kernel/drivers/virtio/virtio_ring.ko.xz": compressed(t, kerneltest.Module("depends=", "vermagic=6.1.0 SMP"), ".xz"),
		"kernel/drivers/block/virtio_blk.ko.zst":  compressed(t, kerneltest.Module("license=GPL", "depends=virtio,virtio_ring", "vermagic=6.1.0 SMP"), ".zst"),
		"kernel/drivers/char/virtio-rng.ko.gz":    compressed(t, kerneltest.Module("depends=virtio_ring,virtio", "vermagic=6.1.0 SMP"), ".gz"),
		"kernel/fs/ext4.ko":                       kerneltest.Module("softdep=pre: crypto-crc32c no-such post: late", "depends=crc16,jbd2", "vermagic=6.1.0 SMP"),
		"kernel/fs/jbd2.ko":                       kerneltest.Module("depends=", "vermagic=6.1.0 SMP"),
		"kernel/crypto/crc32c_generic.ko":         kerneltest.Module("depends=", "vermagic=6.1.0 SMP"),
		"kernel/late.ko":                          kerneltest.Module("depends=", "vermagic=6.1.0 SMP"),
		"kernel/loop-a.ko":                        kerneltest.Module("depends=loop_b", "vermagic=6.1.0 SMP"),
		"kernel/loop-b.ko":                        kerneltest.Module("depends=loop_a,gone", "vermagic=6.1.0 SMP"),
	})
	if err := os.Symlink("/usr/src/linux", filepath.Join(dir, "build")); err != nil {
		t.Fatal(err)
	}
	tr, err := kmod.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func names(paths []string) string {
	var n []string
	for _, p := range paths {
		n = append(n, filepath.Base(p))
	}
	return strings.Join(n, " ")
}

func TestResolve(t *testing.T) {
	tr := tree(t)
	for _, c := range []struct{ name, of, want, missing string }{
		{"what a module needs comes first", "virtio_blk", "virtio.ko virtio_ring.ko.xz virtio_blk.ko.zst", ""},
		{"each comes once, in the order asked for", "virtio_ring virtio-rng virtio_blk", "virtio_ring.ko.xz virtio.ko virtio-rng.ko.gz virtio_blk.ko.zst", ""},
		{"a soft dependency is found by its algorithm, and what comes after is left out", "ext4", "jbd2.ko crc32c_generic.ko ext4.ko", ""},
		{"what is in the kernel needs no file", "crc16 virtio_anchor", "", ""},
		{"what is missing is named", "vfat jbd2", "jbd2.ko", "vfat"},
		{"a circle ends, and what one of it lacks is named", "loop_a", "loop-b.ko loop-a.ko", "gone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			paths, missing, err := tr.Resolve(strings.Fields(c.of))
			if err != nil || names(paths) != c.want || strings.Join(missing, " ") != c.missing {
				t.Errorf("Resolve(%s) = %s; missing %s; %v", c.of, names(paths), missing, err)
			}
		})
	}
}

func TestCopyAndUncompress(t *testing.T) {
	tr := tree(t)
	dir := filepath.Join(t.TempDir(), "copy")
	if err := tr.Copy(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "build")); !os.IsNotExist(err) {
		t.Errorf("the link to sources was copied: %v", err)
	}
	cp, err := kmod.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var most atomic.Int64
	err = cp.Uncompress(t.Context(), func(n int) {
		for old := most.Load(); int64(n) > old && !most.CompareAndSwap(old, int64(n)); old = most.Load() {
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if int(most.Load()) != cp.Len() || cp.Len() != 10 {
		t.Errorf("%d of %d modules done", most.Load(), cp.Len())
	}
	paths, _, err := cp.Resolve([]string{"virtio_blk", "virtio_rng"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("virtio.ko virtio_ring.ko virtio_blk.ko virtio-rng.ko", names(paths)); diff != "" {
		t.Error(diff)
	}
	got, err := os.ReadFile(filepath.Join(dir, "kernel/drivers/virtio/virtio_ring.ko"))
	if err != nil || !bytes.Equal(got, kerneltest.Module("depends=", "vermagic=6.1.0 SMP")) {
		t.Errorf("the module is not what was compressed: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "kernel/drivers/virtio/virtio_ring.ko.xz")); !os.IsNotExist(err) {
		t.Errorf("the compressed module is still there: %v", err)
	}
}

func TestBadTrees(t *testing.T) {
	t.Run("a directory that is none", func(t *testing.T) {
		if _, err := kmod.Open(t.TempDir()); !errkind.Is(err, api.KindInvalid) {
			t.Errorf("error %v, want kind invalid", err)
		}
	})
	t.Run("a module that is none", func(t *testing.T) {
		for name, b := range map[string][]byte{"a.ko": []byte("text"), "b.ko": nil, "c.ko.xz": []byte("text"), "d.ko.zst": []byte("text")} {
			dir := write(t, t.TempDir(), map[string][]byte{"modules.builtin": nil, name: b})
			tr, err := kmod.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := tr.Resolve([]string{name[:1]}); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("error %v, want one that names %s", err, name)
			}
		}
	})
	t.Run("a canceled context ends copying and uncompressing", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		tr := tree(t)
		if err := tr.Copy(ctx, filepath.Join(t.TempDir(), "copy")); !errkind.Is(err, api.KindCanceled) {
			t.Errorf("copy: %v", err)
		}
		if err := tr.Uncompress(ctx, func(int) {}); !errkind.Is(err, api.KindCanceled) {
			t.Errorf("uncompress: %v", err)
		}
	})
	t.Run("a tree says what kernel it is of", func(t *testing.T) {
		if got, err := tree(t).Release(); err != nil || got != "6.1.0" {
			t.Errorf("Release() = %q, %v", got, err)
		}
	})
}
