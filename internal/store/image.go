package store

import (
	"context"
	"database/sql"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
)

var images = table[banger.Image]{
	name: "image", noun: "image", list: "banger image list", extra: ", kernel",
	row: func(i banger.Image) record {
		return record{id: string(i.ID), name: i.Name, created: i.Created, extra: []any{i.Kernel}}
	},
}

var kernels = table[banger.Kernel]{
	name: "kernel", noun: "kernel", list: "banger kernel list",
	row: func(k banger.Kernel) record { return record{id: string(k.ID), name: k.Name, created: k.Created} },
}

// PutImage stores a new image. A name or id that is taken is of kind exists.
func (s *Store) PutImage(ctx context.Context, image banger.Image) error {
	return s.writes(ctx, func(tx *sql.Tx) ([]api.Event, error) {
		return []api.Event{{Type: api.EventImageCreated, ID: string(image.ID), Name: image.Name}}, images.insert(ctx, tx, image)
	})
}

// GetImage returns the image that ref means; see [Store.GetVM].
func (s *Store) GetImage(ctx context.Context, ref string) (banger.Image, error) {
	return images.get(ctx, s.read, ref)
}

// ListImages returns all images, oldest first.
func (s *Store) ListImages(ctx context.Context) ([]banger.Image, error) {
	return images.all(ctx, s.read, "ORDER BY created, rowid")
}

// UpdateImage changes the image with the exact id in one transaction and returns it as it is then. An error from fn
// changes nothing and is returned as it is. fn must not call the store.
func (s *Store) UpdateImage(ctx context.Context, id banger.ImageID, fn func(*banger.Image) error) (banger.Image, error) {
	var image banger.Image
	err := inTx(ctx, s.write, func(tx *sql.Tx) (err error) {
		image, err = images.update(ctx, tx, string(id), fn)
		return err
	})
	if err != nil {
		return banger.Image{}, mapError(ctx, err)
	}
	return image, nil
}

// DeleteImage forgets the image with the exact id. One that is not there is no error; one that a VM uses is of kind
// precondition.
func (s *Store) DeleteImage(ctx context.Context, id banger.ImageID) error {
	return s.writes(ctx, func(tx *sql.Tx) ([]api.Event, error) {
		image, found, err := images.delete(ctx, tx, string(id))
		if !found {
			return nil, err
		}
		return []api.Event{{Type: api.EventImageDeleted, ID: string(id), Name: image.Name}}, nil
	})
}

// ImagesUsingKernel returns the names of the images that name the kernel, sorted.
func (s *Store) ImagesUsingKernel(ctx context.Context, name string) ([]string, error) {
	return names(ctx, s.read, "SELECT name FROM image WHERE kernel = ? ORDER BY name", name)
}

// PutKernel stores a new kernel. A name or id that is taken is of kind exists.
func (s *Store) PutKernel(ctx context.Context, kernel banger.Kernel) error {
	return s.writes(ctx, func(tx *sql.Tx) ([]api.Event, error) {
		return []api.Event{{Type: api.EventKernelCreated, ID: string(kernel.ID), Name: kernel.Name}}, kernels.insert(ctx, tx, kernel)
	})
}

// GetKernel returns the kernel that ref means; see [Store.GetVM].
func (s *Store) GetKernel(ctx context.Context, ref string) (banger.Kernel, error) {
	return kernels.get(ctx, s.read, ref)
}

// ListKernels returns all kernels, oldest first.
func (s *Store) ListKernels(ctx context.Context) ([]banger.Kernel, error) {
	return kernels.all(ctx, s.read, "ORDER BY created, rowid")
}

// DeleteKernel forgets the kernel with the exact id. One that is not there is no error; one that a VM uses is of kind
// precondition.
func (s *Store) DeleteKernel(ctx context.Context, id banger.KernelID) error {
	return s.writes(ctx, func(tx *sql.Tx) ([]api.Event, error) {
		kernel, found, err := kernels.delete(ctx, tx, string(id))
		if !found {
			return nil, err
		}
		return []api.Event{{Type: api.EventKernelDeleted, ID: string(id), Name: kernel.Name}}, nil
	})
}
