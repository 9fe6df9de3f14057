package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/banger-vm/banger/internal/preflight"
)

const (
	smallFile = 1 << 20 // bytes up to which files are read in any case, such as a kernel's modules
	fullLimit = 30 * time.Minute
)

// kernels looks at the files of all kernels, and reads those of at most read bytes.
func (d *Doctor) kernels(ctx context.Context, read int64) (string, []preflight.Problem) {
	all, err := d.cfg.Kernels.List(ctx)
	if err != nil {
		return preflight.Failed(err)
	}
	var found []preflight.Problem
	for _, k := range all {
		bad := preflight.Kernel(k)
		if len(bad) == 0 {
			bad = preflight.KernelDigests(ctx, k, read)
		}
		found = append(found, bad...)
	}
	if len(all) == 0 {
		return "none yet; the first VM imports one", nil
	}
	return fmt.Sprintf("%d, among them %s (%s)", len(all), all[0].Name, all[0].Release), found
}

// images is kernels for images.
func (d *Doctor) images(ctx context.Context, read int64) (string, []preflight.Problem) {
	all, err := d.cfg.Images.List(ctx)
	if err != nil {
		return preflight.Failed(err)
	}
	var found []preflight.Problem
	for _, img := range all {
		bad := preflight.Image(img)
		if len(bad) == 0 {
			bad = preflight.ImageDigests(ctx, img, read)
		}
		found = append(found, bad...)
	}
	if len(all) == 0 {
		return "none yet; the first VM builds one", nil
	}
	return fmt.Sprintf("%d, among them %s", len(all), all[0].Name), found
}
