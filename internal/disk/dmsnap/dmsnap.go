// Package dmsnap clones disks as device-mapper snapshots: a block device that reads from the image's file and keeps what is
// written in a sparse file of its own. It is for root and for VMMs that open nothing but raw disks, on file systems that do not
// clone files.
//
// A clone at PATH is three files:
//
//   - PATH.dmsnap: the record; it is there before anything else is, and goes last
//   - PATH.cow: the store of what was written over the image. Sparse, and nominally large enough for every chunk of the
//     image, so that only a full host file system overflows it
//   - PATH.tail: what the disk has beyond the image's size, as a plain sparse file; absent without such
//
// and, while it is active, one device named after PATH: target snapshot over the image, then target linear over the tail
// (Documentation/admin-guide/device-mapper/snapshot.rst). The device holds loop devices of the files; they vanish with it (package
// dm), so the only handle is a name that PATH gives. The loop device of an image is shared by the kernel's own count.
//
// # States
//
// The record has the [State] the clone is in. An "-ing" state is written before the act, the state that follows after it:
//
//	creating → created → activating → active → created …, and removing from each of them
//
// What the kernel has is compared with what the record wants at each step, so that a crash, a daemon's restart or a host's reboot
// between any two calls is made good by the next step. A snapshot whose store could not be written is dropped by the kernel
// with all that was written since the image: the clone is faulty from then on, and can only be removed. [Cloner.Inspect] warns
// before.
package dmsnap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/disk/dmsnap/dm"
	"github.com/banger-vm/banger/internal/errkind"
)

// Kernel is what is asked of the kernel; package dm says how each call behaves.
type Kernel interface {
	Loop(path string, readOnly bool) (Loop, error)
	Create(name string) error
	Load(name string, table []dm.Target) error
	Resume(name string) (node string, err error)
	Table(name string) (node string, table []dm.Target, err error)
	Status(name string) ([]dm.Target, error)
	Remove(name string) error
}

// Loop is a loop device, which is there until it is closed and no device uses it.
type Loop interface {
	Number() (string, error)
	Close() error
}

// running is the kernel that runs.
type running struct{ dm.Kernel }

// Loop implements Kernel.
func (r running) Loop(path string, readOnly bool) (Loop, error) { return r.Kernel.Loop(path, readOnly) }

// Probe returns nil where New's cloner works, else why it does not, with a hint.
func Probe() error { return dm.Kernel{}.Probe("snapshot") }

// New returns the cloner.
func New() *Cloner { return NewOn(running{}) }

// NewOn returns a cloner on that kernel.
func NewOn(k Kernel) *Cloner { return &Cloner{kernel: k} }

// Cloner is a [disk.Cloner] and a [disk.Inspector].
type Cloner struct{ kernel Kernel }

// Name implements disk.Cloner.
func (*Cloner) Name() string { return disk.DMSnap }

// Create makes the clone's files. No device is made.
func (c *Cloner) Create(ctx context.Context, v disk.Volume) error {
	if err := c.create(ctx, v); err != nil {
		return fmt.Errorf("clone %s by dmsnap: %w", v.Base, err)
	}
	return nil
}

func (c *Cloner) create(ctx context.Context, v disk.Volume) (err error) {
	size, err := baseSize(v)
	if err != nil {
		return err
	}
	r, err := readRecord(v)
	switch {
	case err == nil && r.State != Creating && r.State != Removing:
		return r.check(v, size)
	case err == nil:
		err = c.remove(ctx, v, r) // what a crash left
	case errkind.Is(err, api.KindNotFound):
		err = unclaimed(v)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	r = record{State: Creating, Base: v.Base, BaseSize: size, Device: deviceName(v)}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeFiles(v))
		}
	}()
	if err := r.write(v); err != nil {
		return err
	}
	if err := makeStore(v, size); err != nil {
		return err
	}
	if err := growTail(v, v.Size-size); err != nil {
		return err
	}
	r.State = Created
	return r.write(v)
}

// Activate makes the device, or finds it right. A clone whose store was lost, or overflowed, is of kind data loss.
func (c *Cloner) Activate(ctx context.Context, v disk.Volume) (disk.Attachment, error) {
	r, err := readRecord(v)
	if err == nil {
		var size int64
		if size, err = baseSize(v); err == nil {
			err = r.check(v, size)
		}
	}
	if err == nil {
		err = r.usable(v)
	}
	if err != nil {
		return disk.Attachment{}, err
	}
	node, err := c.activate(ctx, v, &r)
	if err != nil {
		return disk.Attachment{}, fmt.Errorf("activate disk %s: %w", v.Path, err)
	}
	return disk.Attachment{Path: node, Format: "raw"}, nil
}

func (c *Cloner) activate(ctx context.Context, v disk.Volume, r *record) (string, error) {
	if err := growTail(v, v.Size-r.BaseSize); err != nil {
		return "", fmt.Errorf("grow disk: %w", err)
	}
	var held loops
	defer held.close() // by then the device holds them itself
	want, err := c.table(v, *r, &held)
	if err != nil {
		return "", err
	}
	node, have, err := c.kernel.Table(r.Device)
	if err != nil || r.State == Created || !slices.Equal(have, want) {
		if node, err = c.build(ctx, v, r, want); err != nil {
			return "", err
		}
	}
	if err := c.verify(v, r); err != nil {
		return "", errors.Join(err, c.removeDevice(ctx, r.Device))
	}
	if r.State == Active {
		return node, nil
	}
	return node, r.become(v, Active)
}

