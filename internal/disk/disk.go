// Package disk is the contract of copy-on-write disks: how a VM gets a disk of its own from an image's file in time that
// does not depend on the image's size.
//
// A [Volume] is the durable part of a clone, named by the caller and known before it is made, so that a crash leaves
// nothing unnameable. The life of one: Create → (Activate → Deactivate)* → Remove. All four are idempotent: repeated after
// success or after a crash in the middle they end in the same state. The base file is opened read-only and must not change
// while a clone of it exists.
//
// A clone is written under a name of its own (the final one and ".partial") and renamed when it is complete: what is found
// under the final name is whole, what is found under the other is the leftover of a crash, and Create and Remove delete it.
// Two callers never work on one Volume at a time: the VM's lock sees to that.
//
// A cloner is either a [Raw] one (packages reflink and sparse), or package qcow2's or dmsnap's. [Choose] names the one to use. The
// conformance suite is package disktest.
package disk

import (
	"context"
	"fmt"
	"os"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Cloner makes clones in one way.
type Cloner interface {
	Name() string
	// Create makes the clone. On error nothing is left at v.Path. An existing complete clone of the same base is kept.
	Create(ctx context.Context, v Volume) error
	// Activate makes the clone usable by a VMM.
	Activate(ctx context.Context, v Volume) (Attachment, error)
	Deactivate(ctx context.Context, v Volume) error
	Remove(ctx context.Context, v Volume) error
}

// Volume names a clone. It is derivable from the VM's record alone.
type Volume struct {
	Base string // file it is cloned from: an ext4 file system, or with BaseFormat another clone
	Path string // where the clone lives, without extension; the cloner adds its own
	// BaseFormat is what the cloner's own clones are, where Base is one of them; empty: raw.
	BaseFormat string
	Size       int64 // bytes the guest sees; at least the base's size. Clones only grow: a larger Size than at Create extends it at Activate
}

// SectorSize is the unit of a disk's size, in bytes: what virtio-blk counts in (Virtual I/O Device specification 1.2,
// section 5.2.4).
const SectorSize = 512

// CheckSize checks that v can be a clone of a base of baseSize bytes.
func (v Volume) CheckSize(baseSize int64) error {
	switch {
	case v.Size%SectorSize != 0:
		return errkind.New(api.KindInvalid, "disk size of %d bytes is not a multiple of %d", v.Size, SectorSize)
	case v.Size < baseSize:
		return errkind.WithHint(errkind.New(api.KindInvalid, "disk size of %d bytes is less than its image's %d", v.Size, baseSize),
			"disks only grow: ask for at least the image's size")
	}
	return nil
}

// OpenBase opens v's base read-only and checks v's size against it. A missing base is of kind not-found.
func (v Volume) OpenBase() (*os.File, error) {
	f, err := os.Open(v.Base)
	if os.IsNotExist(err) {
		return nil, errkind.New(api.KindNotFound, "image file %s is gone", v.Base)
	}
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errkind.New(api.KindInvalid, "image file %s is not a regular file", v.Base)
	}
	if err == nil && v.BaseFormat == "" { // a clone knows its size, its file does not
		err = v.CheckSize(st.Size())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Attachment is what the VMM opens.
type Attachment struct {
	Path   string
	Format string // raw or qcow2
}

// Inspector is an optional interface of a [Cloner] whose clones can be lost to a full disk while they are in use.
type Inspector interface {
	// Inspect returns what is wrong with an active clone or soon will be: kind unavailable is a warning, of kind data loss is
	// one that is lost. A clone that is not active is fine.
	Inspect(ctx context.Context, v Volume) error
}

// Stage makes the file at path by fill, which writes it under another name; the file appears at path when it is complete, and
// only then. On error nothing is left. A leftover of an earlier crash is replaced.
func Stage(path string, fill func(*os.File) error) (err error) {
	partial := path + partialSuffix
	if err := removeFiles(partial); err != nil {
		return err
	}
	f, err := os.OpenFile(partial, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(partial)
		}
	}()
	if err := fill(f); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("close %s: %w", partial, err)
	}
	return os.Rename(partial, path)
}

// Unstage removes the file at path and what a crash in [Stage] left of it. Neither needs to exist.
func Unstage(path string) error { return removeFiles(path, path+partialSuffix) }

const partialSuffix = ".partial"

func removeFiles(paths ...string) error {
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}
