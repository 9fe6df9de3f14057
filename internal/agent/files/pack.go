package files

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// pack writes the file or directory at path as a tar whose entries begin with path's base name. Sockets, which nobody can
// copy, are left out.
func pack(w io.Writer, path string) error {
	out := bufio.NewWriterSize(w, 64<<10)
	tw := tar.NewWriter(out)
	parent := filepath.Dir(path)
	err := filepath.WalkDir(path, func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.Type()&fs.ModeSocket != 0 {
			return nil
		}
		name, err := filepath.Rel(parent, file)
		if err != nil {
			return err
		}
		return packOne(tw, file, name, e)
	})
	return errors.Join(err, tw.Close(), out.Flush())
}

func packOne(tw *tar.Writer, file, name string, e fs.DirEntry) error {
	info, err := e.Info()
	if err != nil {
		return err
	}
	var link string
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(file); err != nil {
			return err
		}
	}
	hdr, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	hdr.Name = name
	if info.IsDir() {
		hdr.Name += "/"
	}
	if err := tw.WriteHeader(hdr); err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	// A file that grows while it is read is cut at the size that was announced; one that shrinks fails the copy.
	if n, err := io.Copy(tw, io.LimitReader(f, hdr.Size)); err != nil || n < hdr.Size {
		return errors.Join(err, fmt.Errorf("%s: %d of %d bytes", file, n, hdr.Size))
	}
	return nil
}
