package oci

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Target is what layers are laid into. Names lead from the root; [ext4.Builder] says more.
type Target interface {
	// BeginLayer begins a layer: what Whiteout and Opaque remove is of the layers before it.
	BeginLayer()
	// Add adds an entry. One whose name is taken replaces what is there; a directory gives a directory new attributes.
	Add(ctx context.Context, hdr *tar.Header, content io.Reader) error
	// Whiteout removes name, with what is below it.
	Whiteout(name string) error
	// Opaque removes what is below the directory dir.
	Opaque(dir string) error
}

// Whiteouts (OCI Image Format Specification, layer.md): a file that hides one of the layers below, and one that hides all of them. What
// else begins with aufs is what that file system kept for itself.
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
	aufs     = ".wh..wh."
)

// Apply lays the layers of an image into dst, the lowest first. Entries that would leave the root, or are more than limit bytes
// together, are of kind invalid. report gets the bytes that were read, uncompressed.
func (img *Image) Apply(ctx context.Context, dst Target, limit int64, report func(done int64)) error {
	layers, err := img.layers()
	if err != nil {
		return fmt.Errorf("read layers: %w", err)
	}
	left := limit
	for i, l := range layers {
		if err := applyLayer(ctx, l, dst, &left, func() { report(limit - left) }); err != nil {
			return fmt.Errorf("layer %d of %d: %w", i+1, len(layers), err)
		}
	}
	return nil
}

func applyLayer(ctx context.Context, l v1.Layer, dst Target, left *int64, report func()) (err error) {
	stream, err := l.Uncompressed()
	if err != nil {
		return kind(err)
	}
	defer func() { err = errors.Join(err, stream.Close()) }()
	bounded := &bomb{r: bufio.NewReaderSize(stream, 1<<20), left: left}
	dst.BeginLayer()
	for t := tar.NewReader(bounded); ; {
		hdr, err := t.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, bounded) // what is behind the end counts for the digest, which the library checks
			return err
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		report()
		if err := lay(ctx, hdr, t, dst); err != nil {
			return err
		}
	}
}

// lay lays one entry.
func lay(ctx context.Context, hdr *tar.Header, content io.Reader, dst Target) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil // a comment
	}
	name, err := inside(hdr.Name)
	if err != nil {
		return err
	}
	dir, base := path.Split(name)
	hidden, isWhiteout := strings.CutPrefix(base, whiteout)
	switch {
	case base == opaque:
		return dst.Opaque(dir)
	case strings.HasPrefix(base, aufs):
		return nil
	case isWhiteout && (hidden == "" || hidden == "." || hidden == ".."):
		return errkind.New(api.KindInvalid, "the whiteout %q is of no file", hdr.Name)
	case isWhiteout:
		return dst.Whiteout(dir + hidden)
	}
	h := *hdr
	h.Name = name
	if h.Typeflag == tar.TypeLink {
		if h.Linkname, err = inside(hdr.Linkname); err != nil {
			return err
		}
	}
	dropXattrs(&h)
	return dst.Add(ctx, &h, content)
}

// dropXattrs leaves out extended attributes that mean something only on the file system that the layer was made on, as engines do.
func dropXattrs(hdr *tar.Header) {
	const prefix = "SCHILY.xattr." // of PAX records, by star and GNU tar
	for key := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(key, prefix)
		if !ok {
			continue
		}
		kept := strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "security.") || strings.HasPrefix(name, "system.posix_acl_") ||
			strings.HasPrefix(name, "trusted.") && !strings.HasPrefix(name, "trusted.overlay.")
		if !kept {
			delete(hdr.PAXRecords, key)
		}
	}
}

// inside returns a name from the root. One that leads out of it is refused, rather than bent: nobody makes such a layer by accident.
func inside(name string) (string, error) {
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", errkind.New(api.KindInvalid, "the layer has the name %q, which leads out of it", name)
		}
	}
	return path.Clean("/" + name), nil
}

// bomb ends a stream that is longer than what is left.
type bomb struct {
	r    io.Reader
	left *int64
}

func (b *bomb) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if *b.left -= int64(n); *b.left < 0 {
		return 0, errkind.WithHint(errkind.New(api.KindInvalid, "its layers are larger than the root disk"), "give it more: --root-size")
	}
	return n, err
}
