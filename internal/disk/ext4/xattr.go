package ext4

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// xattr is an extended attribute as it is stored: its name without the prefix that index stands for.
type xattr struct {
	index byte
	name  string
	value []byte
}

// xattrPrefixes are the name prefixes and their numbers (kernel documentation, ext4/attributes.rst).
var xattrPrefixes = []struct {
	prefix string
	index  byte
}{
	{"user.", 1}, {"system.posix_acl_access", 2}, {"system.posix_acl_default", 3}, {"trusted.", 4}, {"security.", 6},
}

func newXattr(name string, value []byte) (xattr, error) {
	for _, p := range xattrPrefixes {
		rest, ok := strings.CutPrefix(name, p.prefix)
		if !ok || len(rest) > 255 {
			continue
		}
		if p.index == 2 || p.index == 3 {
			if rest != "" {
				continue
			}
			var err error
			if value, err = packACL(value); err != nil {
				return xattr{}, err
			}
		}
		return xattr{p.index, rest, value}, nil
	}
	return xattr{}, errkind.New(api.KindInvalid, "ext4 cannot hold the extended attribute %q", name)
}

// packACL turns an access control list as system calls pass it (version 2, every entry with an id; linux/posix_acl_xattr.h)
// into ext4's form (version 1, an id with named users and groups only; fs/ext4/acl.h).
func packACL(v []byte) ([]byte, error) {
	le := binary.LittleEndian
	if len(v) < 4 || le.Uint32(v) != 2 || (len(v)-4)%8 != 0 {
		return nil, errkind.New(api.KindInvalid, "malformed access control list")
	}
	out := le.AppendUint32(nil, 1)
	for e := v[4:]; len(e) > 0; e = e[8:] {
		const user, group = 0x02, 0x08
		n := 4
		if tag := le.Uint16(e); tag == user || tag == group {
			n = 8
		}
		out = append(out, e[:n]...)
	}
	return out, nil
}

const (
	xattrMagic       = 0xEA020000
	xattrBlockHeader = 32
)

// encodeXattrs writes the attributes into dst: header bytes, of which the first four are the magic number, then the
// entries upwards and the values from the end downwards. It reports whether they fit; when not, or when there are none,
// dst is untouched. In an inode offsets count from the first entry, in a block from its beginning.
func encodeXattrs(xs []xattr, dst []byte, header int) bool {
	if len(xs) == 0 {
		return true
	}
	need := header + 4 // four zero bytes end the entries
	for _, x := range xs {
		need += x.entrySize() + padded(len(x.value))
	}
	if need > len(dst) {
		return false
	}
	le := binary.LittleEndian
	origin := header
	if header == xattrBlockHeader {
		origin = 0
	}
	le.PutUint32(dst, xattrMagic)
	at, end := header, len(dst)
	for _, x := range xs {
		end -= padded(len(x.value))
		copy(dst[end:], x.value)
		e := dst[at:]
		e[0], e[1] = byte(len(x.name)), x.index
		if len(x.value) > 0 {
			le.PutUint16(e[2:], uint16(end-origin))
		}
		le.PutUint32(e[8:], uint32(len(x.value)))
		le.PutUint32(e[12:], x.hash())
		copy(e[16:], x.name)
		at += x.entrySize()
	}
	return true
}

// xattrBlock writes the attributes into a block of their own.
func (b *Builder) xattrBlock(xs []xattr) (uint32, error) {
	xs = slices.Clone(xs)
	slices.SortFunc(xs, func(a, b xattr) int { // the kernel searches a block in this order
		return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(len(a.name), len(b.name)), cmp.Compare(a.name, b.name))
	})
	block := make([]byte, blockSize)
	if !encodeXattrs(xs, block, xattrBlockHeader) {
		return 0, errkind.New(api.KindInvalid, "more than 4 KiB of extended attributes")
	}
	le := binary.LittleEndian
	le.PutUint32(block[4:], 1) // references
	le.PutUint32(block[8:], 1) // blocks
	at, err := b.space.allocate(1)
	if err != nil {
		return 0, err
	}
	return at[0].start, writeAt(b.f, block, at[0].start)
}

func padded(n int) int { return (n + 3) &^ 3 }

func (x xattr) entrySize() int { return 16 + padded(len(x.name)) }

// hash is ext4_xattr_hash_entry of fs/ext4/xattr.c, on unsigned characters.
func (x xattr) hash() uint32 {
	var h uint32
	for _, c := range []byte(x.name) {
		h = h<<5 ^ h>>27 ^ uint32(c)
	}
	v := append(slices.Clone(x.value), make([]byte, padded(len(x.value))-len(x.value))...)
	for ; len(v) > 0; v = v[4:] {
		h = h<<16 ^ h>>16 ^ binary.LittleEndian.Uint32(v)
	}
	return h
}
