package kernels

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/preflight"
	"golang.org/x/sys/unix"
)

// Import makes a kernel of what p names. A kernel that cannot serve banger's guests is refused with what it lacks; on any
// error nothing is left. Names are given once: one that is taken is of kind exists.
func (m *Manager) Import(ctx context.Context, p api.KernelImport, r opstate.Reporter) (banger.Kernel, error) {
	if err := checkSource(p); err != nil {
		return banger.Kernel{}, err
	}
	if p.Name == "" {
		p.Name = defaultName(p)
	}
	if err := banger.CheckName("kernel", p.Name); err != nil {
		return banger.Kernel{}, err
	}
	ctx, unlock, err := m.names.Lock(ctx, p.Name)
	if err != nil {
		return banger.Kernel{}, err
	}
	defer unlock()
	return m.importLocked(ctx, p, r)
}

func (m *Manager) importLocked(ctx context.Context, p api.KernelImport, r opstate.Reporter) (banger.Kernel, error) {
	// A reference that finds nothing, or a kernel whose id begins like this name, leaves the name free.
	if k, err := m.Get(ctx, p.Name); err == nil && k.Name == p.Name {
		return banger.Kernel{}, errkind.WithHint(errkind.New(api.KindExists, "kernel %q exists", p.Name),
			"choose another name with --name, or delete it: `banger kernel delete %s`", p.Name)
	}
	id := banger.NewID[banger.KernelID]()
	stage := filepath.Join(m.cfg.Dir, stagingPrefix+string(id))
	if err := os.Mkdir(stage, 0o700); err != nil {
		return banger.Kernel{}, err
	}
	defer os.RemoveAll(stage) // ours from end to end
	k := banger.Kernel{ID: id, Name: p.Name, Created: time.Now().UTC()}
	err := m.build(ctx, p, stage, &k, r)
	if err == nil {
		err = m.publish(ctx, filepath.Join(stage, outDir), &k)
	}
	if err != nil {
		return banger.Kernel{}, fmt.Errorf("import kernel %q: %w", p.Name, err)
	}
	m.cfg.Log.Info("kernel imported", "kernel", k.Name, "release", k.Release)
	return k, nil
}

// checkSource checks that p names one source, by absolute paths: ours is not the caller's working directory.
func checkSource(p api.KernelImport) error {
	sources := 0
	for _, named := range []bool{p.Deb != "", p.Host, p.Path != ""} {
		if named {
			sources++
		}
	}
	if sources != 1 {
		return errkind.New(api.KindInvalid, "name exactly one source of a kernel: --deb, --host or --path")
	}
	if p.Path == "" && p.Modules+p.Config != "" {
		return errkind.New(api.KindInvalid, "--modules and --config go with --path")
	}
	for _, path := range []string{p.Path, p.Modules, p.Config, debFile(p.Deb)} {
		if path != "" && !filepath.IsAbs(path) {
			return errkind.New(api.KindInvalid, "path %q is not absolute", path)
		}
	}
	if p.Deb != "" && debFile(p.Deb) == "" && !packageName.MatchString(p.Deb) {
		return errkind.WithHint(errkind.New(api.KindInvalid, "bad package name %q", p.Deb),
			"name a Debian package such as %s, or a file that ends in .deb", DefaultPackage)
	}
	return nil
}

// defaultName makes a name of where the kernel comes from: linux-image-6.1.0-56-cloud-amd64 and its metapackage
// linux-image-cloud-amd64 are debian-cloud; another package or file lends its own name.
func defaultName(p api.KernelImport) string {
	if p.Host {
		return "host"
	}
	from := p.Deb + p.Path
	if p.Deb != "" && debFile(p.Deb) == "" {
		from = strings.FieldsFunc(p.Deb, func(r rune) bool { return r == '=' || r == '/' })[0] // PACKAGE=VERSION, PACKAGE/SUITE
	}
	base := strings.TrimSuffix(filepath.Base(from), ".deb")
	base, _, _ = strings.Cut(base, "_") // PACKAGE_VERSION_ARCH.deb
	if flavour, ok := strings.CutPrefix(base, "linux-image-"); ok && p.Deb != "" {
		words := slices.DeleteFunc(strings.Split(flavour, "-"), func(w string) bool {
			return w == "" || w == "amd64" || w == "unsigned" || w[0] >= '0' && w[0] <= '9'
		})
		base = strings.Join(append([]string{"debian"}, words...), "-")
	}
	name := strings.Trim(strings.Map(labelRune, strings.ToLower(base)), "-")
	if name == "" || name[0] < 'a' {
		name = "kernel-" + name
	}
	return strings.TrimRight(name[:min(len(name), 63)], "-")
}

func labelRune(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
		return r
	}
	return '-'
}

// build makes the kernel's files in stage/out and completes its record, with paths as they will be once published.
func (m *Manager) build(ctx context.Context, p api.KernelImport, stage string, k *banger.Kernel, r opstate.Reporter) error {
	src, err := m.open(ctx, p, stage, r)
	if err != nil {
		return err
	}
	out, dir := filepath.Join(stage, outDir), filepath.Join(m.cfg.Dir, string(k.ID))
	if err := os.Mkdir(out, 0o700); err != nil {
		return err
	}
	k.Source = src.name
	r.Stage("extract kernel")
	img, err := takeImage(ctx, src.image, out)
	if err != nil {
		return err
	}
	k.Release, k.Arch, k.Format, k.Image = img.Release, img.Arch, img.format, filepath.Join(dir, img.file)
	config, err := src.configuration()
	if err != nil {
		return err
	}
	if config == nil {
		config = img.Config
	}
	if k.Facts = facts(config); k.Facts == nil {
		m.cfg.Log.Warn("kernel's configuration is not known, it is taken on trust", "kernel", k.Name)
	}
	if err := refuse(k.Facts, src.modules != ""); err != nil {
		return err
	}
	if src.modules == "" {
		return syncTree(out)
	}
	r.Stage("prepare kernel modules")
	t, err := src.takeTree(ctx, stage, k.Release, r)
	if err != nil {
		return err
	}
	k.Base = filepath.Join(dir, bootDir)
	if k.BootModules, k.PCIModules, err = copyBoot(t, filepath.Join(out, bootDir), k.Facts["MODULE_SIG_FORCE"] != "n"); err != nil {
		return err
	}
	r.Stage("pack kernel modules")
	k.Modules, k.ModulesType = filepath.Join(dir, modulesFile), "ext4"
	if err := treeImage(ctx, t.Dir, filepath.Join(out, modulesFile)); err != nil {
		return err
	}
	return syncTree(out)
}

// publish records the files in the directory out, moves it to the kernel's place and writes the row.
func (m *Manager) publish(ctx context.Context, out string, k *banger.Kernel) error {
	dir := filepath.Join(m.cfg.Dir, string(k.ID))
	var err error
	if k.Files, err = preflight.Record(ctx, out, dir); err != nil {
		return err
	}
	if err := os.Rename(out, dir); err != nil {
		return err
	}
	err = syncPath(m.cfg.Dir)
	if err == nil {
		err = m.cfg.Store.PutKernel(ctx, *k)
	}
	if err != nil {
		return errors.Join(err, removeKernel(dir))
	}
	return nil
}

// syncTree flushes every file and directory of the tree, so that the row never tells of files that a power failure took.
func syncTree(root string) error {
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncPath(path)
	})
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fsync(int(f.Fd())); err != nil {
		return &os.PathError{Op: "fsync", Path: path, Err: err}
	}
	return nil
}
