package imagemgr

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/preflight"
)

// BuildDebian makes an image with mmdebstrap, which works as root and, in a user namespace, as an ordinary user. A name
// that is taken is of kind exists, unless p.Replace: then the image that has it loses it, and is deleted if no VM uses it.
// When it fails or ctx ends nothing is left but mmdebstrap's log, in the cache directory.
func (m *Manager) BuildDebian(ctx context.Context, p api.ImageBuild, r opstate.Reporter) (banger.Image, error) {
	rec, err := newRecipe(p)
	if err != nil {
		return banger.Image{}, err
	}
	if rec.kernel != "" {
		k, err := m.cfg.Kernels.Get(ctx, rec.kernel)
		if err != nil {
			return banger.Image{}, err
		}
		rec.kernel = k.Name
	}
	ctx, unlock, err := m.locks.Lock(ctx, rec.name)
	if err != nil {
		return banger.Image{}, err
	}
	defer unlock()
	if _, taken, err := m.byName(ctx, rec.name); err != nil {
		return banger.Image{}, err
	} else if taken && !rec.replace {
		return banger.Image{}, errkind.WithHint(errkind.New(api.KindExists, "image %q exists", rec.name),
			"choose another name, or replace it with --replace")
	}
	return m.buildLocked(ctx, rec, r)
}

// buildLocked builds and publishes. The caller holds the name's lock.
func (m *Manager) buildLocked(ctx context.Context, rec recipe, r opstate.Reporter) (_ banger.Image, err error) {
	begun := time.Now()
	id := banger.NewID[banger.ImageID]()
	stage := filepath.Join(m.cfg.Dir, stagingPrefix+string(id))
	defer func() {
		if err != nil {
			undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			err = fmt.Errorf("build image %q: %w", rec.name, errors.Join(err, removeStage(undo, stage)))
		}
	}()
	r.Stage("prepare")
	mode, err := m.mode()
	if err != nil {
		return banger.Image{}, err
	}
	if err := errors.Join(os.MkdirAll(m.cfg.CacheDir, 0o700), os.Mkdir(stage, 0o700)); err != nil {
		return banger.Image{}, err
	}
	work, err := newWorkDir(stage, mode)
	if err != nil {
		return banger.Image{}, err
	}
	c, err := m.fill(ctx, stage, bootstrap{
		recipe: rec, mode: mode, tmp: work, report: r, log: filepath.Join(m.cfg.CacheDir, "build-"+rec.name+".log"),
	})
	if err != nil {
		return banger.Image{}, err
	}
	r.Stage("publish")
	if err := errors.Join(removeWork(ctx, stage), removeFile(filepath.Join(stage, workFile)), os.RemoveAll(filepath.Join(stage, workDir))); err != nil {
		return banger.Image{}, err
	}
	dir := m.dir(id)
	img := banger.Image{
		ID: id, Name: rec.name, Managed: true, Kernel: rec.kernel, Init: rec.init, Source: "debian:" + rec.suite,
		Digest: c.digest, RootSize: rec.rootOptions().Size, WorkSize: rec.seedOptions().Size, Packages: len(c.packages),
		Created: time.Now().UTC(), Rootfs: filepath.Join(dir, rootfsFile), WorkSeed: filepath.Join(dir, workSeedFile),
	}
	if img.Files, err = preflight.Record(ctx, stage, dir); err != nil {
		return banger.Image{}, err
	}
	man := manifest{Image: img, PackagesDigest: packagesDigest(c.packages), PackageList: c.packages}
	if err := m.publish(ctx, stage, man); err != nil {
		return banger.Image{}, err
	}
	m.cfg.Log.Info("image built", "image", img.Name, "id", img.ID, "packages", img.Packages, "took", time.Since(begun))
	return img, nil
}

// fill runs mmdebstrap and writes what it makes into the two file systems of stage, while it comes.
func (m *Manager) fill(ctx context.Context, stage string, b bootstrap) (content, error) {
	t, err := newTrees(ctx, stage, b.rootOptions(), b.seedOptions())
	if err != nil {
		return content{}, err
	}
	defer t.abort()
	c, err := m.pipe(ctx, b, &splitter{trees: t})
	if err != nil {
		return content{}, err
	}
	return c, t.close()
}

// pipe connects mmdebstrap to the splitter. When one of them fails the other is ended, and the first error is returned.
func (m *Manager) pipe(ctx context.Context, b bootstrap, s *splitter) (content, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return content{}, err
	}
	defer r.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	made := make(chan error, 1)
	go func() {
		err := m.bootstrap(ctx, b, w)
		made <- err // before the stream can end by it, so that the splitter's failure is known to be a consequence
		if err != nil {
			r.Close() // something that mmdebstrap started may still hold the other end
		}
		w.Close()
	}()
	c, err := s.run(ctx, r, b.report)
	if err == nil {
		return c, <-made
	}
	select {
	case makeErr := <-made:
		if makeErr != nil {
			err = makeErr
		}
	default:
		cancel(err)
		r.Close()
		<-made
	}
	return content{}, err
}
