// Package hosttar turns files of the host into tar streams and back, for copies from and to a guest. Symbolic links stay
// links. Unpacking never leaves its directory, whatever the tar says (os.Root): the guest may be hostile.
package hosttar

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Pack writes the file or directory at path as a tar whose entries are below the name top. An empty top leaves the directory
// itself out: its entries are the top ones. Sockets, pipes and devices are errors of kind invalid.
func Pack(w io.Writer, path, top string) error {
	tw := tar.NewWriter(w)
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(path, p)
		if err != nil {
			return err
		}
		name := filepath.Join(top, rel)
		if name == "." { // the directory itself
			return nil
		}
		return packOne(tw, p, name, d)
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

func packOne(tw *tar.Writer, path, name string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	var link string
	switch info.Mode().Type() {
	case 0, fs.ModeDir:
	case fs.ModeSymlink:
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	default:
		return errkind.New(api.KindInvalid, "%s: a %s cannot be copied", path, kindOf(info.Mode()))
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	h.Name = name
	if info.IsDir() {
		h.Name += "/"
	}
	h.Uname, h.Gname = "", ""
	if err := tw.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(tw, io.LimitReader(f, h.Size)) // one that grows meanwhile is copied as it was
	if err == nil && n < h.Size {
		return fmt.Errorf("%s became shorter while it was copied", path)
	}
	return err
}

func kindOf(m fs.FileMode) string {
	switch {
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeNamedPipe != 0:
		return "named pipe"
	}
	return "device"
}
