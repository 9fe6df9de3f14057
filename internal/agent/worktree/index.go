package worktree

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"io"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// index is a git index file of version 2 or 3 in memory (gitformat-index(5)), into which stat data is entered. Entries are
// sorted by path, files come in the same order, and so a cursor goes through once.
type index struct {
	data []byte
	next int // offset of the entry at the cursor
	left int // entries from the cursor on
}

// Layout of an index entry: the stat data, the object id, the flags, with the extended flag two bytes more, then the path
// with one to eight NULs, so that the length is a multiple of eight.
const (
	entryMode     = 24 // offset of the mode, which is the index's and stays
	entryStatLen  = 40
	entryFlags    = 60
	entryPath     = 62
	flagExtended  = 0x4000
	indexHeader   = 12
	maxIndexBytes = 1 << 30
)

var errIndex = errkind.New(api.KindInvalid, "it is no git index of version 2 or 3")

// readIndex reads an index file of size bytes and clears the stat data of every entry.
func readIndex(r io.Reader, size int64) (*index, error) {
	if size < indexHeader+sha1.Size || size > maxIndexBytes {
		return nil, errIndex
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, err
	}
	x, err := parseIndex(data)
	if err != nil {
		return nil, err
	}
	for ; x.left > 0; x.advance() {
		stat := data[x.next : x.next+entryStatLen]
		clear(stat[:entryMode])
		clear(stat[entryMode+4:])
	}
	x.rewind()
	return x, nil
}

// parseIndex returns data as an index whose entries are all whole.
func parseIndex(data []byte) (*index, error) {
	if len(data) < indexHeader+sha1.Size || !bytes.HasPrefix(data, []byte("DIRC")) {
		return nil, errIndex
	}
	if version := binary.BigEndian.Uint32(data[4:]); version < 2 || version > 3 {
		return nil, errIndex
	}
	x := &index{data: data}
	x.rewind()
	for ; x.left > 0; x.advance() {
		if x.path() == nil {
			return nil, errIndex
		}
	}
	x.rewind()
	return x, nil
}

func (x *index) rewind() {
	x.next, x.left = indexHeader, int(binary.BigEndian.Uint32(x.data[8:]))
}

// pathAt returns the offset of the path in the entry at the cursor.
func (x *index) pathAt() int {
	if binary.BigEndian.Uint16(x.data[x.next+entryFlags:])&flagExtended != 0 {
		return x.next + entryPath + 2
	}
	return x.next + entryPath
}

// path returns the path of the entry at the cursor, and nil when the entry is not whole.
func (x *index) path() []byte {
	end := len(x.data) - sha1.Size
	if x.next+entryPath+2 > end {
		return nil
	}
	at := x.pathAt()
	n := bytes.IndexByte(x.data[at:end], 0)
	if n <= 0 || x.next+entryLen(at-x.next+n) > end {
		return nil
	}
	return x.data[at : at+n]
}

// entryLen is the length of an entry of n bytes with its padding.
func entryLen(n int) int { return (n + 8) &^ 7 }

func (x *index) advance() {
	at := x.pathAt()
	x.next += entryLen(at - x.next + len(x.path()))
	x.left--
}

// fill enters the stat data of the file at path, and reports whether the index has that path. Paths must come sorted.
func (x *index) fill(path string, st *unix.Stat_t) bool {
	for x.left > 0 {
		name := x.path()
		if string(name) > path {
			return false
		}
		if string(name) == path {
			x.put(st)
			x.advance()
			return true
		}
		x.advance()
	}
	return false
}

// put writes stat data into the entry at the cursor, each number's low 32 bits.
func (x *index) put(st *unix.Stat_t) {
	e := x.data[x.next:]
	for i, v := range statData(st) {
		at := 4 * i
		if at >= entryMode {
			at += 4
		}
		binary.BigEndian.PutUint32(e[at:], v)
	}
}

// statData is what an index has of a file beside its mode, in the index's order.
func statData(st *unix.Stat_t) [9]uint32 {
	return [9]uint32{
		uint32(st.Ctim.Sec), uint32(st.Ctim.Nsec), uint32(st.Mtim.Sec), uint32(st.Mtim.Nsec),
		uint32(st.Dev), uint32(st.Ino), st.Uid, st.Gid, uint32(st.Size),
	}
}

// finish returns the file, with its checksum.
func (x *index) finish() []byte {
	end := len(x.data) - sha1.Size
	sum := sha1.Sum(x.data[:end])
	copy(x.data[end:], sum[:])
	return x.data
}
