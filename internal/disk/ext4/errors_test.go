package ext4

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"golang.org/x/sys/unix"
)

// wantFailure checks that a stream is refused with an error of the kind, and that nothing is left.
func wantFailure(t *testing.T, o Options, kind api.ErrorKind, files ...file) error {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fs")
	err := FromTar(t.Context(), pack(t, files...), path, o)
	wantKindAndNothing(t, err, kind, path)
	return err
}

func wantKindAndNothing(t *testing.T, err error, kind api.ErrorKind, path string) {
	t.Helper()
	if !errkind.Is(err, kind) {
		t.Errorf("got %v of kind %q, want %q", err, errkind.Of(err), kind)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s was left: %v", path, err)
	}
}

func TestErrors(t *testing.T) {
	needE2fsprogs(t)
	t.Run("streams that are no file system", func(t *testing.T) {
		for _, files := range [][]file{
			{link("l", "missing")}, {dir("d"), link("l", "d")}, {reg("f", ""), reg("f/below", "")}, {sym("s", "s"), reg("s/below", "")},
			{dir("d"), reg("d", "")}, {reg(strings.Repeat("n", 256), "")}, {sym("s", strings.Repeat("t", 4096))}, {sym(".", "x")},
		} {
			wantFailure(t, small, api.KindInvalid, files...)
		}
	})
	t.Run("options that make none", func(t *testing.T) {
		for _, o := range []Options{{Size: MinSize - 1}, {Size: 1 << 50}, {Size: MinSize, Label: "seventeen letters"}, {Size: MinSize, UUID: "-x"}} {
			wantFailure(t, o, api.KindInvalid)
		}
	})
	t.Run("content that does not fit", func(t *testing.T) {
		err := wantFailure(t, Options{Size: MinSize}, api.KindInvalid, reg("big", strings.Repeat("x", 20<<20)))
		if errkind.Hint(err) == "" {
			t.Error("no hint")
		}
	})
	t.Run("more files than inodes", func(t *testing.T) {
		var files []file
		for i := range 1100 {
			files = append(files, reg(fmt.Sprint(i), ""))
		}
		wantFailure(t, Options{Size: MinSize}, api.KindInvalid, files...)
	})
	t.Run("a file that is there already stays as it is", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "fs")
		if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Empty(t.Context(), path, small); !errkind.Is(err, api.KindExists) {
			t.Errorf("got %v", err)
		}
		if b, _ := os.ReadFile(path); string(b) != "mine" {
			t.Errorf("it became %q", b)
		}
	})
	t.Run("a stream that ends in the middle", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "fs")
		stream := pack(t, reg("f", strings.Repeat("x", 100000)))
		err := FromTar(t.Context(), io.LimitReader(stream, 50000), path, small)
		wantKindAndNothing(t, err, api.KindInternal, path)
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a caller who gives up", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "fs")
		ctx, cancel := context.WithCancel(t.Context())
		b, err := Create(ctx, path, small)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		err = b.Add(ctx, &tar.Header{Typeflag: tar.TypeDir, Name: "d"}, nil)
		b.Abort()
		wantKindAndNothing(t, err, api.KindCanceled, path)
		if b.Close() == nil {
			t.Error("Close after Abort succeeded")
		}
	})
	t.Run("a host whose disk is full", func(t *testing.T) {
		mnt := t.TempDir()
		if err := unix.Mount("tmpfs", mnt, "tmpfs", 0, "size=4m"); err != nil {
			t.Skipf("mount a small tmpfs: %v", err)
		}
		defer unix.Unmount(mnt, unix.MNT_DETACH)
		path := filepath.Join(mnt, "fs")
		err := FromTar(t.Context(), pack(t, reg("big", strings.Repeat("x", 8<<20))), path, small)
		wantKindAndNothing(t, err, api.KindUnavailable, path)
		if !errors.Is(err, unix.ENOSPC) || errkind.Hint(err) == "" {
			t.Errorf("got %v, hint %q", err, errkind.Hint(err))
		}
	})
}

func TestCheckAndInfo(t *testing.T) {
	needE2fsprogs(t)
	t.Run("a damaged file system is data loss", func(t *testing.T) {
		path := build(t, small, reg("f", "x"))
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		s, err := openSpace(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := writeAt(f, make([]byte, blockSize), s.field(0, gdBlockBitmap)); err != nil {
			t.Fatal(err)
		}
		if err := Check(t.Context(), path); !errkind.Is(err, api.KindDataLoss) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("what is no file system is invalid", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "fs")
		if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadInfo(path); !errkind.Is(err, api.KindInvalid) {
			t.Errorf("got %v", err)
		}
		if err := Check(t.Context(), filepath.Join(t.TempDir(), "missing")); err == nil {
			t.Error("a missing file passed")
		}
	})
}
