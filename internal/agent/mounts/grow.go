package mounts

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ext4ResizeFS is EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64): fs/ext4/ext4.h.
const ext4ResizeFS = 0x40086610

// Where things stand in an ext4 super block (Documentation/filesystems/ext4/super.rst).
const (
	superOffset   = 1024
	superLen      = 1024
	superBlocksLo = 0x04
	superLogBlock = 0x18
	superMagic    = 0x38
	superFeatures = 0x60 // s_feature_incompat
	superBlocksHi = 0x150
	ext4Magic     = 0xef53
	feature64Bit  = 0x80
)

// Grow extends the ext4 file system of device, mounted on target, to the device's size. It does nothing when it is that
// large already.
func Grow(device, target string) error {
	dev, err := os.Open(device)
	if err != nil {
		return err
	}
	defer dev.Close()
	var size uint64
	if err := ioctl(dev, unix.BLKGETSIZE64, &size); err != nil {
		return fmt.Errorf("size of %s: %w", device, err)
	}
	super := make([]byte, superLen)
	if _, err := dev.ReadAt(super, superOffset); err != nil {
		return err
	}
	blocks, blockSize, ok := ext4Size(super)
	if !ok {
		return fmt.Errorf("%s holds no ext4", device)
	}
	want := size / blockSize
	if want <= blocks {
		return nil
	}
	root, err := os.Open(target)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := ioctl(root, ext4ResizeFS, &want); err != nil {
		return fmt.Errorf("grow ext4 on %s from %d to %d blocks: %w", target, blocks, want, err)
	}
	return nil
}

func ext4Size(super []byte) (blocks, blockSize uint64, ok bool) {
	le := binary.LittleEndian
	if le.Uint16(super[superMagic:]) != ext4Magic {
		return 0, 0, false
	}
	blocks = uint64(le.Uint32(super[superBlocksLo:]))
	if le.Uint32(super[superFeatures:])&feature64Bit != 0 {
		blocks |= uint64(le.Uint32(super[superBlocksHi:])) << 32
	}
	return blocks, 1024 << le.Uint32(super[superLogBlock:]), true
}

func ioctl(f *os.File, request uintptr, arg *uint64) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(arg)))
	if errno != 0 {
		return errno
	}
	return nil
}
