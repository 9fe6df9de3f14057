package ext4

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Facts about the layout that this package makes; Info reads any.
const (
	blockSize      = 4096
	blocksPerGroup = 8 * blockSize
	inodeSize      = 256
	descSize       = 32 // of a group descriptor without the feature 64bit
	superOffset    = 1024
	superSize      = 1024
	superMagic     = 0xEF53
)

// Offsets of superblock fields (kernel documentation, ext4/super.rst).
const (
	sbInodes         = 0x00
	sbBlocks         = 0x04
	sbFreeBlocks     = 0x0C
	sbFreeInodes     = 0x10
	sbFirstDataBlock = 0x14
	sbLogBlockSize   = 0x18
	sbInodesPerGroup = 0x28
	sbMagic          = 0x38
	sbState          = 0x3A
	sbInodeSize      = 0x58
	sbCompat         = 0x5C
	sbIncompat       = 0x60
	sbROCompat       = 0x64
	sbUUID           = 0x68
	sbLabel          = 0x78
	sbBlocksHi       = 0x150
	sbFreeBlocksHi   = 0x158
)

const roCompatReadOnly = 0x1000

// featureNames maps bits to e2fsprogs' names: compatible, incompatible, read-only compatible.
var featureNames = [3]map[int]string{
	{2: "has_journal", 3: "ext_attr", 4: "resize_inode", 5: "dir_index", 9: "sparse_super2", 12: "orphan_file"},
	{1: "filetype", 2: "needs_recovery", 4: "meta_bg", 6: "extent", 7: "64bit", 9: "flex_bg", 15: "inline_data", 16: "encrypt"},
	{0: "sparse_super", 1: "large_file", 3: "huge_file", 4: "uninit_bg", 5: "dir_nlink", 6: "extra_isize", 10: "metadata_csum",
		12: "read-only", 13: "project"},
}

// Info is what a file system's superblock says of it.
type Info struct {
	Size       int64 // bytes
	BlockSize  int64 // bytes
	Blocks     int64
	FreeBlocks int64
	Inodes     int64
	FreeInodes int64
	Label      string
	UUID       string
	Features   []string // e2fsprogs' names; a bit without one is bit N of its word, such as incompat:17
	Clean      bool     // unmounted properly, or never mounted
}

// ReadInfo reads the superblock of the file system in the file at path. A file with no ext2, ext3 or ext4 in it is of
// kind invalid.
func ReadInfo(path string) (Info, error) {
	f, err := os.Open(path)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	sb, err := readSuper(f)
	if err != nil {
		return Info{}, fmt.Errorf("%s: %w", path, err)
	}
	return sb.info(), nil
}

// super is the superblock as it stands on disk.
type super [superSize]byte

func readSuper(r io.ReaderAt) (*super, error) {
	sb := new(super)
	if _, err := r.ReadAt(sb[:], superOffset); err != nil && err != io.EOF {
		return nil, err
	}
	if binary.LittleEndian.Uint16(sb[sbMagic:]) != superMagic {
		return nil, errkind.New(api.KindInvalid, "no ext4 file system")
	}
	return sb, nil
}

func (sb *super) u32(off int) uint32       { return binary.LittleEndian.Uint32(sb[off:]) }
func (sb *super) setU32(off int, v uint32) { binary.LittleEndian.PutUint32(sb[off:], v) }

func (sb *super) info() Info {
	bs := int64(1024) << (sb.u32(sbLogBlockSize) & 31)
	wide := func(lo, hi int) int64 {
		v := int64(sb.u32(lo))
		if sb.u32(sbIncompat)&0x80 != 0 { // 64bit
			v |= int64(sb.u32(hi)) << 32
		}
		return v
	}
	u := hex.EncodeToString(sb[sbUUID : sbUUID+16])
	i := Info{
		BlockSize: bs, Blocks: wide(sbBlocks, sbBlocksHi), FreeBlocks: wide(sbFreeBlocks, sbFreeBlocksHi),
		Inodes: int64(sb.u32(sbInodes)), FreeInodes: int64(sb.u32(sbFreeInodes)),
		Label: strings.TrimRight(string(sb[sbLabel:sbLabel+16]), "\x00"),
		UUID:  strings.Join([]string{u[:8], u[8:12], u[12:16], u[16:20], u[20:]}, "-"),
		Clean: sb[sbState]&1 != 0 && sb.u32(sbIncompat)&4 == 0, // EXT4_VALID_FS, and no journal to replay
	}
	i.Size = i.Blocks * bs
	for n, word := range []struct {
		name string
		off  int
	}{{"compat", sbCompat}, {"incompat", sbIncompat}, {"ro_compat", sbROCompat}} {
		for bit := range 32 {
			if sb.u32(word.off)&(1<<bit) == 0 {
				continue
			}
			name, ok := featureNames[n][bit]
			if !ok {
				name = fmt.Sprintf("%s:%d", word.name, bit)
			}
			i.Features = append(i.Features, name)
		}
	}
	return i
}
