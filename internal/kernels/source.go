package kernels

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/opstate"
	"golang.org/x/sys/unix"
)

// source is a kernel as it lies on the host before the import.
type source struct {
	name    string // for people
	image   string // bzImage or ELF
	modules string // directory lib/modules/RELEASE, or empty
	config  string // configuration file, or empty
}

// open finds the source that p names; packages are downloaded and unpacked below dir.
func (m *Manager) open(ctx context.Context, p api.KernelImport, dir string, r opstate.Reporter) (source, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return source{}, err
	}
	switch {
	case p.Host && p.Deb == "" && p.Path == "":
		return hostSource()
	case p.Path != "" && !p.Host && p.Deb == "":
		return source{name: p.Path, image: p.Path, modules: p.Modules, config: p.Config}, nil
	case p.Deb != "" && !p.Host && p.Path == "":
		return debSource(ctx, p.Deb, dir, r)
	}
	return source{}, errkind.New(api.KindInvalid, "name exactly one source: --deb, --host or --path")
}

func hostSource() (source, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return source{}, err
	}
	release := unix.ByteSliceToString(u.Release[:])
	s := source{
		name: "host " + release, image: "/boot/vmlinuz-" + release,
		modules: "/lib/modules/" + release, config: "/boot/config-" + release,
	}
	if _, err := os.Stat(s.image); err != nil {
		return s, errkind.WithHint(errkind.New(api.KindNotFound, "the running kernel's image: %w", err),
			"import a packaged kernel instead: `banger kernel import --deb %s`", DefaultPackage)
	}
	return s, nil
}

func debSource(ctx context.Context, deb, dir string, r opstate.Reporter) (source, error) {
	file := deb
	if !strings.HasSuffix(deb, ".deb") {
		r.Stage("download kernel package")
		var err error
		if file, err = download(ctx, deb, dir); err != nil {
			return source{}, err
		}
	}
	r.Stage("unpack kernel package")
	tree := filepath.Join(dir, "tree")
	if err := host.Run(ctx, host.Command{Argv: []string{"dpkg-deb", "-x", file, tree}}); err != nil {
		return source{}, err
	}
	images, err := filepath.Glob(filepath.Join(tree, "boot", "vmlinuz-*"))
	if err != nil {
		return source{}, err
	}
	if len(images) != 1 {
		return source{}, errkind.WithHint(errkind.New(api.KindInvalid, "package %q has %d kernels in /boot", deb, len(images)),
			"name a package such as %s", DefaultPackage)
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	return source{
		name: filepath.Base(file), image: images[0],
		modules: filepath.Join(tree, "lib/modules", release), config: filepath.Join(tree, "boot", "config-"+release),
	}, nil
}

// download fetches a kernel package with apt, which verifies it. apt's state is private to dir, so this works as an ordinary
// user and does not touch the host's lists; its sources and keys are the host's. A metapackage is resolved to the kernel
// that it depends on.
func download(ctx context.Context, pkg, dir string) (string, error) {
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return "", err
		}
	}
	opts := []string{
		"-o", "Dir::State=" + filepath.Join(dir, "state"), "-o", "Dir::Cache=" + filepath.Join(dir, "cache"),
		"-o", "Dir::State::status=/var/lib/dpkg/status", "-o", "APT::Sandbox::User=", "-o", "Acquire::Languages=none",
	}
	apt := func(argv ...string) ([]byte, error) {
		return host.Output(ctx, host.Command{Argv: append(argv[:1:1], append(opts, argv[1:]...)...), Dir: dir})
	}
	if _, err := apt("apt-get", "-q", "update"); err != nil {
		return "", errkind.WithHint(fmt.Errorf("update package lists: %w", err), "check the host's apt sources with `apt-get update`")
	}
	out, err := apt("apt-cache", "depends", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", pkg)
	if err != nil {
		return "", errkind.New(api.KindNotFound, "package %q: %w", pkg, err)
	}
	if real := kernelOf(string(out)); real != "" {
		pkg = real
	}
	if _, err := apt("apt-get", "-q", "download", pkg); err != nil {
		return "", fmt.Errorf("download package %q: %w", pkg, err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(files) != 1 {
		return "", errors.Join(err, errkind.New(api.KindUnavailable, "package %q was not downloaded", pkg))
	}
	return files[0], nil
}

// kernelOf returns the versioned kernel package among what `apt-cache depends` prints, or nothing.
func kernelOf(depends string) string {
	for line := range strings.Lines(depends) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: linux-image-"); ok {
			return "linux-image-" + name
		}
	}
	return ""
}
