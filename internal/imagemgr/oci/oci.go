// Package oci reads images of the Open Container Initiative (OCI Image Format Specification 1.1) and of Docker: from registries, and
// from layouts and archives on disk. What it gives is layers in the order in which they are laid over each other, as files whose
// digests were verified, and the image's configuration. [Apply] lays them.
//
// Layers of registries are kept in a cache, each under its digest. One that was downloaded in part goes on from there.
package oci

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Options say how an image is found.
type Options struct {
	Platform string // OS/ARCH[/VARIANT], of those that an index has; empty: linux on this machine's processor
	Cache    string // directory of layers; private
	Temp     string // directory for an archive's files while it is read; exists
	Turns    *Turns // at downloads into Cache; shared by all who use it
	Log      *slog.Logger
}

// Image is an image that was found; its layers may not be here yet.
type Image struct {
	v1.Image
	Source string // what it was made from, for people: the reference with its digest
	Digest string // sha256:HEX of its manifest
	blobs  *blobs // nil: the layers are on disk
}

// The schemes of references that name files. Without one a reference is that of a registry.
const (
	layoutScheme        = "oci:"
	ociArchiveScheme    = "oci-archive:"
	dockerArchiveScheme = "docker-archive:"
)

// Open finds the image that ref means: REPOSITORY[:TAG][@DIGEST] in a registry, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
// docker-archive:FILE[:TAG]. A registry is asked with the credentials of Docker's configuration and its helpers. Kinds: invalid for a
// reference that is none, not-found, permission, unavailable.
func Open(ctx context.Context, ref string, o Options) (*Image, error) {
	platform, err := platformOf(o.Platform)
	if err != nil {
		return nil, err
	}
	img, err := open(ctx, ref, platform, o)
	if err != nil {
		return nil, fmt.Errorf("find image %s: %w", ref, kind(err))
	}
	digest, err := img.Image.Digest()
	if err != nil {
		return nil, fmt.Errorf("read image %s: %w", ref, kind(err))
	}
	img.Digest = digest.String()
	if img.Source = ref; !strings.Contains(ref, "@") {
		img.Source += "@" + img.Digest
	}
	return img, checkPlatform(img, platform, ref)
}

func open(ctx context.Context, ref string, platform v1.Platform, o Options) (*Image, error) {
	for scheme, open := range map[string]func(path, tag string) (v1.Image, error){
		layoutScheme: func(path, tag string) (v1.Image, error) { return fromLayout(path, tag, platform) },
		ociArchiveScheme: func(path, tag string) (v1.Image, error) {
			if err := unpackLayout(ctx, path, o.Temp); err != nil {
				return nil, err
			}
			return fromLayout(o.Temp, tag, platform)
		},
		dockerArchiveScheme: fromDockerArchive,
	} {
		if rest, ok := strings.CutPrefix(ref, scheme); ok {
			path, tag := splitTag(rest)
			if !filepath.IsAbs(path) {
				return nil, errkind.WithHint(errkind.New(api.KindInvalid, "path %q is not absolute", path), "the daemon has another working directory; the command line makes paths absolute")
			}
			img, err := open(path, tag)
			return &Image{Image: img}, err
		}
	}
	return fromRegistry(ctx, ref, platform, o)
}

func fromRegistry(ctx context.Context, text string, platform v1.Platform, o Options) (*Image, error) {
	ref, err := name.ParseReference(text)
	if err != nil {
		return nil, errkind.WithHint(errkind.New(api.KindInvalid, "bad image reference: %w", err),
			"write it as REPOSITORY[:TAG] or REPOSITORY@sha256:DIGEST, or name a file: oci:DIR, oci-archive:FILE, docker-archive:FILE")
	}
	auth, err := authn.Resolve(ctx, authn.DefaultKeychain, ref.Context())
	if err != nil {
		return nil, errkind.New(api.KindPermission, "credentials for %s: %w", ref.Context().RegistryStr(), err)
	}
	base := remote.DefaultTransport
	img, err := remote.Image(ref, remote.WithContext(ctx), remote.WithAuth(auth), remote.WithPlatform(platform), remote.WithTransport(base))
	if err != nil {
		return nil, err
	}
	authed, err := transport.NewWithContext(ctx, ref.Context().Registry, auth, base, []string{ref.Scope(transport.PullScope)})
	if err != nil {
		return nil, err
	}
	return &Image{Image: img, blobs: &blobs{dir: o.Cache, turns: o.Turns, repo: ref.Context(), client: &http.Client{Transport: authed}, log: o.Log}}, nil
}

