package hosttar

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Unpack writes what the tar r holds below the directory dir. The tar's single top entry gets the name top; an empty top
// puts what is in it directly into dir. Files that exist are replaced, directories are merged. Everything belongs to the
// caller; permission bits and times are kept, set-user-id and set-group-id bits are not. An entry that would leave dir, also
// through a link, and a device, are errors of kind invalid; what came before them stays.
func Unpack(r io.Reader, dir, top string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	u := &unpacker{root: root, top: top}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the copy: %w", err)
		}
		if err := u.entry(h, tr); err != nil {
			return fmt.Errorf("%s: %w", h.Name, u.blame(h.Name, err))
		}
	}
	if err := u.finishDirs(); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r) // to the end of the stream, which says whether the copy was complete
	return err
}

type unpacker struct {
	root *os.Root
	from string // name of the tar's top entry
	top  string
	dirs []dirMeta // modes and times of directories are set last: writing into them needs and changes them
}

type dirMeta struct {
	name string
	mode fs.FileMode
	time time.Time
}

// target translates an entry's name. The empty string is the destination directory itself.
func (u *unpacker) target(name string) (string, error) {
	clean := strings.TrimPrefix(path.Clean("/"+name), "/")
	first, rest, _ := strings.Cut(clean, "/")
	if u.from == "" && clean != "" {
		u.from = first
	}
	if slices.Contains(strings.Split(name, "/"), "..") || clean != "" && first != u.from {
		return "", errkind.New(api.KindInvalid, "the entry leaves the copied tree")
	}
	return filepath.Join(u.top, rest), nil
}

// blame says so when an entry failed because a link stands where a directory of its path should be. os.Root has no error of
// its own for a path that leaves it.
func (u *unpacker) blame(entry string, err error) error {
	name, targetErr := u.target(entry)
	if targetErr != nil || errkind.Of(err) != api.KindInternal {
		return err // its reason is known
	}
	for ; name != "." && name != ""; name = filepath.Dir(name) {
		if st, statErr := u.root.Lstat(name); statErr == nil && st.Mode()&fs.ModeSymlink != 0 {
			return errkind.WithHint(errkind.New(api.KindInvalid, "the link %s leads out of the directory: %w", name, err),
				"remove it, or copy into an empty directory")
		}
	}
	return err
}

func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	name, err := u.target(h.Name)
	if err != nil {
		return err
	}
	mode := fs.FileMode(h.Mode).Perm()
	switch h.Typeflag {
	case tar.TypeDir:
		return u.dir(name, mode, h.ModTime)
	case tar.TypeReg, tar.TypeSymlink, tar.TypeLink:
	case tar.TypeXGlobalHeader:
		return nil
	default:
		return errkind.New(api.KindInvalid, "a device or pipe cannot be copied")
	}
	if name == "" {
		return errkind.New(api.KindInvalid, "a file cannot replace the directory it is copied into")
	}
	if err := u.makeRoom(name); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		return u.root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		old, err := u.target(h.Linkname)
		if err != nil {
			return err
		}
		return u.root.Link(old, name)
	}
	return u.file(name, mode, h.ModTime, r)
}

func (u *unpacker) dir(name string, mode fs.FileMode, mtime time.Time) error {
	if name == "" {
		return nil // it was there before, and stays as it is
	}
	if err := u.root.MkdirAll(name, 0o700); err != nil {
		return err
	}
	u.dirs = append(u.dirs, dirMeta{name, mode, mtime})
	return nil
}

// makeRoom removes a file of the same name, so that no link there is written through, and makes missing parents.
func (u *unpacker) makeRoom(name string) error {
	err := u.root.Remove(name)
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
	default:
		if st, statErr := u.root.Lstat(name); statErr == nil && st.IsDir() {
			return errkind.New(api.KindExists, "a directory is in the way")
		}
		return err
	}
	return u.root.MkdirAll(filepath.Dir(name), 0o755)
}

func (u *unpacker) file(name string, mode fs.FileMode, mtime time.Time, r io.Reader) error {
	f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode|0o200)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
		return errors.Join(err, u.root.Remove(name))
	}
	return u.root.Chtimes(name, mtime, mtime)
}

func (u *unpacker) finishDirs() error {
	for _, d := range slices.Backward(u.dirs) {
		if err := errors.Join(u.root.Chtimes(d.name, d.time, d.time), u.root.Chmod(d.name, d.mode)); err != nil {
			return err
		}
	}
	return nil
}
