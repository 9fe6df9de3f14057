package ext4

import (
	"archive/tar"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Inode numbers and limits (kernel documentation, ext4/special_inodes.rst, ext4/inodes.rst).
const (
	rootInode = 2
	lostInode = 11    // lost+found, the first that is not reserved
	maxLinks  = 65000 // EXT4_LINK_MAX; a directory with more has a count of 1 (feature dir_nlink)
	fastLink  = 60    // a shorter symbolic link stands in the inode itself
)

// File types in an inode's mode.
const (
	modeFifo    = 0x1000
	modeChar    = 0x2000
	modeDir     = 0x4000
	modeBlock   = 0x6000
	modeRegular = 0x8000
	modeSymlink = 0xA000
	modeType    = 0xF000
)

// Offsets of inode fields (kernel documentation, ext4/inodes.rst).
const (
	inMode       = 0x00
	inUID        = 0x02
	inSize       = 0x04
	inAtime      = 0x08
	inCtime      = 0x0C
	inMtime      = 0x10
	inGID        = 0x18
	inLinks      = 0x1A
	inSectors    = 0x1C // in units of 512 bytes
	inFlags      = 0x20
	inBlock      = 0x28 // 60 bytes: extent tree, device number or short symbolic link
	inXattrBlock = 0x68
	inSizeHi     = 0x6C
	inUIDHi      = 0x78
	inGIDHi      = 0x7A
	inExtraSize  = 0x80
	inCtimeExtra = 0x84
	inMtimeExtra = 0x88
	inAtimeExtra = 0x8C
	inCrtime     = 0x90
	inCrExtra    = 0x94

	extraSize  = 32 // fields past the first 128 bytes, as mke2fs has it
	inXattr    = 128 + extraSize
	flagExtent = 0x80000
)

// meta is what every type of file has.
type meta struct {
	mode                uint16 // with the type
	uid, gid            uint32
	atime, ctime, mtime time.Time
	xattrs              []xattr
}

// paxXattr begins the records in which GNU tar and star keep extended attributes.
const paxXattr = "SCHILY.xattr."

func metaOf(hdr *tar.Header) (meta, error) {
	m := meta{mode: uint16(hdr.Mode & 0o7777), uid: uint32(hdr.Uid), gid: uint32(hdr.Gid),
		atime: hdr.AccessTime, ctime: hdr.ChangeTime, mtime: hdr.ModTime}
	if hdr.Typeflag == tar.TypeDir {
		m.mode |= modeDir
	}
	if m.atime.IsZero() {
		m.atime = m.mtime
	}
	if m.ctime.IsZero() {
		m.ctime = m.mtime
	}
	for _, key := range slices.Sorted(maps.Keys(hdr.PAXRecords)) {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok {
			continue
		}
		x, err := newXattr(name, []byte(hdr.PAXRecords[key]))
		if err != nil {
			return m, err
		}
		m.xattrs = append(m.xattrs, x)
	}
	return m, nil
}

// deviceNumber encodes as the kernel's new_encode_dev does. The old encoding, of the small numbers, is kept apart in
// the inode.
func deviceNumber(major, minor int64) uint32 {
	return uint32(minor&0xff | major<<8 | (minor&^0xff)<<12)
}

// readInode makes a node of a directory that mke2fs made. Its blocks are kept, at its beginning.
func readInode(s *space, number uint32) (*node, error) {
	b := make([]byte, inodeSize)
	if _, err := s.f.ReadAt(b, s.inodeOffset(number)); err != nil {
		return nil, fmt.Errorf("read inode %d: %w", number, err)
	}
	le := binary.LittleEndian
	tree := b[inBlock:]
	entries := int(le.Uint16(tree[2:]))
	if le.Uint16(b[inMode:])&modeType != modeDir || le.Uint16(tree) != extentMagic || le.Uint16(tree[6:]) != 0 || entries > 4 {
		return nil, fmt.Errorf("inode %d is not as mke2fs leaves it", number)
	}
	when := time.Unix(int64(le.Uint32(b[inMtime:])), 0)
	n := &node{meta: meta{mode: le.Uint16(b[inMode:]), atime: when, ctime: when, mtime: when},
		size: int64(le.Uint32(b[inSize:])), index: map[string]*entry{}, links: 1, number: number}
	for i := range entries {
		e := tree[12+12*i:]
		n.runs = append(n.runs, run{le.Uint32(e[8:]), uint32(le.Uint16(e[4:]))})
	}
	return n, nil
}

// writeInodes writes the inodes of nodes, which are in order of their numbers.
func (b *Builder) writeInodes(nodes []*node) error {
	var raw [inodeSize]byte
	buf := b.buf[:0]
	var start int64
	write := func() error {
		_, err := b.f.WriteAt(buf, start)
		return err
	}
	for _, n := range nodes {
		if err := b.encode(n, &raw); err != nil {
			return fmt.Errorf("inode %d: %w", n.number, err)
		}
		at := b.space.inodeOffset(n.number)
		if at != start+int64(len(buf)) || len(buf)+inodeSize > cap(buf) {
			if err := write(); err != nil {
				return err
			}
			buf, start = buf[:0], at
		}
		buf = append(buf, raw[:]...)
	}
	return write()
}

func (b *Builder) encode(n *node, raw *[inodeSize]byte) error {
	clear(raw[:])
	le := binary.LittleEndian
	blocks := uint32(0)
	for _, r := range n.runs {
		if r.start != 0 {
			blocks += r.n
		}
	}
	switch n.mode & modeType {
	case modeChar, modeBlock:
		if n.dev < 1<<16 {
			le.PutUint32(raw[inBlock:], n.dev)
		} else {
			le.PutUint32(raw[inBlock+4:], n.dev)
		}
	case modeSymlink:
		if n.size < fastLink {
			copy(raw[inBlock:], n.link)
			break
		}
		fallthrough
	case modeRegular, modeDir:
		leaves, err := b.extents(n.runs, raw[inBlock:inBlock+60])
		if err != nil {
			return err
		}
		blocks += leaves
		le.PutUint32(raw[inFlags:], flagExtent)
	}
	if !encodeXattrs(n.xattrs, raw[inXattr:], 4) {
		block, err := b.xattrBlock(n.xattrs)
		if err != nil {
			return err
		}
		le.PutUint32(raw[inXattrBlock:], block)
		blocks++
	}
	le.PutUint16(raw[inMode:], n.mode)
	le.PutUint16(raw[inUID:], uint16(n.uid))
	le.PutUint16(raw[inUIDHi:], uint16(n.uid>>16))
	le.PutUint16(raw[inGID:], uint16(n.gid))
	le.PutUint16(raw[inGIDHi:], uint16(n.gid>>16))
	le.PutUint32(raw[inSize:], uint32(n.size))
	le.PutUint32(raw[inSizeHi:], uint32(n.size>>32))
	le.PutUint16(raw[inLinks:], n.linkCount())
	le.PutUint32(raw[inSectors:], blocks*(blockSize/512))
	le.PutUint16(raw[inExtraSize:], extraSize)
	putTime(raw, inAtime, inAtimeExtra, n.atime)
	putTime(raw, inCtime, inCtimeExtra, n.ctime)
	putTime(raw, inMtime, inMtimeExtra, n.mtime)
	putTime(raw, inCrtime, inCrExtra, n.mtime)
	return nil
}

func (n *node) linkCount() uint16 {
	if !n.isDir() {
		return uint16(n.links)
	}
	count := 2
	for _, e := range n.children {
		if e.node.isDir() {
			count++
		}
	}
	if count > maxLinks {
		return 1
	}
	return uint16(count)
}

// putTime writes 34 bits of seconds and 30 of nanoseconds, over two fields. A time out of that range is cut to its ends.
func putTime(raw *[inodeSize]byte, lo, hi int, t time.Time) {
	sec := min(max(t.Unix(), -1<<31), 1<<34-1<<31-1)
	epoch := uint32((sec-int64(int32(sec)))>>32) & 3
	binary.LittleEndian.PutUint32(raw[lo:], uint32(sec))
	binary.LittleEndian.PutUint32(raw[hi:], epoch|uint32(t.Nanosecond())<<2)
}

const (
	extentMagic   = 0xF30A
	extentsInNode = 4                     // in the 60 bytes of an inode
	extentsInLeaf = (blockSize - 12) / 12 // in a block
)

// extent is a run with its place in the file: its first block.
type extent struct {
	logical uint32
	run
}

// extentsOf leaves the holes out.
func extentsOf(runs []run) []extent {
	var all []extent
	logical := uint32(0)
	for _, r := range runs {
		if r.start != 0 {
			all = append(all, extent{logical, r})
		}
		logical += r.n
	}
	return all
}

// extents writes the extent tree of runs into the 60 bytes at dst, and leaf blocks where it has more than four; it returns
// their number (kernel documentation, ext4/ifork.rst).
func (b *Builder) extents(runs []run, dst []byte) (uint32, error) {
	all := extentsOf(runs)
	if len(all) <= extentsInNode {
		putExtents(dst, all, extentsInNode)
		return 0, nil
	}
	if len(all) > extentsInNode*extentsInLeaf {
		return 0, errkind.New(api.KindInvalid, "file in %d pieces", len(all))
	}
	le := binary.LittleEndian
	leaves := uint32(0)
	for chunk := range slices.Chunk(all, extentsInLeaf) {
		at, err := b.space.allocate(1)
		if err != nil {
			return 0, err
		}
		block := make([]byte, blockSize)
		putExtents(block, chunk, extentsInLeaf)
		if err := writeAt(b.f, block, at[0].start); err != nil {
			return 0, err
		}
		idx := dst[12+12*leaves:]
		le.PutUint32(idx, chunk[0].logical)
		le.PutUint32(idx[4:], at[0].start)
		leaves++
	}
	putExtentHeader(dst, int(leaves), extentsInNode, 1)
	return leaves, nil
}

// putExtents writes a leaf.
func putExtents(dst []byte, extents []extent, room int) {
	le := binary.LittleEndian
	putExtentHeader(dst, len(extents), room, 0)
	for i, x := range extents {
		e := dst[12+12*i:]
		le.PutUint32(e, x.logical)
		le.PutUint16(e[4:], uint16(x.n))
		le.PutUint32(e[8:], x.start)
	}
}

func putExtentHeader(dst []byte, entries, room, depth int) {
	le := binary.LittleEndian
	le.PutUint16(dst, extentMagic)
	le.PutUint16(dst[2:], uint16(entries))
	le.PutUint16(dst[4:], uint16(room))
	le.PutUint16(dst[6:], uint16(depth))
}
