package worktree

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api/guestapi"
)

// noted is what was noted of a file when it was unpacked.
type noted struct {
	stat [9]uint32
	mode uint32
}

// compareFiles fills in the status without git: every file that is not exactly as it was unpacked is changed, and so is
// one that git would ignore.
func (p *present) compareFiles() error {
	was, err := p.readNoted()
	if err != nil {
		return err
	}
	var files []guestapi.WorkFile
	err = eachFile(p.path, func(path string, st *unix.Stat_t) error {
		old, ok := was[path]
		delete(was, path)
		switch {
		case !ok:
			files = append(files, guestapi.WorkFile{Path: path, Status: "A"})
		case old.changed(st):
			files = append(files, guestapi.WorkFile{Path: path, Status: "M"})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for path := range was {
		files = append(files, guestapi.WorkFile{Path: path, Status: "D"})
	}
	slices.SortFunc(files, func(a, b guestapi.WorkFile) int { return strings.Compare(a.Path, b.Path) })
	p.status.Changed = len(files) > 0
	p.setFiles(files)
	return nil
}

// readNoted reads the stat data of the files that were unpacked. A workspace that has lost it has nothing noted.
func (p *present) readNoted() (map[string]noted, error) {
	was := make(map[string]noted)
	err := p.eachNoted(func(path string, n noted, ok bool) {
		if ok {
			was[path] = n
		}
	})
	return was, err
}

// eachNoted calls visit for each path of the base index, with what was noted of it if it was unpacked.
func (p *present) eachNoted(visit func(path string, n noted, ok bool)) error {
	data, err := os.ReadFile(filepath.Join(p.path, baseIndexName))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	x, err := parseIndex(data)
	if err != nil {
		return nil // somebody wrote into it
	}
	for ; x.left > 0; x.advance() {
		n, ok := x.noted()
		visit(string(x.path()), n, ok)
	}
	return nil
}

// noted returns what was noted of the file at the cursor, when it was unpacked at all.
func (x *index) noted() (noted, bool) {
	e := x.data[x.next:]
	n := noted{mode: binary.BigEndian.Uint32(e[entryMode:])}
	var any uint32
	for i := range n.stat {
		at := 4 * i
		if at >= entryMode {
			at += 4
		}
		n.stat[i] = binary.BigEndian.Uint32(e[at:])
		any |= n.stat[i]
	}
	return n, any != 0
}

// changed compares all but the device number, which may differ from boot to boot.
func (n noted) changed(st *unix.Stat_t) bool {
	now := statData(st)
	const dev = 4
	now[dev] = n.stat[dev]
	return now != n.stat || st.Mode&unix.S_IFMT != n.mode&unix.S_IFMT ||
		st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&0o100 != n.mode&0o100
}

// eachFile calls visit for every file and symbolic link below root, by its path relative to root. It leaves out every
// directory of git's own, and what is neither file nor link.
func eachFile(root string, visit func(path string, st *unix.Stat_t) error) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone while we look
		}
		if err != nil {
			return err
		}
		if d.Name() == ".git" && path != root {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() && d.Type() != fs.ModeSymlink {
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return visit(rel, &st)
	})
}