// build makes the device anew. On error there is none.
func (c *Cloner) build(ctx context.Context, v disk.Volume, r *record, table []dm.Target) (node string, err error) {
	if err := r.become(v, Activating); err != nil {
		return "", err
	}
	if err := c.removeDevice(ctx, r.Device); err != nil { // of a crash, or of another size
		return "", err
	}
	if err := c.kernel.Create(r.Device); err != nil {
		return "", err
	}
	if err = c.kernel.Load(r.Device, table); err == nil {
		node, err = c.kernel.Resume(r.Device)
	}
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeWithin)
		defer cancel()
		return "", errors.Join(err, c.removeDevice(undo, r.Device), unlessFull(r.become(v, Created)))
	}
	return node, nil
}

// chunk is the unit of copying on write, in sectors: 4 KiB, ext4's block, so that a block that is written needs no copy.
const chunk = 8

// table returns the table that the clone's device should have. Its loop devices are added to held.
func (c *Cloner) table(v disk.Volume, r record, held *loops) ([]dm.Target, error) {
	base, err := held.number(c.kernel.Loop(v.Base, true))
	if err != nil {
		return nil, err
	}
	store, err := held.number(c.kernel.Loop(storePath(v), false))
	if err != nil {
		return nil, err
	}
	end := uint64(r.BaseSize / disk.SectorSize)
	table := []dm.Target{{Length: end, Type: "snapshot", Text: fmt.Sprintf("%s %s P %d", base, store, chunk)}}
	size, err := tailSize(v)
	if err != nil || size == 0 {
		return table, err
	}
	tail, err := held.number(c.kernel.Loop(tailPath(v), false))
	if err != nil {
		return nil, err
	}
	return append(table, dm.Target{Start: end, Length: uint64(size / disk.SectorSize), Type: "linear", Text: tail + " 0"}), nil
}

// loops are loop devices that are held until a device holds them.
type loops []Loop

// number adds l, and returns its number. It takes the error of the call that gave l.
func (ls *loops) number(l Loop, err error) (string, error) {
	if err != nil {
		return "", err
	}
	*ls = append(*ls, l)
	return l.Number()
}

func (ls *loops) close() {
	for _, l := range *ls {
		l.Close() // it was opened for its number: there is nothing to lose
	}
}

// Deactivate removes the device. What the kernel says of the store last is remembered.
func (c *Cloner) Deactivate(ctx context.Context, v disk.Volume) error {
	r, err := readRecord(v)
	if errkind.Is(err, api.KindNotFound) || r.State == Creating || r.State == Created || r.State == Removing {
		return nil
	}
	if err != nil {
		return err
	}
	if err := c.verify(v, &r); err != nil && !errkind.Is(err, api.KindNotFound) && !errkind.Is(err, api.KindDataLoss) {
		return fmt.Errorf("deactivate disk %s: %w", v.Path, err)
	}
	if err := c.removeDevice(ctx, r.Device); err != nil {
		return fmt.Errorf("deactivate disk %s: %w", v.Path, err)
	}
	if r.State == Faulty {
		return nil
	}
	return unlessFull(r.become(v, Created))
}

// Remove removes device and files.
func (c *Cloner) Remove(ctx context.Context, v disk.Volume) error {
	r, err := readRecord(v)
	if errkind.Is(err, api.KindNotFound) {
		return removeFiles(v)
	}
	if err == nil {
		err = c.remove(ctx, v, r)
	}
	if err != nil {
		return fmt.Errorf("remove disk %s: %w", v.Path, err)
	}
	return nil
}

func (c *Cloner) remove(ctx context.Context, v disk.Volume, r record) error {
	if r.State != Creating { // then there never was a device
		if err := unlessFull(r.become(v, Removing)); err != nil {
			return err
		}
		if err := c.removeDevice(ctx, r.Device); err != nil {
			return err
		}
	}
	return removeFiles(v)
}

// removeWithin bounds the wait for others to close a device. udev's workers, who look at every new device, take a moment;
// a VMM that has it open does not go away.
const removeWithin = 10 * time.Second

// removeDevice removes the device if there is one.
func (c *Cloner) removeDevice(ctx context.Context, name string) error {
	late := time.After(removeWithin)
	for pause := time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		err := c.kernel.Remove(name)
		switch {
		case err == nil, errkind.Is(err, api.KindNotFound):
			return nil
		case !errkind.Is(err, api.KindBusy):
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		case <-late:
			return errkind.WithHint(err, "see who has it open: `lsof /dev/mapper/%s`", name)
		case <-time.After(pause):
		}
	}
}

// baseSize returns the size of v's base, which is to be one that a loop device can show whole.
func baseSize(v disk.Volume) (int64, error) {
	f, err := v.OpenBase()
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if st.Size()%disk.SectorSize != 0 {
		return 0, errkind.New(api.KindInvalid, "size of %s, %d bytes, is not a multiple of %d", v.Base, st.Size(), disk.SectorSize)
	}
	return st.Size(), nil
}

func removeFiles(v disk.Volume) error {
	for _, path := range []string{storePath(v), tailPath(v), recordPath(v)} {
		if err := disk.Unstage(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
