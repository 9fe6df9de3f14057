package qcow2

import (
	"encoding/binary"
	"io"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Numbers of QEMU's docs/interop/qcow2.txt, "Header" and "Header extensions".
const (
	magic            = 0x514649fb // "QFI\xfb"
	version          = 3
	headerLength     = 104
	clusterBits      = 16
	clusterSize      = 1 << clusterBits
	refcountOrder    = 4 // 16-bit reference counts
	extBackingFormat = 0xe2792aca
	maxBackingName   = 1023

	incompatDirty   = 1 << 0
	incompatCorrupt = 1 << 1
)

// sizeOffset is where the header holds the disk's size.
const sizeOffset = 24

// Layout of a fresh clone, in clusters.
const (
	refcountTableCluster = 1
	refcountBlockCluster = 2
	l1Cluster            = 3
	clusters             = 4
)

// l1Entries is how many entries the first-level table has: a full cluster of them, whatever the disk's size, so that
// growing needs no new table. An entry covers 8192 clusters (a second-level table is a cluster of 8-byte entries).
const (
	l1Entries = clusterSize / 8
	maxSize   = int64(l1Entries) * (clusterSize / 8) * clusterSize // 4 TiB
)

// header is the fixed part of a version 3 header, in the file's order. All numbers are big-endian.
type header struct {
	Magic, Version      uint32
	BackingOffset       uint64
	BackingSize         uint32
	ClusterBits         uint32
	Size                uint64
	CryptMethod         uint32
	L1Size              uint32
	L1Offset            uint64
	RefTableOffset      uint64
	RefTableClusters    uint32
	Snapshots           uint32
	SnapshotsOffset     uint64
	Incompatible        uint64
	Compatible          uint64
	Autoclear           uint64
	RefcountOrder       uint32
	HeaderLength        uint32
	ExtType, ExtLength  uint32 // the one extension we write: the backing file's format
	ExtData             [8]byte
	EndType, EndOfExtra uint32
}

// image returns the bytes of a new clone of a backing file that is raw or qcow2: four clusters.
func image(backing, format string, size int64) ([]byte, error) {
	if len(backing) > maxBackingName {
		return nil, errkind.New(api.KindInvalid, "path of the image is longer than %d bytes", maxBackingName)
	}
	if size > maxSize {
		return nil, errkind.New(api.KindInvalid, "disk size of %d bytes is more than the %d that a qcow2 clone can have", size, maxSize)
	}
	h := header{
		Magic: magic, Version: version, ClusterBits: clusterBits, Size: uint64(size),
		BackingSize: uint32(len(backing)),
		L1Size:      l1Entries, L1Offset: l1Cluster << clusterBits,
		RefTableOffset: refcountTableCluster << clusterBits, RefTableClusters: 1,
		RefcountOrder: refcountOrder, HeaderLength: headerLength,
		ExtType: extBackingFormat, ExtLength: uint32(len(format)),
	}
	copy(h.ExtData[:], format)
	h.BackingOffset = uint64(binary.Size(h))

	b := make([]byte, clusters<<clusterBits)
	if _, err := binary.Encode(b, binary.BigEndian, h); err != nil {
		return nil, err
	}
	copy(b[h.BackingOffset:], backing)
	binary.BigEndian.PutUint64(b[refcountTableCluster<<clusterBits:], refcountBlockCluster<<clusterBits)
	for i := range clusters {
		binary.BigEndian.PutUint16(b[refcountBlockCluster<<clusterBits+2*i:], 1)
	}
	return b, nil
}

// readHeader reads a clone's header and the path of its backing file. A file that no clone of ours can be is of kind
// data-loss.
func readHeader(r io.ReaderAt) (h header, backing string, err error) {
	b := make([]byte, binary.Size(h))
	if _, err := r.ReadAt(b, 0); err != nil && err != io.EOF {
		return h, "", err
	}
	if _, err := binary.Decode(b, binary.BigEndian, &h); err != nil {
		return h, "", err
	}
	switch {
	case h.Magic != magic || h.Version != version || h.BackingOffset == 0 || h.BackingSize > maxBackingName:
		return h, "", errkind.New(api.KindDataLoss, "not a qcow2 clone")
	case h.Incompatible&incompatCorrupt != 0:
		return h, "", errkind.WithHint(errkind.New(api.KindDataLoss, "qcow2 clone is marked corrupt"),
			"look at it with `qemu-img check -r leaks`, or delete the VM")
	}
	name := make([]byte, h.BackingSize)
	if _, err := r.ReadAt(name, int64(h.BackingOffset)); err != nil {
		return h, "", errkind.New(api.KindDataLoss, "qcow2 clone is cut short")
	}
	return h, string(name), nil
}
