package imagemgr

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/banger-vm/banger/internal/disk/ext4"
)

// trees are the two file systems of an image while they are written: what is below /root goes to the work-seed, which is mounted
// there, and everything else, with an empty /root, to the rootfs. It is an [oci.Target].
type trees struct {
	stage        string
	rootfs, seed *ext4.Builder
}

// newTrees makes the two in a staging directory. The caller ends with close, or with abort, which may be deferred.
func newTrees(ctx context.Context, stage string, root, seed ext4.Options) (t trees, err error) {
	t.stage = stage
	if t.rootfs, err = ext4.Create(ctx, filepath.Join(stage, rootfsFile), root); err != nil {
		return t, err
	}
	if t.seed, err = ext4.Create(ctx, filepath.Join(stage, workSeedFile), seed); err != nil {
		t.rootfs.Abort()
	}
	return t, err
}

func (t trees) abort() {
	t.rootfs.Abort()
	t.seed.Abort()
}

// close brings both to disk and makes them read only.
func (t trees) close() error {
	err := errors.Join(t.rootfs.Close(), t.seed.Close())
	for _, name := range []string{rootfsFile, workSeedFile} {
		if err == nil {
			err = os.Chmod(filepath.Join(t.stage, name), 0o444)
		}
	}
	return err
}

// home returns the path from /root on of what is in there, with "/" for /root itself.
func home(name string) (inner string, ok bool) {
	inner, ok = strings.CutPrefix(path.Clean("/"+name), "/root")
	return path.Clean("/" + inner), ok && (inner == "" || inner[0] == '/')
}

// Add adds an entry where it belongs, and /root itself to both. A hard link that leads from one file system into the other
// becomes a copy.
func (t trees) Add(ctx context.Context, hdr *tar.Header, r io.Reader) error {
	inner, ok := home(hdr.Name)
	target, targetInside := home(hdr.Linkname)
	isLink := hdr.Typeflag == tar.TypeLink
	switch {
	case !ok && isLink && targetInside:
		return t.rootfs.CopyFrom(ctx, hdr, t.seed, target)
	case !ok:
		return t.rootfs.Add(ctx, hdr, r)
	}
	h := *hdr
	h.Name = inner
	switch {
	case isLink && !targetInside:
		return t.seed.CopyFrom(ctx, &h, t.rootfs, hdr.Linkname)
	case isLink:
		h.Linkname = target
	case inner == "/" && hdr.Typeflag != tar.TypeDir:
		return nil // a link or a file cannot be what the work disk is mounted at
	case inner == "/":
		if err := t.rootfs.Add(ctx, hdr, nil); err != nil {
			return err
		}
	}
	return t.seed.Add(ctx, &h, r)
}

// BeginLayer implements oci.Target.
func (t trees) BeginLayer() {
	t.rootfs.BeginLayer()
	t.seed.BeginLayer()
}

// Whiteout implements oci.Target. A whiteout of /root leaves the directory, for something is mounted there.
func (t trees) Whiteout(name string) error {
	switch inner, ok := home(name); {
	case !ok:
		return t.rootfs.Whiteout(name)
	case inner == "/":
		return t.seed.Opaque("/")
	default:
		return t.seed.Whiteout(inner)
	}
}

// Opaque implements oci.Target.
func (t trees) Opaque(dir string) error {
	switch inner, ok := home(dir); {
	case ok:
		return t.seed.Opaque(inner)
	case path.Clean("/"+dir) == "/":
		return errors.Join(t.rootfs.Opaque("/"), t.seed.Opaque("/"))
	default:
		return t.rootfs.Opaque(dir)
	}
}
