package files

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/proc"
	"github.com/banger-vm/banger/internal/errkind"
)

// extractor unpacks one tar below a root.
type extractor struct {
	root     *os.Root
	rename   string
	owner    *proc.User // nil: as the tar says
	self     int        // our own uid: what it owns needs no chown
	buf      []byte
	dirTimes []dirTime // set last, because filling a directory changes its time
}

type dirTime struct {
	name string
	mode fs.FileMode
	at   time.Time
}

func newExtractor(p guestapi.TarIn) (*extractor, error) {
	x := &extractor{rename: p.Rename, self: os.Geteuid(), buf: make([]byte, 256<<10)}
	if strings.ContainsAny(p.Rename, "/\x00") || p.Rename == "." || p.Rename == ".." {
		return nil, errkind.New(api.KindInvalid, "bad name %q for the copy", p.Rename)
	}
	if !p.NumericOwner {
		u, err := proc.LookupUser(p.User)
		if err != nil {
			return nil, err
		}
		x.owner = &u
	}
	if err := os.MkdirAll(p.Path, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(p.Path)
	x.root = root
	return x, err
}

func (x *extractor) close() { x.root.Close() }

func (x *extractor) extract(r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name, err := x.name(hdr.Name)
		if err != nil {
			return err
		}
		if err := x.entry(name, hdr, tr); err != nil {
			return fmt.Errorf("unpack %q: %w", hdr.Name, err)
		}
	}
	for i := len(x.dirTimes) - 1; i >= 0; i-- {
		d := x.dirTimes[i]
		if err := errors.Join(x.root.Chmod(d.name, d.mode), x.root.Chtimes(d.name, d.at, d.at)); err != nil {
			return err
		}
	}
	_, err := io.Copy(io.Discard, r) // what follows the tar's end, so that the sender is not cut off
	return err
}

// name returns an entry's name below the root, the top of it renamed where that was asked for.
func (x *extractor) name(entry string) (string, error) {
	name := path.Clean(strings.TrimSuffix(entry, "/"))
	if path.IsAbs(name) || name == ".." || strings.HasPrefix(name, "../") {
		return "", errkind.WithHint(errkind.New(api.KindInvalid, "tar entry %q leads out of the target", entry),
			"make the tar with names below the directory that is packed; what came before this entry is in the guest")
	}
	if x.rename == "" {
		return name, nil
	}
	_, rest, deeper := strings.Cut(name, "/")
	if !deeper {
		return x.rename, nil
	}
	return x.rename + "/" + rest, nil
}

func (x *extractor) entry(name string, hdr *tar.Header, r io.Reader) error {
	mode := hdr.FileInfo().Mode()
	switch hdr.Typeflag {
	case tar.TypeDir:
		return x.dir(name, mode.Perm(), hdr)
	case tar.TypeReg:
		return x.file(name, mode, hdr, r)
	case tar.TypeSymlink:
		if err := x.clear(name); err != nil {
			return err
		}
		if err := x.root.Symlink(hdr.Linkname, name); err != nil {
			return err
		}
		return x.chown(name, hdr)
	case tar.TypeLink:
		target, err := x.name(hdr.Linkname)
		if err != nil {
			return err
		}
		if err := x.clear(name); err != nil {
			return err
		}
		return x.root.Link(target, name)
	case tar.TypeXGlobalHeader:
		return nil
	}
	return errkind.WithHint(errkind.New(api.KindInvalid, "entries of type %q are not copied", hdr.Typeflag),
		"only files, directories and links are; leave devices and pipes out of the tar")
}

func (x *extractor) dir(name string, perm fs.FileMode, hdr *tar.Header) error {
	if err := x.root.MkdirAll(name, 0o755); err != nil {
		return err
	}
	if name == "." {
		return nil // the target itself is the user's: its attributes stay
	}
	x.dirTimes = append(x.dirTimes, dirTime{name, perm, hdr.ModTime})
	return x.chown(name, hdr)
}

// clear removes what stands in the way of a link, but never a directory with something in it.
func (x *extractor) clear(name string) error {
	if err := x.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (x *extractor) file(name string, mode fs.FileMode, hdr *tar.Header, r io.Reader) error {
	const flags = os.O_CREATE | os.O_WRONLY | os.O_TRUNC
	f, err := x.root.OpenFile(name, flags, mode.Perm())
	if errors.Is(err, fs.ErrNotExist) {
		if err := x.root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		f, err = x.root.OpenFile(name, flags, mode.Perm())
	}
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(onlyWriter{f}, r, x.buf)
	if special := mode & (fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky); err == nil && special != 0 {
		err = f.Chmod(mode)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, x.root.Remove(name))
	}
	if err := x.chown(name, hdr); err != nil {
		return err
	}
	return x.root.Chtimes(name, hdr.ModTime, hdr.ModTime)
}

// onlyWriter hides the file's ReadFrom, so that the copy uses the extractor's buffer.
type onlyWriter struct{ io.Writer }

func (x *extractor) chown(name string, hdr *tar.Header) error {
	uid, gid := hdr.Uid, hdr.Gid
	if x.owner != nil {
		uid, gid = int(x.owner.UID), int(x.owner.GID)
	}
	if uid == x.self {
		return nil
	}
	return x.root.Lchown(name, uid, gid)
}
