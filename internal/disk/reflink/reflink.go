// Package reflink clones disks by sharing the image's blocks: the FICLONE ioctl (ioctl_ficlone(2)), which XFS, btrfs and
// bcachefs have. Base and clone must be on one file system. The time depends on the number of the image's extents, not on
// its bytes.
package reflink

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/errkind"
	"golang.org/x/sys/unix"
)

// New returns the cloner.
func New() disk.Cloner {
	return disk.NewRaw(disk.Reflink, func(_ context.Context, dst, src *os.File) error { return Clone(dst, src) })
}

// Clone makes dst share all of src's blocks. A file system that cannot, and two files on different ones, are an error of kind
// unavailable.
func Clone(dst, src *os.File) error {
	err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
	for _, cannot := range []unix.Errno{unix.EOPNOTSUPP, unix.ENOTTY, unix.EXDEV, unix.EINVAL} {
		if errors.Is(err, cannot) {
			return errkind.New(api.KindUnavailable, "share blocks of %s: %w", src.Name(), err)
		}
	}
	if err != nil {
		return fmt.Errorf("share blocks of %s: %w", src.Name(), err)
	}
	return nil
}

// Probe tries a clone of one block in dir, which must exist, and returns nil if that works. It leaves nothing.
func Probe(dir string) error {
	var pair [2]*os.File
	for i := range pair {
		f, err := os.CreateTemp(dir, ".reflink-probe-*")
		if err != nil {
			return err
		}
		defer f.Close()
		defer os.Remove(f.Name())
		pair[i] = f
	}
	if _, err := pair[0].Write(make([]byte, 4096)); err != nil {
		return err
	}
	if err := unix.IoctlFileClone(int(pair[1].Fd()), int(pair[0].Fd())); err != nil {
		return fmt.Errorf("the file system of %s cannot share blocks between files: %w", dir, err)
	}
	return nil
}
