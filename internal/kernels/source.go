package kernels

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/kernels/kmod"
	"github.com/banger-vm/banger/internal/opstate"
	"golang.org/x/sys/unix"
)

// source is a kernel as it lies on the host before the import.
type source struct {
	name    string   // for people
	image   string   // bzImage or ELF
	modules string   // directory lib/modules/RELEASE, or empty
	configs []string // configuration files, the first that exists counts
	ours    bool     // modules is in the staging directory, and may be changed
}

// open finds the source that p names; a package is downloaded and unpacked below stage.
func (m *Manager) open(ctx context.Context, p api.KernelImport, stage string, r opstate.Reporter) (source, error) {
	switch {
	case p.Host:
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return source{}, fmt.Errorf("uname: %w", err)
		}
		return hostSource("/", unix.ByteSliceToString(u.Release[:]))
	case p.Path != "":
		return fileSource(p)
	}
	file := debFile(p.Deb)
	if file == "" {
		var err error
		if file, err = m.download(ctx, p.Deb, stage, r); err != nil {
			return source{}, err
		}
	} else if _, err := os.Stat(file); err != nil {
		return source{}, errkind.New(api.KindNotFound, "package: %w", err)
	}
	r.Stage("unpack kernel package")
	return unpack(ctx, file, filepath.Join(stage, "package"))
}

// hostSource finds the kernel release of the system at root.
func hostSource(root, release string) (source, error) {
	s := source{
		name: "host " + release, image: filepath.Join(root, "boot/vmlinuz-"+release),
		modules: filepath.Join(root, "lib/modules", release),
		configs: []string{filepath.Join(root, "boot/config-"+release), filepath.Join(root, "proc/config.gz")},
	}
	for what, path := range map[string]string{"image": s.image, "modules": s.modules} {
		if _, err := os.Stat(path); err != nil {
			return s, errkind.WithHint(errkind.New(api.KindNotFound, "no %s of the running kernel: %w", what, err),
				"import a packaged kernel instead: `banger kernel import --deb %s`", DefaultPackage)
		}
	}
	if f, err := os.Open(s.image); err != nil {
		return s, errkind.WithHint(errkind.New(api.KindPermission, "image of the running kernel: %w", err),
			"some distributions keep it from ordinary users: copy it, and import the copy with --path and --modules %s", s.modules)
	} else {
		f.Close()
	}
	return s, nil
}

func fileSource(p api.KernelImport) (source, error) {
	s := source{name: p.Path, image: p.Path, modules: p.Modules}
	for _, path := range []string{p.Path, p.Modules, p.Config} {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			return s, errkind.New(api.KindNotFound, "kernel file: %w", err)
		}
	}
	if p.Config != "" {
		s.configs = []string{p.Config}
	}
	return s, nil
}

// unpack finds the kernel in a Debian package, which it unpacks at dir.
func unpack(ctx context.Context, file, dir string) (source, error) {
	if err := host.Run(ctx, host.Command{Argv: []string{"dpkg-deb", "-x", file, dir}}); err != nil {
		return source{}, err
	}
	images, err := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if err != nil {
		return source{}, err
	}
	if len(images) != 1 {
		return source{}, errkind.WithHint(errkind.New(api.KindInvalid, "package %s has %d kernels in /boot", filepath.Base(file), len(images)),
			"name a kernel's package, such as %s", DefaultPackage)
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	s := source{
		name: filepath.Base(file), image: images[0], ours: true, configs: []string{filepath.Join(dir, "boot", "config-"+release)},
	}
	for _, lib := range []string{"lib", "usr/lib"} { // Debian 13 has them below /usr
		modules := filepath.Join(dir, lib, "modules", release)
		if _, err := os.Stat(modules); err == nil {
			s.modules = modules
		}
	}
	return s, nil
}

// maxConfig bounds a configuration file, in bytes.
const maxConfig = 16 << 20

// configuration returns the source's configuration, or nil where it has none.
func (s source) configuration() ([]byte, error) {
	for _, path := range s.configs {
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("kernel configuration: %w", err)
		}
		defer f.Close()
		var r io.Reader = f
		if strings.HasSuffix(path, ".gz") {
			if r, err = gzip.NewReader(f); err != nil {
				return nil, errkind.New(api.KindInvalid, "kernel configuration %s: %w", path, err)
			}
		}
		return io.ReadAll(io.LimitReader(r, maxConfig))
	}
	return nil, nil
}

// takeTree makes a module tree of our own below stage, uncompressed and with the indexes that modprobe needs in the guest.
func (s source) takeTree(ctx context.Context, stage, release string, r opstate.Reporter) (*kmod.Tree, error) {
	t, err := kmod.Open(s.modules)
	if err != nil {
		return nil, err
	}
	if got, err := t.Release(); err != nil {
		return nil, err
	} else if got != release {
		return nil, errkind.New(api.KindInvalid, "modules in %s are of kernel %q, and the kernel is %q", s.modules, got, release)
	}
	root := filepath.Join(stage, "tree")
	dir := filepath.Join(root, "lib/modules", release) // where depmod looks for it
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, err
	}
	if s.ours {
		err = os.Rename(s.modules, dir)
	} else {
		err = t.Copy(ctx, dir)
	}
	if err == nil {
		t, err = kmod.Open(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("copy kernel modules: %w", err)
	}
	if err := t.Uncompress(ctx, func(done int) { r.Progress(int64(done), int64(t.Len()), "modules") }); err != nil {
		return nil, err
	}
	if err := host.Run(ctx, host.Command{Argv: []string{"depmod", "-b", root, release}}); err != nil {
		return nil, fmt.Errorf("index kernel modules: %w", err)
	}
	return t, nil
}
