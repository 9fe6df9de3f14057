// Package ext4 makes ext4 file systems in ordinary files, without root, without mounting, and without unpacking anything
// on the host: a tar stream goes in at one end, a file system that a guest can use at once comes out at the other.
//
// mke2fs lays out the empty file system at its final size, with everything a long-lived one has: journal, backups of the
// superblock, room to grow, the usual number of inodes. A [Builder] then writes files into it. The library that does
// the like, hcsshim's tar2ext4, is not used, because what it makes is meant to be read only: it has the feature
// sparse_super2, which no kernel grows online, and just the inodes that its content needs.
//
// What is made here has no metadata checksums and no uninitialised groups, on purpose: checksums cost time in a
// guest under emulation, and nothing is left to initialise in the background after the first mount. Files are sparse on
// the host: what has not been written takes no space.
//
// A file system grows online in the guest, by EXT4_IOC_RESIZE_FS, up to [MaxGrowth] without a change of its layout, for
// mke2fs reserves group descriptors for that (resize_inode).
//
// The layout on disk follows the kernel's documentation, Documentation/filesystems/ext4. Words: a block has 4 KiB; a group
// is 32,768 blocks that one bitmap block describes; a node is an inode that has no number yet.
package ext4

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
)

// MinSize is the smallest file system that is made, in bytes.
const MinSize = 16 << 20

// MaxGrowth is the size in bytes up to which every file system can be grown online with the layout that it has.
const MaxGrowth = 1 << 40

// Options say what file system to make.
type Options struct {
	// Size in bytes of the file system and of its file, which is sparse; rounded down to whole blocks. At least MinSize.
	Size int64
	// Label is the volume label, at most 16 bytes.
	Label string
	// UUID of the file system, in its usual notation; random when empty.
	UUID string
	// ReadOnly sets the feature read-only, so that no kernel mounts it for writing, and leaves the journal out.
	ReadOnly bool
}

// FromTar makes a file system at path that holds what the tar stream r holds: every type of entry, with owner, mode,
// time, and extended attributes as GNU tar and star record them. Whiteouts have no meaning here. There must be no file at
// path yet, and none is left there after an error. A file system too small for its content is of kind invalid.
func FromTar(ctx context.Context, r io.Reader, path string, o Options) error {
	b, err := Create(ctx, path, o)
	if err != nil {
		return err
	}
	defer b.Abort()
	t := tar.NewReader(bufio.NewReaderSize(r, 1<<20))
	for {
		hdr, err := t.Next()
		if errors.Is(err, io.EOF) {
			return b.Close()
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		if err := b.Add(ctx, hdr, t); err != nil {
			return err
		}
	}
}

// Empty makes a file system at path with nothing in it but lost+found, owned by root. There must be no file at path yet.
func Empty(ctx context.Context, path string, o Options) error {
	b, err := Create(ctx, path, o)
	if err != nil {
		return err
	}
	return b.Close()
}

// Check verifies the file system in the file at path without changing it (e2fsck -fn). One that is damaged is of kind
// data loss; e2fsck's own words are in the error's [host.ExitError].
func Check(ctx context.Context, path string) error {
	_, err := host.Output(ctx, host.Command{Argv: []string{"e2fsck", "-fn", path}, Env: []string{"LC_ALL=C"}})
	var exit *host.ExitError
	switch {
	case errors.As(err, &exit) && exit.Code&4 != 0: // e2fsck(8): errors left uncorrected
		return errkind.Wrap(api.KindDataLoss, fmt.Errorf("check file system %s: %w", path, err))
	case err != nil:
		return fmt.Errorf("check file system %s: %w", path, withPackageHint(err))
	}
	return nil
}

func withPackageHint(err error) error {
	if errkind.Is(err, api.KindUnavailable) {
		return errkind.WithHint(err, "install e2fsprogs, which has mke2fs and e2fsck")
	}
	return err
}

const (
	// features is the complete list, so that the host's mke2fs.conf has no say.
	features   = "ext_attr,resize_inode,dir_index,filetype,extent,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize"
	inodeRatio = 16384   // bytes of space for each inode; mke2fs's default
	maxSize    = 8 << 40 // bytes; below the 2^32 blocks and inodes that fit into 32 bits
)

// journalMiB chooses the size of the journal. It is written in a circle, so all of it takes space on the host after a while.
func journalMiB(size int64) int64 {
	switch mib := size >> 20; {
	case mib >= 4096:
		return 32
	case mib >= 512:
		return 16
	default:
		return 4
	}
}

func mkfs(ctx context.Context, path string, o Options) error {
	growth := max(MaxGrowth, o.Size)
	argv := []string{
		"mke2fs", "-q", "-F", "-t", "ext4", "-b", strconv.Itoa(blockSize), "-I", strconv.Itoa(inodeSize),
		"-i", strconv.Itoa(inodeRatio), "-m", "0", "-e", "remount-ro", "-L", o.Label,
		"-E", fmt.Sprintf("root_owner=0:0,lazy_journal_init=1,resize=%d", growth/blockSize+1),
	}
	if o.UUID != "" {
		argv = append(argv, "-U", o.UUID)
	}
	if o.ReadOnly {
		argv = append(argv, "-O", "none,"+features)
	} else {
		argv = append(argv, "-O", "none,has_journal,"+features, "-J", fmt.Sprintf("size=%d", journalMiB(o.Size)))
	}
	argv = append(argv, path, strconv.FormatInt(o.Size/blockSize, 10))
	if _, err := host.Output(ctx, host.Command{Argv: argv, Env: []string{"LC_ALL=C"}}); err != nil {
		return withPackageHint(err)
	}
	return nil
}

func (o Options) check() error {
	switch {
	case o.Size < MinSize:
		return errkind.New(api.KindInvalid, "a file system of %d bytes is too small: the least is %d", o.Size, int64(MinSize))
	case o.Size > maxSize:
		return errkind.New(api.KindInvalid, "a file system of %d bytes is too large: the most is %d", o.Size, int64(maxSize))
	case len(o.Label) > 16:
		return errkind.New(api.KindInvalid, "label %q is longer than 16 bytes", o.Label)
	case strings.HasPrefix(o.UUID, "-"):
		return errkind.New(api.KindInvalid, "bad UUID %q", o.UUID)
	}
	return nil
}

// newFile makes the sparse file that the file system goes into.
func newFile(path string, size int64) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, errkind.New(api.KindExists, "%s exists", path)
	}
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(size); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return f, nil
}
