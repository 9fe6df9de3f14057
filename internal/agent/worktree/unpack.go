package worktree

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// The index files of a stream, and the mark of a file whose content the first of them has: internal/workspace/source.
const (
	indexName     = ".git/index"
	baseIndexName = ".git/banger-index"
	cleanMark     = "clean"
)

// settled is how much older than the unpacking a file is made at least. Git does not trust the stat data of a file that is
// as young as its index (racy-git) and would read it again.
const settled = 2 * time.Second

// unpacker unpacks one workspace. A small file costs five system calls, which is what an emulated guest's time goes into:
// openat, write, utimensat, fstat, close.
type unpacker struct {
	path   string
	made   string // the topmost directory that was created for path, empty when path was there
	tree   *dirTree
	index  *index // nil before the stream brings it
	base   *index // nil where the stream brings none
	newest time.Time
	buf    []byte
}

// newUnpacker makes the directory at path, which must not exist or be empty.
func newUnpacker(path string) (*unpacker, error) {
	u := &unpacker{path: path, newest: time.Now().Add(-settled), buf: make([]byte, 256<<10)}
	for dir := path; ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		u.made = dir
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, errors.Join(fmt.Errorf("make the workspace: %w", err), u.undo())
	}
	names, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	if len(names) > 0 {
		return nil, errkind.WithHint(errkind.New(api.KindExists, "%q is there already and not empty", path), "choose another path in the guest")
	}
	root, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	u.tree = &dirTree{root: root}
	return u, nil
}

// undo removes what was made.
func (u *unpacker) undo() error {
	if u.tree != nil {
		u.tree.close()
	}
	if u.made != "" {
		return os.RemoveAll(u.made)
	}
	names, err := os.ReadDir(u.path)
	for _, n := range names {
		err = errors.Join(err, os.RemoveAll(filepath.Join(u.path, n.Name())))
	}
	return err
}

// unpack reads the stream.
func (u *unpacker) unpack(ctx context.Context, r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("read the workspace: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := u.entry(h, tr); err != nil {
			return fmt.Errorf("unpack %q: %w", h.Name, err)
		}
	}
	err := u.putIndex(indexName, u.index)
	if err != nil {
		return err
	}
	if u.base != nil {
		err = u.putIndex(baseIndexName, u.base)
	} else if u.index != nil {
		err = u.keepIndex()
	}
	if err != nil {
		return err
	}
	u.tree.close()
	return nil
}

// entry unpacks one entry of the stream.
func (u *unpacker) entry(h *tar.Header, r io.Reader) (err error) {
	switch {
	case h.Name == indexName && u.index == nil:
		u.index, err = readIndex(r, h.Size)
		return err
	case h.Name == baseIndexName && u.base == nil:
		u.base, err = readIndex(r, h.Size)
		return err
	case h.Typeflag == tar.TypeDir:
		_, err = u.tree.enter(strings.TrimSuffix(h.Name, "/"))
		return err
	}
	dir, name := "", h.Name
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		dir, name = name[:i], name[i+1:]
	}
	if !isName(name) {
		return errOutside
	}
	fd, err := u.tree.enter(dir)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	switch h.Typeflag {
	case tar.TypeReg:
		err = u.file(fd, name, h, r, &st)
	case tar.TypeSymlink:
		err = u.symlink(fd, name, h, &st)
	default:
		err = errkind.New(api.KindInvalid, "entry type %q", h.Typeflag)
	}
	if err != nil || strings.HasPrefix(h.Name, ".git/") {
		return err
	}
	return u.note(h, &st)
}

// note enters a file's stat data in the index files.
func (u *unpacker) note(h *tar.Header, st *unix.Stat_t) error {
	if u.base != nil && !u.base.fill(h.Name, st) {
		return errkind.New(api.KindInvalid, "it is not in the base tree's index")
	}
	if h.Uname == cleanMark && (u.index == nil || !u.index.fill(h.Name, st)) {
		return errkind.New(api.KindInvalid, "it is not in the index")
	}
	return nil
}

// times returns the times to give to a file.
func (u *unpacker) times(h *tar.Header) []unix.Timespec {
	t := h.ModTime
	if t.After(u.newest) {
		t = u.newest
	}
	ts := unix.NsecToTimespec(t.UnixNano())
	return []unix.Timespec{ts, ts}
}

func (u *unpacker) file(dir int, name string, h *tar.Header, r io.Reader, st *unix.Stat_t) error {
	mode := uint32(0o644)
	if h.Mode&0o100 != 0 {
		mode = 0o755
	}
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return err
	}
	err = u.write(fd, r, h.Size)
	if err == nil {
		err = unix.UtimesNanoAt(dir, name, u.times(h), unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil {
		err = unix.Fstat(fd, st)
	}
	return errors.Join(err, unix.Close(fd))
}

// write writes size bytes of r.
func (u *unpacker) write(fd int, r io.Reader, size int64) error {
	for size > 0 {
		p := u.buf[:min(size, int64(len(u.buf)))]
		if _, err := io.ReadFull(r, p); err != nil {
			return fmt.Errorf("read the workspace: %w", err)
		}
		size -= int64(len(p))
		for len(p) > 0 {
			n, err := unix.Write(fd, p)
			if err != nil {
				return err
			}
			p = p[n:]
		}
	}
	return nil
}

func (u *unpacker) symlink(dir int, name string, h *tar.Header, st *unix.Stat_t) error {
	if err := unix.Symlinkat(h.Linkname, dir, name); err != nil {
		return err
	}
	if err := unix.UtimesNanoAt(dir, name, u.times(h), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return unix.Fstatat(dir, name, st, unix.AT_SYMLINK_NOFOLLOW)
}

// keepIndex keeps the index under the base's name too. Git never writes into an index, it puts a new one in its place.
func (u *unpacker) keepIndex() error {
	dir, err := u.tree.enter(".git")
	if err != nil {
		return err
	}
	return unix.Linkat(dir, filepath.Base(indexName), dir, filepath.Base(baseIndexName), 0)
}

// putIndex writes an index file, when there is one.
func (u *unpacker) putIndex(name string, x *index) error {
	if x == nil {
		return nil
	}
	dir, err := u.tree.enter(".git")
	if err != nil {
		return err
	}
	fd, err := unix.Openat(dir, filepath.Base(name), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err == nil {
		f := os.NewFile(uintptr(fd), name)
		_, err = f.Write(x.finish())
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
