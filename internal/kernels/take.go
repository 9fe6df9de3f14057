package kernels

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/disk/ext4"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/kernels/bzimage"
	"github.com/banger-vm/banger/internal/kernels/kmod"
)

// The files of a kernel's directory.
const (
	elfFile     = "vmlinux"
	bzImageFile = "bzImage"
	modulesFile = "modules.ext4"
	bootDir     = "boot"

	// outDir is that directory while it is in the staging directory.
	outDir = "out"
)

// image is a kernel image that was taken.
type image struct {
	bzimage.Vmlinux
	file   string // below the kernel's directory
	format string // elf or bzimage
}

// takeImage copies the kernel image at path to the directory out: uncompressed, unless QEMU could not start it like that.
func takeImage(ctx context.Context, path, out string) (image, error) {
	in, err := os.Open(path)
	if err != nil {
		return image{}, fmt.Errorf("kernel image: %w", err)
	}
	defer in.Close()
	compressed := bzimage.Is(in)
	f, err := os.OpenFile(filepath.Join(out, elfFile), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o444)
	if err != nil {
		return image{}, err
	}
	defer f.Close()
	if compressed {
		err = bzimage.Extract(writer{ctx, f}, in)
	} else {
		_, err = io.Copy(writer{ctx, f}, in)
	}
	if err != nil {
		return image{}, fmt.Errorf("kernel image %s: %w", path, err)
	}
	elf, err := bzimage.Read(f)
	switch {
	case err != nil:
		return image{}, fmt.Errorf("kernel image %s: %w", path, err)
	case elf.PVH:
		return image{elf, elfFile, "elf"}, nil
	case compressed:
		return image{elf, bzImageFile, "bzimage"}, keepBzImage(ctx, in, out)
	}
	return image{}, errkind.WithHint(errkind.New(api.KindInvalid, "kernel %s has no PVH entry point, so it cannot be started as ELF", elf.Release),
		"import its bzImage instead, or build it with CONFIG_PVH=y")
}

func keepBzImage(ctx context.Context, in *os.File, out string) error {
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(out, bzImageFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444)
	if err != nil {
		return err
	}
	_, err = io.Copy(writer{ctx, f}, in)
	return errors.Join(err, f.Close(), os.Remove(filepath.Join(out, elfFile)))
}

// writer stops when ctx ends.
type writer struct {
	ctx context.Context
	w   io.Writer
}

func (w writer) Write(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	return w.w.Write(p)
}

// copyBoot copies the boot modules of t, and what they depend on, to dir and returns their file names in load order: those
// that every VM loads, and those that one on PCI loads after them. Without their signatures they load in half the time, but
// a kernel may insist on these: ADR 0008.
func copyBoot(t *kmod.Tree, dir string, signed bool) (boot, pci []string, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, nil, err
	}
	vital, welcome, onPCI := bootModules()
	all, missing, err := t.Resolve(slices.Concat(vital, welcome, onPCI))
	if err != nil {
		return nil, nil, err
	}
	always, _, err := t.Resolve(slices.Concat(vital, welcome))
	if err != nil {
		return nil, nil, err
	}
	_, lost, err := t.Resolve(vital)
	if err != nil {
		return nil, nil, err
	}
	// A welcome module may be absent; one that is there needs all it depends on, as a vital one does.
	for _, name := range missing {
		if !slices.Contains(welcome, name) && !slices.Contains(onPCI, name) && !slices.Contains(lost, name) {
			lost = append(lost, name)
		}
	}
	if len(lost) > 0 {
		return nil, nil, errkind.New(api.KindInvalid, "kernel's modules lack %s", strings.Join(lost, ", "))
	}
	for _, path := range all {
		name := filepath.Base(path)
		b, err := os.ReadFile(path)
		if !signed {
			b = kmod.Unsigned(b)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o444)
		}
		if err != nil {
			return nil, nil, err
		}
		if slices.Contains(always, path) {
			boot = append(boot, name)
		} else {
			pci = append(pci, name)
		}
	}
	return boot, pci, nil
}

// treeImage makes a read-only file system at path whose root is the directory tree.
func treeImage(ctx context.Context, tree, path string) error {
	size, err := imageSize(tree)
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	packed := make(chan struct{})
	go func() {
		defer close(packed)
		w.CloseWithError(writeTar(ctx, w, tree))
	}()
	err = ext4.FromTar(ctx, r, path, ext4.Options{Size: size, Label: "modules", ReadOnly: true})
	r.CloseWithError(err) // ends the writer where FromTar did not read to the end
	<-packed
	if err != nil {
		return fmt.Errorf("make the module tree's file system: %w", err)
	}
	return os.Chmod(path, 0o444)
}

// writeTar writes the files and directories of the tree as root's. Links (build, source) lead to headers that a guest has not.
func writeTar(ctx context.Context, w io.Writer, tree string) error {
	tw := tar.NewWriter(writer{ctx, w})
	err := filepath.WalkDir(tree, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() && !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(tree, path)
		if err != nil {
			return err
		}
		hdr := &tar.Header{Typeflag: tar.TypeReg, Name: rel, Mode: 0o644, Size: info.Size(), ModTime: info.ModTime()}
		if e.IsDir() {
			hdr.Typeflag, hdr.Name, hdr.Mode, hdr.Size = tar.TypeDir, rel+"/", 0o755, 0
		}
		if err := tw.WriteHeader(hdr); err != nil || e.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(tw, f)
		return err
	})
	return errors.Join(err, tw.Close())
}

// imageSize returns a size in bytes that holds the tree as a file system, with room for its metadata. The file is sparse.
func imageSize(tree string) (int64, error) {
	const slack, perFile = 32 << 20, 8 << 10
	var sum int64 = slack
	err := filepath.WalkDir(tree, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil {
			sum += info.Size() + perFile
		}
		return err
	})
	return sum + sum/10, err
}