func fromLayout(dir, tag string, platform v1.Platform) (v1.Image, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	return pick(index, tag, platform)
}

// tagAnnotation names a manifest of a layout (OCI Image Format Specification, annotations.md).
const tagAnnotation = "org.opencontainers.image.ref.name"

// pick chooses a manifest of an index: by tag, if one is given, then by platform. An index may hold others.
func pick(index v1.ImageIndex, tag string, platform v1.Platform) (v1.Image, error) {
	list, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var fit []v1.Descriptor
	for _, d := range list.Manifests {
		switch {
		case tag != "" && d.Annotations[tagAnnotation] != tag:
		case d.MediaType.IsIndex(), d.Platform == nil, d.Platform.Satisfies(platform):
			fit = append(fit, d)
		}
	}
	switch {
	case len(fit) == 0 && tag != "":
		return nil, errkind.New(api.KindNotFound, "it has no tag %q for %s", tag, platform.String())
	case len(fit) == 0:
		return nil, errkind.New(api.KindNotFound, "it has no image for %s", platform.String())
	case len(fit) > 1 && tag == "":
		return nil, errkind.WithHint(errkind.New(api.KindInvalid, "it has %d images", len(fit)), "say which: oci:DIR:TAG")
	}
	if fit[0].MediaType.IsIndex() {
		inner, err := index.ImageIndex(fit[0].Digest)
		if err != nil {
			return nil, err
		}
		return pick(inner, "", platform)
	}
	return index.Image(fit[0].Digest)
}

func fromDockerArchive(path, tag string) (v1.Image, error) {
	var want *name.Tag
	if tag != "" {
		t, err := name.NewTag(tag)
		if err != nil {
			return nil, errkind.New(api.KindInvalid, "bad tag: %w", err)
		}
		want = &t
	}
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	return tarball.ImageFromPath(path, want)
}

// splitTag splits PATH[:TAG]. A colon of the path itself is followed by a slash somewhere.
func splitTag(s string) (path, tag string) {
	if i := strings.LastIndexByte(s, ':'); i > 0 && !strings.Contains(s[i:], "/") {
		return s[:i], s[i+1:]
	}
	return s, ""
}

func checkPlatform(img *Image, want v1.Platform, ref string) error {
	cfg, err := img.ConfigFile()
	if err != nil {
		return fmt.Errorf("read the configuration of image %s: %w", ref, kind(err))
	}
	if cfg.OS != "" && cfg.OS != want.OS || cfg.Architecture != "" && cfg.Architecture != want.Architecture {
		return errkind.WithHint(errkind.New(api.KindInvalid, "image %s is for %s/%s", ref, cfg.OS, cfg.Architecture),
			"VMs here run %s; another tag, or --platform, may have one", want.String())
	}
	return nil
}

// kind gives an error of the library the kind that it has for us.
func kind(err error) error {
	var answer *transport.Error
	switch {
	case errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound:
		return errkind.WithHint(errkind.New(api.KindNotFound, "the registry has no such image"), "check its name and its tag")
	case errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden):
		return errkind.WithHint(errkind.New(api.KindPermission, "the registry refuses: %w", err),
			"check its name; a private one needs `docker login`, or an entry in ~/.docker/config.json of the daemon's user")
	case errors.As(err, &answer):
		return errkind.New(api.KindUnavailable, "the registry does not give it: %w", err)
	case errors.Is(err, os.ErrNotExist):
		return errkind.New(api.KindNotFound, "%w", err)
	case errkind.Of(err) == api.KindInternal && !errors.Is(err, context.Canceled):
		return errkind.New(api.KindUnavailable, "%w", err)
	}
	return err
}
