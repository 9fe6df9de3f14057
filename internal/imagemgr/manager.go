// Package imagemgr owns images: it builds them, publishes them, finds them, and deletes them.
//
// An image is a directory below Config.Dir that its id names, with a root filesystem, a work-seed (a file system that
// holds what the distribution put into /root, for work disks to be cloned from) and image.json, plus a row in the
// store, which alone makes it an image. Published files never change and are not writable.
//
// Everything is staged in a directory named ".staging-ID" and published in this order: files and directories to disk,
// the file "uncommitted" among them; rename to ID; row; removal of "uncommitted". Deleting goes backwards. So what a crash
// leaves can be told for sure: a staging directory is always rubbish, and so is a directory with the file "uncommitted"
// and no row. [Manager.Sweep] removes those and nothing else.
//
// Lock order: one lock per image name, held for a whole build or deletion, taken with a context. Nobody holds two; no
// other lock is taken below it.
package imagemgr

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/failpoint"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/imagemgr/oci"
	"github.com/banger-vm/banger/internal/namelock"
	"github.com/banger-vm/banger/internal/opstate"
)

// DefaultName is the name of the image that [Manager.EnsureDefault] provides.
const DefaultName = "debian"

// Names of the files in an image's directory.
const (
	rootfsFile      = "rootfs.ext4"
	workSeedFile    = "work-seed.ext4"
	manifestFile    = "image.json"
	uncommittedFile = "uncommitted"
	stagingPrefix   = ".staging-"
)

// Store keeps the images' records. GetImage resolves a name, an id or a unique id prefix; one that is not there is of
// kind not-found. PutImage of a name that is taken is of kind exists. DeleteImage of an image that a VM uses is of kind
// precondition.
type Store interface {
	PutImage(ctx context.Context, image banger.Image) error
	GetImage(ctx context.Context, ref string) (banger.Image, error)
	ListImages(ctx context.Context) ([]banger.Image, error)
	UpdateImage(ctx context.Context, id banger.ImageID, change func(*banger.Image) error) (banger.Image, error)
	DeleteImage(ctx context.Context, id banger.ImageID) error
}

// Kernels finds kernels by name, id or unique id prefix.
type Kernels interface {
	Get(ctx context.Context, ref string) (banger.Kernel, error)
}

// Config is what a Manager needs.
type Config struct {
	Dir      string // holds one directory for each image; private to the daemon's user
	CacheDir string // holds the log of the last build of each name
	Store    Store
	Kernels  Kernels
	Points   failpoint.Set // its steps are image.NAME
	Guests   Guests
	Log      *slog.Logger
}

// Manager is the image service. Its methods may be called concurrently.
type Manager struct {
	cfg   Config
	locks namelock.Locks
	turns oci.Turns
	// Tests replace these two: how the host can run mmdebstrap, and what writes a root filesystem's tar stream to w.
	mode      func() (bootstrapMode, error)
	bootstrap func(ctx context.Context, b bootstrap, w *os.File) error
}

// New returns a Manager. It does no I/O.
func New(c Config) *Manager {
	return &Manager{cfg: c, locks: namelock.Locks{Noun: "image"}, mode: chooseMode, bootstrap: runMmdebstrap}
}

// step is where a fault is injected, and a process killed, in tests.
func (m *Manager) step(ctx context.Context, name string) error {
	return m.cfg.Points.Hit(ctx, "image."+name)
}

// List returns all images, oldest first.
func (m *Manager) List(ctx context.Context) ([]banger.Image, error) {
	return m.cfg.Store.ListImages(ctx)
}

// Get returns the image that ref, a name, id or unique id prefix, means.
func (m *Manager) Get(ctx context.Context, ref string) (banger.Image, error) {
	return m.cfg.Store.GetImage(ctx, ref)
}

// EnsureDefault returns the image [DefaultName], and builds it when there is none. Callers at the same time wait for one
// build; when that fails or is cancelled, the next of them tries.
func (m *Manager) EnsureDefault(ctx context.Context, r opstate.Reporter) (banger.Image, error) {
	if img, found, err := m.byName(ctx, DefaultName); found || err != nil {
		return img, err
	}
	r.Stage("wait for image " + DefaultName)
	ctx, unlock, err := m.locks.Lock(ctx, DefaultName)
	if err != nil {
		return banger.Image{}, err
	}
	defer unlock()
	if img, found, err := m.byName(ctx, DefaultName); found || err != nil {
		return img, err
	}
	rec, err := newRecipe(api.ImageBuild{Name: DefaultName})
	if err != nil {
		return banger.Image{}, err
	}
	return m.buildLocked(ctx, rec, r)
}

// byName finds the image with exactly this name.
func (m *Manager) byName(ctx context.Context, name string) (img banger.Image, found bool, err error) {
	all, err := m.cfg.Store.ListImages(ctx)
	for _, img := range all {
		if img.Name == name {
			return img, true, err
		}
	}
	return banger.Image{}, false, err
}

