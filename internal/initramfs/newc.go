package initramfs

import (
	"fmt"
	"io"
)

// File types of a header's mode field, as in stat(2).
const (
	typeDir  = 0o040000
	typeChar = 0o020000
	typeFile = 0o100000
)

// alignment is the multiple of bytes to which an archive is padded, so that the next may follow.
const alignment = 512

// archive writes one cpio archive in the format newc, which the kernel's document buffer-format.rst defines. The libraries
// for it do not write device numbers. The first error is kept and returned by close.
type archive struct {
	w     io.Writer
	n     int64 // bytes written
	inode int
	err   error
}

func newArchive(w io.Writer) *archive { return &archive{w: w} }

func (a *archive) dir(name string) { a.add(name, typeDir|0o755, nil, 0, 0) }

func (a *archive) file(name string, perm uint32, data []byte) { a.add(name, typeFile|perm, data, 0, 0) }

func (a *archive) device(name string, perm uint32, major, minor int) {
	a.add(name, typeChar|perm, nil, major, minor)
}

// close ends the archive.
func (a *archive) close() error {
	a.inode = -1 // the trailer's is 0
	a.add("TRAILER!!!", 0, nil, 0, 0)
	a.pad(alignment)
	return a.err
}

// add writes one entry that belongs to root: magic and 13 fields of 8 hex digits, the name with its NUL, and the data, the last
// two each padded to 4 bytes. The time is zero, so that equal content gives equal archives.
func (a *archive) add(name string, mode uint32, data []byte, major, minor int) {
	a.inode++
	const uid, gid, links, mtime, devMajor, devMinor, check = 0, 0, 1, 0, 0, 0, 0
	a.write(fmt.Appendf(nil, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.inode, mode, uid, gid, links, mtime, len(data), devMajor, devMinor, major, minor, len(name)+1, check, name))
	a.pad(4)
	a.write(data)
	a.pad(4)
}

func (a *archive) pad(multiple int64) {
	if rest := a.n % multiple; rest > 0 {
		a.write(make([]byte, multiple-rest))
	}
}

func (a *archive) write(b []byte) {
	if a.err != nil {
		return
	}
	n, err := a.w.Write(b)
	a.n += int64(n)
	a.err = err
}
