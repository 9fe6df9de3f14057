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

// Target is what layers are laid into. Names lead from the root.
type Target interface {
	// Add adds an entry. One whose name is taken by a file replaces it; a directory gives a directory new attributes.
	Add(ctx context.Context, hdr *tar.Header, content io.Reader) error
	// Remove removes what there is at name, with what is below it.
	Remove(name string)
	// Clear removes what is below name but what keep wants.
	Clear(name string, keep func(path string) bool)
	// IsDir reports whether there is a directory at name, and whether there is anything.
	IsDir(name string) (dir, exists bool)
}

// Whiteouts (OCI Image Format Specification, layer.md): a file that hides one of the layers below, and one that hides all of them.
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
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
	made := map[string]bool{} // by this layer, which its own whiteouts do not hide
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
		if err := lay(ctx, hdr, t, dst, made); err != nil {
			return err
		}
	}
}

// lay lays one entry.
func lay(ctx context.Context, hdr *tar.Header, content io.Reader, dst Target, made map[string]bool) error {
	name, err := inside(hdr.Name)
	if err != nil {
		return err
	}
	dir, base := path.Split(name)
	switch {
	case base == opaque:
		dst.Clear(path.Clean(dir), func(at string) bool { return made[at] })
		return nil
	case strings.HasPrefix(base, whiteout):
		hidden := path.Join(dir, strings.TrimPrefix(base, whiteout))
		if !made[hidden] {
			dst.Remove(hidden)
		}
		return nil
	}
	h := *hdr
	h.Name = name
	if h.Typeflag == tar.TypeLink {
		if h.Linkname, err = inside(hdr.Linkname); err != nil {
			return err
		}
	}
	// A layer may put a file where one below has a directory, and the other way round.
	if wasDir, exists := dst.IsDir(name); exists && wasDir != (h.Typeflag == tar.TypeDir) {
		dst.Remove(name)
	}
	for at := name; at != "/"; at = path.Dir(at) {
		made[at] = true
	}
	return dst.Add(ctx, &h, content)
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
