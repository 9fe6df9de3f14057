package preflight

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"golang.org/x/sys/unix"
)

// Image tells what is wrong with an image's files, as far as looking at them without reading them tells.
func Image(img banger.Image) []Problem {
	files := img.Files
	if len(files) == 0 { // published before files were recorded, or registered
		files = []banger.File{{Path: img.Rootfs, Size: img.RootSize}}
		if img.WorkSeed != "" {
			files = append(files, banger.File{Path: img.WorkSeed, Size: img.WorkSize})
		}
	}
	return sizes(fmt.Sprintf("image %q", img.Name), files, imageFix(img))
}

// Kernel tells what is wrong with a kernel's files, likewise.
func Kernel(k banger.Kernel) []Problem {
	files := k.Files
	if len(files) == 0 {
		files = []banger.File{{Path: k.Image}}
		if k.Modules != "" {
			files = append(files, banger.File{Path: k.Modules})
		}
		for _, name := range k.BootModules {
			files = append(files, banger.File{Path: filepath.Join(k.Base, name)})
		}
	}
	return sizes(fmt.Sprintf("kernel %q", k.Name), files, kernelFix(k))
}

func imageFix(img banger.Image) string {
	return fmt.Sprintf("restore the file from a backup; or delete the VMs of the image and the image, and make it anew: `banger image delete %s`", img.Name)
}

func kernelFix(k banger.Kernel) string {
	return fmt.Sprintf("restore the file from a backup; or delete what uses the kernel and the kernel, and import it anew: `banger kernel delete %s`", k.Name)
}

// sizes looks at files. One whose size is not known is to be there and not empty.
func sizes(of string, files []banger.File, fix string) []Problem {
	var found []Problem
	for _, f := range files {
		st, err := os.Stat(f.Path)
		detail := ""
		switch {
		case errors.Is(err, fs.ErrNotExist):
			detail = fmt.Sprintf("%s: the file %s is gone", of, f.Path)
		case err != nil:
			detail = fmt.Sprintf("%s: %v", of, err)
		case !st.Mode().IsRegular():
			detail = fmt.Sprintf("%s: %s is not a regular file", of, f.Path)
		case f.Size > 0 && st.Size() != f.Size:
			detail = fmt.Sprintf("%s: the file %s has %d bytes and had %d", of, f.Path, st.Size(), f.Size)
		case st.Size() == 0:
			detail = fmt.Sprintf("%s: the file %s is empty", of, f.Path)
		default:
			continue
		}
		found = append(found, Problem{Detail: detail, Fix: fix, Kind: api.KindDataLoss})
	}
	return found
}

// ImageDigests reads an image's files of at most limit bytes, and tells which are not what was published.
func ImageDigests(ctx context.Context, img banger.Image, limit int64) []Problem {
	return Digests(ctx, fmt.Sprintf("image %q", img.Name), img.Files, limit, imageFix(img))
}

// KernelDigests is [ImageDigests] for a kernel.
func KernelDigests(ctx context.Context, k banger.Kernel, limit int64) []Problem {
	return Digests(ctx, fmt.Sprintf("kernel %q", k.Name), k.Files, limit, kernelFix(k))
}

// Digests reads files of at most limit bytes, which are those of a thing with a name for people, and tells which are not what was
// recorded. Each problem has the fix.
func Digests(ctx context.Context, of string, files []banger.File, limit int64, fix string) []Problem {
	var found []Problem
	for _, f := range files {
		if f.Size > limit {
			continue
		}
		got, err := digest(ctx, f.Path)
		switch {
		case err != nil:
			found = append(found, Problem{Detail: fmt.Sprintf("%s: %v", of, err), Fix: fix})
		case got != f.Digest:
			found = append(found, Problem{Detail: fmt.Sprintf("%s: the content of %s has changed", of, f.Path), Fix: fix})
		}
	}
	return found
}

// Record describes all regular files below dir, which is about to become final: what [Image], [Kernel] and the digests are
// compared with later.
func Record(ctx context.Context, dir, final string) ([]banger.File, error) {
	var files []banger.File
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		sum, err := digest(ctx, path)
		files = append(files, banger.File{Path: filepath.Join(final, rel), Size: info.Size(), Digest: sum})
		return err
	})
	return files, err
}

// block is the unit in which digest looks for zeros.
const block = 64 << 10

// digest returns the digest of the file at path: SHA-256 over its blocks that are not all zeros, each after its number. So a
// file that is mostly holes takes no longer than what is in it, and a copy without the holes has the same digest.
func digest(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	for end := int64(0); ; {
		start, err := f.Seek(end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // no data after end (lseek(2))
			return "sha256-blocks:" + hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
		if end, err = f.Seek(start, unix.SEEK_HOLE); err != nil {
			return "", err
		}
		start -= start % block
		if rest := end % block; rest != 0 {
			end += block - rest
		}
		if err := hashRange(ctx, h, f, start, end); err != nil {
			return "", err
		}
	}
}

func hashRange(ctx context.Context, h hash.Hash, f *os.File, start, end int64) error {
	buf, zeros := make([]byte, block), make([]byte, block)
	for at := start; at < end; at += block {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := f.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if bytes.Equal(buf[:n], zeros[:n]) {
			continue
		}
		var number [8]byte
		binary.BigEndian.PutUint64(number[:], uint64(at/block))
		h.Write(number[:])
		h.Write(buf[:n])
	}
	return nil
}
