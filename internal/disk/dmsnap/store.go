package dmsnap

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/errkind"
	"golang.org/x/sys/unix"
)

const chunkSize = chunk * disk.SectorSize

// storeSize returns how large a store must be to hold every chunk of a base: a header, the chunks, and one chunk of metadata for
// every 256 of them, with an entry of 16 bytes each, of which the last is always there empty (drivers/md/dm-snap-persistent.c).
func storeSize(base int64) int64 {
	const entries = chunkSize / 16
	chunks := (base + chunkSize - 1) / chunkSize
	metadata := chunks/entries + 2
	return (1 + chunks + metadata + 1) * chunkSize
}

// headSize is what is written of a store at once, so that a file system that is full already says so before a guest runs.
const headSize = 64 << 10

// makeStore makes an empty store for a base of that size.
func makeStore(v disk.Volume, base int64) error {
	return disk.Stage(storePath(v), func(f *os.File) error {
		if _, err := f.Write(make([]byte, headSize)); err != nil {
			return err
		}
		return f.Truncate(max(storeSize(base), headSize))
	})
}

// unclaimed refuses to make a clone where there is a store without a record: what was written is not thrown away.
func unclaimed(v disk.Volume) error {
	if _, err := os.Lstat(storePath(v)); !errors.Is(err, os.ErrNotExist) {
		return errkind.WithHint(errkind.New(api.KindDataLoss, "%s is there, and %s is gone", storePath(v), recordPath(v)),
			"restore the file from a backup, or delete the VM")
	}
	return nil
}

// growTail makes the tail at least size bytes long.
func growTail(v disk.Volume, size int64) error {
	if size <= 0 {
		return nil
	}
	now, err := tailSize(v)
	switch {
	case err != nil || now >= size:
		return err
	case now > 0:
		return os.Truncate(tailPath(v), size)
	}
	return disk.Stage(tailPath(v), func(f *os.File) error { return f.Truncate(size) })
}

// tailSize returns the tail's size; 0: there is none.
func tailSize(v disk.Volume) (int64, error) {
	st, err := os.Stat(tailPath(v))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// verify asks the kernel whether the snapshot is whole. One that is not makes the clone faulty. Kind not-found: there is no device.
func (c *Cloner) verify(v disk.Volume, r *record) error {
	err := c.intact(v, *r)
	if errkind.Is(err, api.KindDataLoss) && r.State != Faulty {
		err = errors.Join(err, unlessFull(r.become(v, Faulty)))
	}
	return err
}

func (c *Cloner) intact(v disk.Volume, r record) error {
	status, err := c.kernel.Status(r.Device)
	if err != nil || len(status) == 0 { // nothing is written through a device without a table
		return err
	}
	// Of a whole snapshot it is "USED/TOTAL METADATA", else a word, such as Invalid.
	if !strings.Contains(status[0].Text, "/") {
		return lost(v)
	}
	return nil
}

// lowSpace is how many free bytes of the host's file system are too few for a disk that may grow by as many.
const lowSpace = 2 << 30

// Inspect implements disk.Inspector. It changes nothing, and may run beside the other methods.
func (c *Cloner) Inspect(_ context.Context, v disk.Volume) error {
	r, err := readRecord(v)
	switch {
	case err != nil:
		return err
	case r.State == Faulty:
		return lost(v)
	case r.State != Active:
		return nil
	}
	if err := c.intact(v, r); err != nil {
		if errkind.Is(err, api.KindNotFound) {
			return nil // just deactivated
		}
		return err
	}
	return room(v)
}

// room warns when the store may come to need what the file system does not have.
func room(v disk.Volume) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(storePath(v), &fs); err != nil {
		return &os.PathError{Op: "statfs", Path: storePath(v), Err: err}
	}
	var st unix.Stat_t
	if err := unix.Stat(storePath(v), &st); err != nil {
		return &os.PathError{Op: "stat", Path: storePath(v), Err: err}
	}
	free, growth := int64(fs.Bavail)*fs.Bsize, st.Size-st.Blocks*512 // st_blocks counts 512-byte units (stat(2))
	if free >= min(lowSpace, growth) {
		return nil
	}
	// No figures: a message that changes all the time would be a new event each time.
	return errkind.WithHint(
		errkind.New(api.KindUnavailable, "the file system of %s is nearly full: when it is, all that was written to the disk is lost", storePath(v)),
		"free some space, or stop the VM: `banger doctor` shows what is left")
}
