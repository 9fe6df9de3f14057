package imagemgr

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/imagemgr/oci"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/preflight"
)

// Pull makes an image of an OCI image, see [oci.Open] for what a reference may be. Without a name it gets one made of the
// reference. An image of that name that was made of the same manifest is returned as it is; another is of kind exists, unless
// p.Replace. When it fails or ctx ends nothing is left but layers in the cache, with which the next pull goes on.
func (m *Manager) Pull(ctx context.Context, p api.ImagePull, r opstate.Reporter) (banger.Image, error) {
	rec, err := m.pullRecipe(ctx, p)
	if err != nil {
		return banger.Image{}, err
	}
	ctx, unlock, err := m.locks.Lock(ctx, rec.name)
	if err != nil {
		return banger.Image{}, err
	}
	defer unlock()
	img, err := m.pullLocked(ctx, p, rec, r)
	if err != nil {
		return img, fmt.Errorf("pull image %q: %w", rec.name, err)
	}
	return img, nil
}

// pullRecipe checks a request.
func (m *Manager) pullRecipe(ctx context.Context, p api.ImagePull) (recipe, error) {
	rec := recipe{name: or(p.Name, nameOf(p.Ref)), kernel: p.Kernel, init: guestapi.InitMode(or(p.Init, string(guestapi.InitAgent))),
		rootSize: p.RootSize, replace: p.Replace}
	if rec.rootSize == 0 {
		rec.rootSize = defaultSize
	}
	if err := banger.CheckName("image", rec.name); err != nil {
		return rec, errkind.WithHint(err, "give the image a name with --name")
	}
	if err := rec.checkInitAndSize(); err != nil {
		return rec, err
	}
	if rec.kernel != "" {
		k, err := m.cfg.Kernels.Get(ctx, rec.kernel)
		if err != nil {
			return rec, err
		}
		rec.kernel = k.Name
	}
	return rec, nil
}

// notInNames is what a DNS label has none of.
var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// nameOf makes the name of an image from its reference: the last part of the repository or file, with the tag unless that is latest.
func nameOf(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	base := strings.TrimSuffix(path.Base(ref), ":latest")
	for _, end := range []string{".tar", ".tar.gz", ".tgz"} {
		base = strings.TrimSuffix(base, end)
	}
	return strings.Trim(notInNames.ReplaceAllString(strings.ToLower(base), "-"), "-")
}

func (m *Manager) pullLocked(ctx context.Context, p api.ImagePull, rec recipe, r opstate.Reporter) (_ banger.Image, err error) {
	id := banger.NewID[banger.ImageID]()
	stage := filepath.Join(m.cfg.Dir, stagingPrefix+string(id))
	temp := filepath.Join(stage, workDir)
	if err := os.MkdirAll(temp, 0o700); err != nil {
		return banger.Image{}, err
	}
	published := false
	defer func() {
		if !published {
			undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			err = errors.Join(err, removeStage(undo, stage))
		}
	}()
	r.Stage("find image")
	if err := m.step(ctx, "pull.find"); err != nil {
		return banger.Image{}, err
	}
	found, err := oci.Open(ctx, p.Ref, oci.Options{Platform: p.Platform, Cache: m.layersDir(), Temp: temp, Turns: &m.turns, Log: m.cfg.Log})
	if err != nil {
		return banger.Image{}, err
	}
	if there, taken, err := m.byName(ctx, rec.name); err != nil {
		return banger.Image{}, err
	} else if taken && there.Digest == found.Digest && there.RootSize == rec.rootSize && there.Init == rec.init {
		return there, nil
	} else if taken && !rec.replace {
		return banger.Image{}, errkind.WithHint(errkind.New(api.KindExists, "image %q exists, and is another one", rec.name),
			"give this one another name with --name, or replace it with --replace")
	}
	r.Stage("download layers")
	if err := m.step(ctx, "pull.download"); err != nil {
		return banger.Image{}, err
	}
	if err := found.Fetch(ctx, func(done, total int64) { r.Progress(done, total, "bytes") }); err != nil {
		return banger.Image{}, err
	}
	if err := m.layOut(ctx, found, rec, stage, r); err != nil {
		return banger.Image{}, err
	}
	r.Stage("publish")
	dir := m.dir(id)
	img := banger.Image{
		ID: id, Name: rec.name, Managed: true, Kernel: rec.kernel, Init: rec.init, Source: found.Source, Digest: found.Digest,
		RootSize: rec.rootOptions().Size, WorkSize: rec.seedOptions().Size, Created: time.Now().UTC(),
		Rootfs: filepath.Join(dir, rootfsFile), WorkSeed: filepath.Join(dir, workSeedFile),
	}
	if img.Run, err = useOf(found); err != nil {
		return banger.Image{}, err
	}
	if err := os.RemoveAll(temp); err != nil {
		return banger.Image{}, err
	}
	if img.Files, err = preflight.Record(ctx, stage, dir); err != nil {
		return banger.Image{}, err
	}
	if err := m.publish(ctx, stage, manifest{Image: img}); err != nil {
		return banger.Image{}, err
	}
	published = true
	m.cfg.Log.Info("image pulled", "image", img.Name, "id", img.ID, "source", img.Source)
	return img, nil
}

