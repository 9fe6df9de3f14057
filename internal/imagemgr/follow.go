package imagemgr

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/disk/ext4"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/imagemgr/steps"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/preflight"
)

// Guests boots guests that are nobody's VM. Run boots one on clones of an image's disks, has w.Do work in it, powers it off, and
// hands the disks to w.Take; of the guest nothing is left, whatever happens, and after a crash nothing once the daemon has started.
type Guests interface {
	Run(ctx context.Context, w GuestWork, r opstate.Reporter) error
}

// GuestWork is what a guest is for.
type GuestWork struct {
	Image    banger.Image
	Kernel   string // name; empty: the image's
	RootSize int64  // bytes of the root disk, at least the image's
	Do       func(ctx context.Context, conn *guest.Conn) error
	// Take gets the paths of the root and the work disk, raw ext4 file systems that were unmounted. It may rename the files within the
	// file system that Config.Dir is on.
	Take func(ctx context.Context, root, work string) error
}

// BuildRecipe makes an image of another one by a recipe. An image of that name that the same recipe made of the same base is returned as
// it is, unless p.NoCache; another is of kind exists, unless p.Replace. When it fails or ctx ends nothing is left but the log of
// the steps, in the cache directory.
func (m *Manager) BuildRecipe(ctx context.Context, p api.ImageRecipe, r opstate.Reporter) (banger.Image, error) {
	base, img, err := m.plan(ctx, p)
	if err != nil {
		return banger.Image{}, err
	}
	ctx, unlock, err := m.locks.Lock(ctx, img.Name)
	if err != nil {
		return banger.Image{}, err
	}
	defer unlock()
	there, taken, err := m.byName(ctx, img.Name)
	switch {
	case err != nil:
		return banger.Image{}, err
	case taken && there.Digest == img.Digest && there.Kernel == img.Kernel && there.Init == img.Init && !p.NoCache:
		return there, nil
	case taken && !p.Replace:
		return banger.Image{}, errkind.WithHint(errkind.New(api.KindExists, "image %q exists, and is another one", img.Name),
			"give this one another name, or replace it with --replace")
	}
	if err := m.follow(ctx, p, base, &img, r); err != nil {
		return banger.Image{}, fmt.Errorf("build image %q: %w", img.Name, err)
	}
	return img, nil
}

// plan checks a request, and returns its base and what the image will be.
func (m *Manager) plan(ctx context.Context, p api.ImageRecipe) (base, img banger.Image, err error) {
	if err := errors.Join(banger.CheckName("image", p.Name), steps.Check(p)); err != nil {
		return base, img, err
	}
	if base, err = m.cfg.Store.GetImage(ctx, p.Base); err != nil {
		return base, img, err
	}
	id := banger.NewID[banger.ImageID]()
	img = banger.Image{
		ID: id, Name: p.Name, Managed: true, Kernel: base.Kernel, Init: cmp.Or(guestapi.InitMode(p.Init), base.Init),
		Source: "recipe on " + base.Name, Digest: steps.Key(p, string(base.ID)), RootSize: cmp.Or(p.RootSize, base.RootSize),
		Rootfs: filepath.Join(m.dir(id), rootfsFile), WorkSeed: filepath.Join(m.dir(id), workSeedFile), Run: runOf(base, p.Env),
	}
	if img.RootSize < base.RootSize {
		return base, img, errkind.New(api.KindInvalid, "root size %d is less than the %d of image %q", img.RootSize, base.RootSize, base.Name)
	}
	if err := (recipe{init: img.Init, rootSize: img.RootSize}).checkInitAndSize(); err != nil {
		return base, img, err
	}
	if p.Kernel != "" {
		k, err := m.cfg.Kernels.Get(ctx, p.Kernel)
		if err != nil {
			return base, img, err
		}
		img.Kernel = k.Name
	}
	return base, img, nil
}

// runOf is how an image made of base is to be used.
func runOf(base banger.Image, env []string) *banger.Run {
	if base.Run == nil && len(env) == 0 {
		return nil
	}
	run := banger.Run{}
	if base.Run != nil {
		run = *base.Run
	}
	run.Env = slices.Concat(run.Env, env) // of two values the later one holds
	return &run
}

// follow builds and publishes. The caller holds the name's lock.
func (m *Manager) follow(ctx context.Context, p api.ImageRecipe, base banger.Image, img *banger.Image, r opstate.Reporter) (err error) {
	begun := time.Now()
	stage := filepath.Join(m.cfg.Dir, stagingPrefix+string(img.ID))
	if err := errors.Join(os.MkdirAll(m.cfg.CacheDir, 0o700), os.MkdirAll(stage, 0o700)); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			err = errors.Join(err, removeStage(undo, stage))
		}
	}()
	log, err := os.OpenFile(filepath.Join(m.cfg.CacheDir, "build-"+img.Name+".log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	work := GuestWork{Image: base, Kernel: img.Kernel, RootSize: img.RootSize}
	work.Do = func(ctx context.Context, conn *guest.Conn) error {
		err := steps.Follow(ctx, conn, p, log, r)
		if errkind.Is(err, api.KindGuest) {
			err = errkind.WithHint(err, "everything that the steps said is in %s", log.Name())
		}
		return err
	}
	work.Take = func(ctx context.Context, root, work string) error { return m.take(ctx, stage, img, root, work, r) }
	if err := m.cfg.Guests.Run(ctx, work, r); err != nil {
		return err
	}
	r.Stage("publish")
	if img.Files, err = preflight.Record(ctx, stage, m.dir(img.ID)); err != nil {
		return err
	}
	img.Created = time.Now().UTC()
	if err := m.publish(ctx, stage, manifest{Image: *img}); err != nil {
		return err
	}
	m.cfg.Log.Info("image built", "image", img.Name, "id", img.ID, "base", base.Name, "took", time.Since(begun))
	return nil
}

// take checks the file systems of a guest's disks and makes them the image's.
func (m *Manager) take(ctx context.Context, stage string, img *banger.Image, root, work string, r opstate.Reporter) error {
	r.Stage("check file systems")
	for _, f := range []struct{ from, to string }{{root, rootfsFile}, {work, workSeedFile}} {
		if err := ext4.Check(ctx, f.from); err != nil {
			return err
		}
		if err := errors.Join(os.Chmod(f.from, 0o444), host.Sync(f.from), os.Rename(f.from, filepath.Join(stage, f.to))); err != nil {
			return err
		}
	}
	st, err := os.Stat(filepath.Join(stage, workSeedFile))
	if err != nil {
		return err
	}
	img.WorkSize = st.Size()
	return nil
}
