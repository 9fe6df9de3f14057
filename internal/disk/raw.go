package disk

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Raw is a [Cloner] whose clone is a raw file of its own, filled from the base in some way. It does not record its base:
// the clone's path, derived from the VM's id, is what ties the two.
type Raw struct {
	name string
	fill Fill
}

// Fill makes dst, which is empty, read as src does, of src's length. It observes ctx if it takes long.
type Fill func(ctx context.Context, dst, src *os.File) error

// NewRaw returns a cloner that fills its clones by fill.
func NewRaw(name string, fill Fill) *Raw { return &Raw{name: name, fill: fill} }

// Name is the cloner's name.
func (r *Raw) Name() string { return r.name }

func (r *Raw) path(v Volume) string { return v.Path + ".raw" }

// Create makes the clone as a sparse file of v.Size.
func (r *Raw) Create(ctx context.Context, v Volume) error {
	if err := r.create(ctx, v); err != nil {
		return fmt.Errorf("clone %s by %s: %w", v.Base, r.name, err)
	}
	return nil
}

func (r *Raw) create(ctx context.Context, v Volume) error {
	base, err := v.OpenBase()
	if err != nil {
		return err
	}
	defer base.Close()
	if _, err := os.Lstat(r.path(v)); err == nil {
		return nil // whole, because it has the final name
	}
	return Stage(r.path(v), func(f *os.File) error {
		if err := r.fill(ctx, f, base); err != nil {
			return err
		}
		return f.Truncate(v.Size)
	})
}

// Activate extends the clone to v.Size where it is smaller.
func (r *Raw) Activate(_ context.Context, v Volume) (Attachment, error) {
	st, err := os.Stat(r.path(v))
	if errors.Is(err, os.ErrNotExist) {
		return Attachment{}, errkind.New(api.KindNotFound, "disk %s is gone", r.path(v))
	}
	if err != nil {
		return Attachment{}, err
	}
	if err := v.CheckSize(0); err != nil {
		return Attachment{}, err
	}
	if st.Size() < v.Size {
		if err := os.Truncate(r.path(v), v.Size); err != nil {
			return Attachment{}, fmt.Errorf("grow disk: %w", err)
		}
	}
	return Attachment{Path: r.path(v), Format: "raw"}, nil
}

// Deactivate has nothing to do: no handle is held.
func (r *Raw) Deactivate(context.Context, Volume) error { return nil }

// Remove deletes the clone's file.
func (r *Raw) Remove(_ context.Context, v Volume) error { return Unstage(r.path(v)) }
