// Package sparse clones disks by copying: only the image's data is copied, its holes stay holes. It works on every file
// system and with every VMM, and is the last resort, because its time and space grow with the image.
package sparse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/banger-vm/banger/internal/disk"
	"golang.org/x/sys/unix"
)

// New returns the cloner, whose name is copy.
func New() disk.Cloner { return disk.NewRaw(disk.Copy, Copy) }

// chunk is how much is copied between two looks at the context.
const chunk = 16 << 20

// Copy makes dst, an empty file, read as src does, holes included (lseek(2), SEEK_DATA and SEEK_HOLE). The kernel copies
// (copy_file_range(2)), and shares blocks where the file system can.
func Copy(ctx context.Context, dst, src *os.File) error {
	st, err := src.Stat()
	if err != nil {
		return err
	}
	for end := int64(0); ; {
		start, err := src.Seek(end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // no data after end
			return dst.Truncate(st.Size())
		}
		if err != nil {
			return fmt.Errorf("find data: %w", err)
		}
		if end, err = src.Seek(start, unix.SEEK_HOLE); err != nil {
			return fmt.Errorf("find hole: %w", err)
		}
		if err := copyRange(ctx, dst, src, start, end); err != nil {
			return err
		}
	}
}

func copyRange(ctx context.Context, dst, src *os.File, start, end int64) error {
	for _, f := range []*os.File{src, dst} {
		if _, err := f.Seek(start, io.SeekStart); err != nil {
			return err
		}
	}
	for start < end {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		// os.File.ReadFrom copies in the kernel where it can.
		n, err := io.CopyN(dst, src, min(chunk, end-start))
		if err != nil {
			return fmt.Errorf("copy: %w", err)
		}
		start += n
	}
	return nil
}
