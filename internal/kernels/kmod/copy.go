package kmod

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/klauspost/compress/zstd"
	xz "github.com/xi2/xz"
	"golang.org/x/sync/errgroup"
)

// Copy copies the tree's files to dir, which must not exist. Links are left out: they lead to headers and sources.
func (t *Tree) Copy(ctx context.Context, dir string) error {
	return filepath.WalkDir(t.Dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(t.Dir, path)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, rel)
		switch {
		case e.IsDir():
			return os.Mkdir(to, 0o700)
		case e.Type().IsRegular():
			return rewrite(to, path, func(w io.Writer, f *os.File) error {
				_, err := io.Copy(w, f)
				return err
			})
		}
		return nil
	})
}

// Uncompress replaces every compressed module of the tree by its uncompressed file, on all processors: a guest would pay for
// it at each load, and not every modprobe can. progress is told how many modules are done, concurrently.
func (t *Tree) Uncompress(ctx context.Context, progress func(done int)) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	plain := make(map[string]string, len(t.files))
	var done atomic.Int64
	for name, path := range t.files {
		if strings.HasSuffix(path, suffixes[0]) {
			plain[name] = path
			progress(int(done.Add(1)))
			continue
		}
		to := strings.TrimSuffix(path, filepath.Ext(path))
		plain[name] = to
		group.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := rewrite(to, path, uncompress); err != nil {
				return err
			}
			progress(int(done.Add(1)))
			return os.Remove(path)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	t.files = plain
	return nil
}

// rewrite makes the file to of the file from.
func rewrite(to, from string, how func(io.Writer, *os.File) error) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(how(dst, src), dst.Close())
}

// uncompress copies the module's file f to w, uncompressed. Its suffix says how it is compressed.
func uncompress(w io.Writer, f *os.File) error {
	var r io.Reader = f
	var err error
	switch filepath.Ext(f.Name()) {
	case ".gz":
		r, err = gzip.NewReader(f)
	case ".xz":
		r, err = xz.NewReader(f, 0)
	case ".zst":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(f, zstd.WithDecoderConcurrency(1)); err == nil {
			defer d.Close()
			r = d
		}
	}
	if err != nil {
		return errkind.New(api.KindInvalid, "uncompress %s: %w", f.Name(), err)
	}
	if _, err := io.Copy(w, r); err != nil {
		return fmt.Errorf("uncompress %s: %w", f.Name(), err)
	}
	return nil
}