// layersDir is where layers of registries are kept, each under its digest. Anything in it may be removed.
func (m *Manager) layersDir() string { return filepath.Join(m.cfg.CacheDir, "layers") }

// layOut writes the image's layers into the two file systems of stage.
func (m *Manager) layOut(ctx context.Context, img *oci.Image, rec recipe, stage string, r opstate.Reporter) error {
	t, err := newTrees(ctx, stage, rec.rootOptions(), rec.seedOptions())
	if err != nil {
		return err
	}
	defer t.abort()
	r.Stage("write file systems")
	if err := m.step(ctx, "pull.write"); err != nil {
		return err
	}
	if err := img.Apply(ctx, unbooted{t}, rec.rootSize, func(done int64) { r.Progress(done, 0, "bytes") }); err != nil {
		return err
	}
	if err := t.complete(ctx); err != nil {
		return err
	}
	return t.close()
}

// useOf is what the image's configuration says of its use.
func useOf(img *oci.Image) (*banger.Run, error) {
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	c := file.Config
	return &banger.Run{Command: slices.Concat(c.Entrypoint, c.Cmd), Env: c.Env, User: c.User, Dir: c.WorkingDir}, nil
}

// unbooted are trees of an image that has no identity yet: a machine-id in its layers is left empty, for each VM gets its own.
type unbooted struct{ trees }

// Add implements oci.Target.
func (u unbooted) Add(ctx context.Context, hdr *tar.Header, content io.Reader) error {
	if path.Clean("/"+hdr.Name) == machineIDPath && hdr.Typeflag == tar.TypeReg {
		h := *hdr
		h.Size, hdr, content = 0, &h, strings.NewReader("")
	}
	return u.trees.Add(ctx, hdr, content)
}

// complete adds what a guest needs to begin, where the image has none: the places to mount at, and an empty machine-id, which its VM
// fills in.
func (t trees) complete(ctx context.Context) error {
	for _, d := range []struct {
		name string
		mode int64
	}{{"/root", 0o700}, {"/dev", 0o755}, {"/proc", 0o555}, {"/sys", 0o555}, {"/run", 0o755}, {"/tmp", 0o1777}, {"/etc", 0o755}} {
		if t.rootfs.Has(d.name) {
			continue
		}
		if err := t.rootfs.Add(ctx, &tar.Header{Typeflag: tar.TypeDir, Name: d.name, Mode: d.mode, ModTime: time.Unix(0, 0)}, nil); err != nil {
			return err
		}
	}
	if t.rootfs.Has(machineIDPath) {
		return nil
	}
	return t.rootfs.Add(ctx, &tar.Header{Typeflag: tar.TypeReg, Name: machineIDPath, Mode: 0o444, ModTime: time.Unix(0, 0)}, nil)
}
