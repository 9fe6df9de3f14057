package imagemgr

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/disk/ext4"
	"github.com/banger-vm/banger/internal/errkind"
)

// Defaults of a build.
const (
	defaultSuite   = "bookworm"
	defaultVariant = "apt"
	defaultSize    = 8 << 30 // of the root filesystem and of the work-seed, in bytes; both are sparse
	minRootSize    = 512 << 20
)

// basePackages come with every image, whatever the variant.
var basePackages = []string{
	"bash", "ca-certificates", "curl", "git", "iproute2", "iputils-ping", "kmod", "less", "mount", "netbase", "procps", "sudo",
	"util-linux", "vim-tiny",
}

// variants are those of mmdebstrap(1) that end in a system with dpkg in it.
var variants = []string{"essential", "apt", "required", "minbase", "buildd", "important", "debootstrap", "standard"}

var (
	suiteSyntax = regexp.MustCompile(`^[a-z][a-z0-9./-]*$`)
	// packageSyntax is Debian Policy 5.6.7, with an architecture, a version or a release if wanted.
	packageSyntax = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]*(:[a-z0-9-]+)?([=/][A-Za-z0-9+.:~-]+)?$`)
)

// recipe is a complete and checked build request.
type recipe struct {
	name     string
	suite    string
	variant  string
	packages []string
	sources  []string // mmdebstrap's MIRROR arguments; none means its own default
	kernel   string
	init     guestapi.InitMode
	rootSize int64
	replace  bool
}

func newRecipe(p api.ImageBuild) (recipe, error) {
	r := recipe{
		name: p.Name, suite: or(p.Suite, defaultSuite), variant: or(p.Variant, defaultVariant), kernel: p.Kernel,
		init: guestapi.InitMode(or(p.Init, string(guestapi.InitAgent))), rootSize: p.RootSize, replace: p.Replace,
	}
	if err := banger.CheckName("image", r.name); err != nil {
		return r, err
	}
	if r.rootSize == 0 {
		r.rootSize = defaultSize
	}
	r.packages = slices.Compact(slices.Sorted(slices.Values(slices.Concat(basePackages, p.Packages))))
	if err := r.check(); err != nil {
		return r, err
	}
	switch {
	case p.Mirror == "":
		r.sources = hostSources("/etc/apt", r.suite)
	case strings.Contains(p.Mirror, "://") && !strings.HasPrefix(p.Mirror, "-"):
		r.sources = []string{p.Mirror}
	default:
		return r, errkind.WithHint(errkind.New(api.KindInvalid, "bad mirror %q", p.Mirror),
			"give a URL, or a line as in sources.list that begins with deb")
	}
	return r, nil
}

func (r recipe) check() error {
	if !suiteSyntax.MatchString(r.suite) {
		return errkind.New(api.KindInvalid, "bad suite %q", r.suite)
	}
	if !slices.Contains(variants, r.variant) {
		return errkind.WithHint(errkind.New(api.KindInvalid, "unknown variant %q", r.variant), "use one of %s", strings.Join(variants, ", "))
	}
	for _, p := range r.packages {
		if !packageSyntax.MatchString(p) {
			return errkind.New(api.KindInvalid, "bad package name %q", p)
		}
	}
	return r.checkInitAndSize()
}

func (r recipe) checkInitAndSize() error {
	if r.init != guestapi.InitAgent && !filepath.IsAbs(string(r.init)) {
		return errkind.WithHint(errkind.New(api.KindInvalid, "bad init %q", r.init),
			"use agent, or the path of an init in the image, such as /sbin/init")
	}
	if r.rootSize < minRootSize || r.rootSize%(1<<20) != 0 {
		return errkind.New(api.KindInvalid, "root size %d: use at least %d, in whole MiB", r.rootSize, int64(minRootSize))
	}
	return nil
}

func (r recipe) rootOptions() ext4.Options { return ext4.Options{Size: r.rootSize, Label: "rootfs"} }
func (r recipe) seedOptions() ext4.Options { return ext4.Options{Size: defaultSize, Label: "work"} }

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// hostSources returns the distribution's own source files below etc, /etc/apt on a host, that speak of suite, so that
// an image comes from where the host's packages come from. Other files are not taken: their keys are not in the image.
func hostSources(etc, suite string) []string {
	word := regexp.MustCompile(`(?m)^[^#\n]*\s` + regexp.QuoteMeta(suite) + `(\s|$)`)
	var files []string
	for _, name := range []string{"sources.list", "sources.list.d/debian.sources"} {
		path := filepath.Join(etc, name)
		if b, err := os.ReadFile(path); err == nil && word.Match(b) {
			files = append(files, path)
		}
	}
	return files
}
