package ext4

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"os"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"golang.org/x/sys/unix"
)

// Offsets of group descriptor fields (kernel documentation, ext4/group_descr.rst).
const (
	gdBlockBitmap = 0x00
	gdInodeBitmap = 0x04
	gdInodeTable  = 0x08
	gdFreeBlocks  = 0x0C
	gdFreeInodes  = 0x0E
	gdUsedDirs    = 0x10
)

// maxRun is the largest number of blocks that one extent holds when initialised (kernel documentation, ext4/ifork.rst).
const maxRun = 1 << 15

// run is a number of blocks in a row on disk.
type run struct {
	start uint32
	n     uint32
}

// space is what is free in a file system, in memory: the block bitmaps and the descriptors of all groups. Inodes are
// given out by number and in order, so that their bitmaps need no image here.
type space struct {
	f              *os.File
	sb             *super
	blocks         uint32
	inodesPerGroup uint32
	desc           []byte // all group descriptors
	bitmap         []byte // all block bitmaps, one after the other; bits past the end of the last group are set
	next           uint32 // where the search for a free block goes on
	free           uint32
}

func openSpace(f *os.File) (*space, error) {
	sb, err := readSuper(f)
	if err != nil {
		return nil, err
	}
	s := &space{f: f, sb: sb, blocks: sb.u32(sbBlocks), inodesPerGroup: sb.u32(sbInodesPerGroup), free: sb.u32(sbFreeBlocks)}
	groups := (int(s.blocks) + blocksPerGroup - 1) / blocksPerGroup
	s.desc = make([]byte, groups*descSize)
	if _, err := f.ReadAt(s.desc, blockSize); err != nil { // the descriptors follow the superblock's block
		return nil, fmt.Errorf("read group descriptors: %w", err)
	}
	s.bitmap = make([]byte, groups*blockSize)
	for g := range groups {
		at := int64(s.field(g, gdBlockBitmap)) * blockSize
		if _, err := f.ReadAt(s.bitmap[g*blockSize:(g+1)*blockSize], at); err != nil {
			return nil, fmt.Errorf("read block bitmap of group %d: %w", g, err)
		}
	}
	return s, nil
}

func (s *space) groups() int { return len(s.desc) / descSize }

func (s *space) field(group, off int) uint32 {
	return binary.LittleEndian.Uint32(s.desc[group*descSize+off:])
}

func (s *space) setCount(group, off int, v uint32) {
	binary.LittleEndian.PutUint16(s.desc[group*descSize+off:], uint16(v))
}

// allocate takes n blocks, in as few runs as there are in order from where the last search ended.
func (s *space) allocate(n uint32) ([]run, error) {
	if n > s.free {
		return nil, errFull
	}
	var runs []run
	for n > 0 {
		b := s.nextFree()
		length := uint32(0)
		for length < n && length < maxRun && b+length < s.blocks && !s.used(b+length) {
			s.bitmap[(b+length)/8] |= 1 << ((b + length) % 8)
			length++
		}
		runs = append(runs, run{b, length})
		s.next = b + length
		s.free -= length
		n -= length
	}
	return runs, nil
}

var errFull = errkind.WithHint(errkind.New(api.KindInvalid, "the content does not fit into the file system"), "ask for a larger one")

func (s *space) used(b uint32) bool { return s.bitmap[b/8]&(1<<(b%8)) != 0 }

// nextFree finds a free block; there is one.
func (s *space) nextFree() uint32 {
	for {
		if s.next >= s.blocks {
			s.next = 0
		}
		if s.next%8 == 0 && s.bitmap[s.next/8] == 0xff {
			s.next += 8
			continue
		}
		if !s.used(s.next) {
			return s.next
		}
		s.next++
	}
}

func (s *space) release(runs []run) {
	for _, r := range runs {
		if r.start == 0 {
			continue
		}
		for b := r.start; b < r.start+r.n; b++ {
			s.bitmap[b/8] &^= 1 << (b % 8)
		}
		s.free += r.n
		s.next = min(s.next, r.start)
	}
}

// inodeOffset returns where inode number ino stands in the file.
func (s *space) inodeOffset(ino uint32) int64 {
	g, i := (ino-1)/s.inodesPerGroup, (ino-1)%s.inodesPerGroup
	return int64(s.field(int(g), gdInodeTable))*blockSize + int64(i)*inodeSize
}

// punchTables gives back what mke2fs allocated for the inode tables to hold zeros: a hole reads as zeros, too. Where the
// host's file system has no holes the space stays taken, which does no harm.
func (s *space) punchTables() {
	size := int64(s.inodesPerGroup) * inodeSize
	keep := int64(blockSize) // the reserved inodes are in the first block of the first table
	for g := range s.groups() {
		at := int64(s.field(g, gdInodeTable))*blockSize + keep
		_ = unix.Fallocate(int(s.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, size-keep)
		keep = 0
	}
}

// flush writes bitmaps, descriptors and superblock. Inodes 1 to lastInode are in use; dirs counts the directories of each
// group.
func (s *space) flush(lastInode uint32, dirs []uint32, readOnly bool) error {
	var freeInodes uint32
	for g := range s.groups() {
		block := s.bitmap[g*blockSize : (g+1)*blockSize]
		used := uint32(0)
		for i := 0; i < blockSize; i += 8 {
			used += uint32(bits.OnesCount64(binary.LittleEndian.Uint64(block[i:])))
		}
		s.setCount(g, gdFreeBlocks, blocksPerGroup-used)
		first := uint32(g) * s.inodesPerGroup
		taken := min(max(lastInode, first)-first, s.inodesPerGroup)
		s.setCount(g, gdFreeInodes, s.inodesPerGroup-taken)
		s.setCount(g, gdUsedDirs, dirs[g])
		freeInodes += s.inodesPerGroup - taken
		if err := writeAt(s.f, block, s.field(g, gdBlockBitmap)); err != nil {
			return err
		}
		if err := writeAt(s.f, inodeBitmap(taken, s.inodesPerGroup), s.field(g, gdInodeBitmap)); err != nil {
			return err
		}
	}
	if err := writeAt(s.f, s.desc, 1); err != nil {
		return err
	}
	s.sb.setU32(sbFreeBlocks, s.free)
	s.sb.setU32(sbFreeInodes, freeInodes)
	if readOnly {
		s.sb.setU32(sbROCompat, s.sb.u32(sbROCompat)|roCompatReadOnly)
	}
	_, err := s.f.WriteAt(s.sb[:], superOffset)
	return err
}

// inodeBitmap is a block with the first taken bits set, and those past perGroup, which stand for no inode.
func inodeBitmap(taken, perGroup uint32) []byte {
	b := make([]byte, blockSize)
	for i := range taken {
		b[i/8] |= 1 << (i % 8)
	}
	for i := perGroup; i < blocksPerGroup; i++ {
		b[i/8] |= 1 << (i % 8)
	}
	return b
}

func writeAt(w io.WriterAt, b []byte, block uint32) error {
	_, err := w.WriteAt(b, int64(block)*blockSize)
	return err
}
