package kernels

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/opstate"
)

// packageName is what Debian calls its packages (Debian Policy, section 5.6.7), optionally with =VERSION or /SUITE.
var packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+([=/][A-Za-z0-9.+:~-]+)?$`)

// debFile returns deb if it names a file, else nothing.
func debFile(deb string) string {
	if strings.HasSuffix(deb, ".deb") {
		return deb
	}
	return ""
}

// download fetches a kernel's package into dir with apt, which verifies it, and returns its path. apt gets lists and a cache of
// its own (apt.conf(5), Dir::State and Dir::Cache), so that it works as an ordinary user and leaves the host's alone;
// its sources and keys are the host's. A metapackage is resolved to the kernel that it depends on.
func (m *Manager) download(ctx context.Context, pkg, dir string, r opstate.Reporter) (string, error) {
	select {
	case m.apt <- struct{}{}:
		defer func() { <-m.apt }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	private := filepath.Join(m.cfg.CacheDir, "apt")
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(private, sub), 0o700); err != nil {
			return "", err
		}
	}
	apt := func(program string, args ...string) ([]byte, error) {
		argv := append([]string{program, "-q",
			"-o", "Dir::State=" + filepath.Join(private, "state"), "-o", "Dir::Cache=" + filepath.Join(private, "cache"),
			"-o", "Dir::State::status=/var/lib/dpkg/status", // else it is looked for in our state
			"-o", "APT::Sandbox::User=", // root's apt would become a user that cannot enter our directories
			"-o", "Acquire::Languages=none",
		}, args...)
		return host.Output(ctx, host.Command{Argv: argv, Dir: dir, Env: []string{"LC_ALL=C"}})
	}
	r.Stage("update package lists")
	if _, err := apt("apt-get", "update"); err != nil {
		return "", errkind.WithHint(fmt.Errorf("update package lists: %w", err), "see what `apt-get update` says on this host")
	}
	kernel, err := resolve(apt, pkg)
	if err != nil {
		return "", err
	}
	r.Stage("download kernel package")
	if _, err := apt("apt-get", "download", kernel); err != nil {
		return "", fmt.Errorf("download package %q: %w", kernel, err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(files) != 1 {
		return "", errors.Join(err, errkind.New(api.KindUnavailable, "apt did not download package %q", kernel))
	}
	return files[0], nil
}

// resolve returns the package that has the kernel pkg stands for: pkg itself, unless it is a metapackage.
func resolve(apt func(string, ...string) ([]byte, error), pkg string) (string, error) {
	out, err := apt("apt-cache", "--no-all-versions", "show", pkg)
	var failed *host.ExitError
	if errors.As(err, &failed) {
		return "", errkind.WithHint(errkind.New(api.KindNotFound, "no package %q in the host's apt sources: %w", pkg, err),
			"`apt-cache search linux-image` lists kernels; banger's own is %s", DefaultPackage)
	}
	if err != nil {
		return "", err
	}
	if kernel := dependsOnKernel(string(out)); kernel != "" {
		return kernel, nil
	}
	return pkg, nil
}

var kernelDependency = regexp.MustCompile(`^(linux-image-[0-9][^ ]*)(?: \(= ([^)]+)\))?$`)

// dependsOnKernel finds the versioned kernel package in the Depends field of a package's record (deb-control(5)), as an
// argument of apt-get. Empty: there is none.
func dependsOnKernel(record string) string {
	for line := range strings.Lines(record) {
		depends, ok := strings.CutPrefix(line, "Depends:")
		if !ok {
			continue
		}
		for d := range strings.SplitSeq(depends, ",") {
			if m := kernelDependency.FindStringSubmatch(strings.TrimSpace(d)); m != nil {
				if m[2] != "" {
					return m[1] + "=" + m[2]
				}
				return m[1]
			}
		}
	}
	return ""
}
