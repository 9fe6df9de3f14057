// Package disk is the contract of copy-on-write disks: how a VM gets a disk of its own from an image's file in time that
// does not depend on the image's size.
//
// A [Volume] is the durable part of a clone, named by the caller and known before it is made, so that a crash leaves
// nothing unnameable. The life of one: Create → (Activate → Deactivate)* → Remove. All four are idempotent: repeated after
// success or after a crash in the middle they end in the same state. The base file is opened read-only and must not change
// while a clone of it exists.
//
// The conformance suite is package disktest.
package disk

import "context"

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
	Base string // file it is cloned from; raw ext4
	Path string // where the clone lives, without extension; the cloner adds its own
	Size int64  // bytes the guest sees; at least the base's size. Clones only grow: a larger Size than at Create extends it at Activate
}

// Attachment is what the VMM opens.
type Attachment struct {
	Path   string
	Format string // raw or qcow2
}

// Usage is what a clone takes on the host, in bytes.
type Usage struct {
	Allocated int64
}