// Delete removes the image that ref means: row and, if banger manages them, files. users returns the names of the VMs
// that use an image; while there are any the image stays, and the error of kind precondition names them.
func (m *Manager) Delete(ctx context.Context, ref string, users func(context.Context, banger.ImageID) ([]string, error)) error {
	img, err := m.cfg.Store.GetImage(ctx, ref)
	if err != nil {
		return err
	}
	ctx, unlock, err := m.locks.Lock(ctx, img.Name)
	if err != nil {
		return err
	}
	defer unlock()
	names, err := users(ctx, img.ID)
	if err != nil {
		return fmt.Errorf("delete image %q: %w", img.Name, err)
	}
	if len(names) > 0 {
		return errkind.WithHint(errkind.New(api.KindPrecondition, "image %q is used by %s", img.Name, strings.Join(names, ", ")),
			"delete those VMs first: `banger vm delete %s`", strings.Join(names, " "))
	}
	if err := m.remove(ctx, img); err != nil {
		return fmt.Errorf("delete image %q: %w", img.Name, err)
	}
	m.cfg.Log.Info("image deleted", "image", img.Name, "id", img.ID)
	return nil
}

// remove deletes row and files, in the order that the package comment gives.
func (m *Manager) remove(ctx context.Context, img banger.Image) error {
	if !img.Managed {
		return m.cfg.Store.DeleteImage(ctx, img.ID)
	}
	dir := m.dir(img.ID)
	mark := filepath.Join(dir, uncommittedFile)
	if err := os.WriteFile(mark, nil, 0o600); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := m.forget(ctx, img); err != nil {
		return errors.Join(err, removeFile(mark))
	}
	if err := m.step(ctx, "delete.forgotten"); err != nil {
		return err
	}
	return removeImageDir(dir)
}

// forget deletes the row of an image that is marked.
func (m *Manager) forget(ctx context.Context, img banger.Image) error {
	if err := m.step(ctx, "delete.marked"); err != nil {
		return err
	}
	return m.cfg.Store.DeleteImage(ctx, img.ID)
}

func (m *Manager) dir(id banger.ImageID) string { return filepath.Join(m.cfg.Dir, string(id)) }

// removeImageDir removes a published directory file by file, so that what is not ours is never lost. "uncommitted" goes
// last: until then a crash leaves a directory that Sweep knows.
func removeImageDir(dir string) error {
	for _, name := range []string{rootfsFile, workSeedFile, manifestFile, uncommittedFile} {
		if err := removeFile(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return removeFile(dir)
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// manifest is image.json: the record and what is known of the content.
type manifest struct {
	banger.Image
	PackagesDigest string    `json:"packages_digest"` // sha256:HEX over lines "NAME ARCH VERSION\n", sorted
	PackageList    []Package `json:"package_list"`
}

// publish makes a staged directory an image. The files in it are on disk already.
func (m *Manager) publish(ctx context.Context, stage string, man manifest) (err error) {
	data, err := json.MarshalIndent(man, "", "  ")
	if err != nil {
		return err
	}
	if err := host.WriteFile(filepath.Join(stage, manifestFile), append(data, '\n'), 0o444); err != nil {
		return err
	}
	if err := host.WriteFile(filepath.Join(stage, uncommittedFile), nil, 0o600); err != nil {
		return err
	}
	dir := m.dir(man.ID)
	if err := m.step(ctx, "publish"); err != nil {
		return err
	}
	if err := host.Sync(stage); err != nil {
		return err
	}
	if err := os.Rename(stage, dir); err != nil {
		return err
	}
	if err := m.record(ctx, man.Image); err != nil {
		return errors.Join(err, removeImageDir(dir))
	}
	if err := m.step(ctx, "publish.recorded"); err != nil {
		m.cfg.Log.Warn("image published, and its mark stays until the next start", "image", man.Name, "err", err)
		return nil
	}
	return removeFile(filepath.Join(dir, uncommittedFile))
}

// record makes a published directory an image.
func (m *Manager) record(ctx context.Context, img banger.Image) error {
	if err := host.Sync(m.cfg.Dir); err != nil {
		return err
	}
	if err := m.step(ctx, "publish.renamed"); err != nil {
		return err
	}
	return m.commit(ctx, img)
}

// commit puts the row. An image that has the name loses it; it is deleted, or, while VMs use it, kept under a name made of
// its old one and its id.
func (m *Manager) commit(ctx context.Context, img banger.Image) error {
	old, replace, err := m.byName(ctx, img.Name)
	if err != nil {
		return err
	}
	rename := func(ctx context.Context, name string) error {
		_, err := m.cfg.Store.UpdateImage(ctx, old.ID, func(i *banger.Image) error { i.Name = name; return nil })
		return err
	}
	if replace {
		if err := rename(ctx, replacedName(old)); err != nil {
			return err
		}
	}
	if err := m.cfg.Store.PutImage(ctx, img); err != nil {
		if replace {
			err = errors.Join(err, rename(context.WithoutCancel(ctx), old.Name))
		}
		return err
	}
	if replace {
		if err := m.remove(ctx, old); err != nil {
			m.cfg.Log.Info("replaced image kept", "image", replacedName(old), "id", old.ID, "err", err)
		}
	}
	return nil
}

// replacedName is NAME-PREFIX, at most 63 characters.
func replacedName(img banger.Image) string {
	const prefix = 6
	name := img.Name[:min(len(img.Name), 63-1-prefix)]
	return name + "-" + string(img.ID)[:prefix]
}
