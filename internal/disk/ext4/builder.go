package ext4

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Builder writes files into a new file system, in the order in which they come. File contents go straight to their blocks;
// nodes and directories are kept in memory until [Builder.Close]. It is not safe for concurrent use.
type Builder struct {
	path  string
	opts  Options
	f     *os.File // nil after Close and Abort
	space *space
	root  *node
	layer int // that is being written; see BeginLayer
	nodes int // there are, besides those that mke2fs made
	buf   []byte
}

// node is a file of any type. An inode number is given to it at the end, so that nothing is left of a file that a later
// entry of the stream replaces.
type node struct {
	meta
	size     int64  // bytes; of a directory and a long symbolic link too
	runs     []run  // contents; one that starts at block 0 is a hole
	link     string // target of a symbolic link
	dev      uint32
	children []*entry // in order of arrival; nil: not a directory
	index    map[string]*entry
	links    int // names that refer to it, other than those of directories
	number   uint32
}

type entry struct {
	name  string
	node  *node
	layer int // in which the name was written last
}

func (n *node) isDir() bool { return n.index != nil }

// Create makes an empty file system at path, to be filled by Add. There must be no file there yet. The caller ends with
// Close, or with Abort, which may be deferred; until then nothing else may use the file.
func Create(ctx context.Context, path string, o Options) (*Builder, error) {
	o.Size -= o.Size % blockSize
	if err := o.check(); err != nil {
		return nil, err
	}
	f, err := newFile(path, o.Size)
	if err != nil {
		return nil, err
	}
	b := &Builder{path: path, opts: o, f: f, buf: make([]byte, 1<<20)}
	if err := b.open(ctx); err != nil {
		b.Abort()
		return nil, fmt.Errorf("make file system %s: %w", path, err)
	}
	return b, nil
}

func (b *Builder) open(ctx context.Context) error {
	if err := mkfs(ctx, b.path, b.opts); err != nil {
		return err
	}
	var err error
	if b.space, err = openSpace(b.f); err != nil {
		return err
	}
	b.space.punchTables()
	root, err := readInode(b.space, rootInode)
	if err != nil {
		return err
	}
	lost, err := readInode(b.space, lostInode)
	if err != nil {
		return err
	}
	b.root = root
	b.root.add("lost+found", lost, b.layer)
	return nil
}

// Abort gives up: it closes the file and removes it. After Close it does nothing.
func (b *Builder) Abort() {
	if b.f == nil {
		return
	}
	b.f.Close()
	os.Remove(b.path)
	b.f = nil
}

// Add writes one entry of a tar stream; content is read for regular files only. A name leads from the root, whatever
// it begins with, and cannot leave it: symbolic links on its way are followed as a guest would follow them. Directories on the
// way that are missing are made, owned by root. An entry whose name is taken replaces the older one, but a directory is only
// given new attributes, and gives way to no other file unless it is of an earlier layer. On error the Builder is good for Abort
// only.
func (b *Builder) Add(ctx context.Context, hdr *tar.Header, content io.Reader) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.add(ctx, hdr, content); err != nil {
		return fmt.Errorf("add %q: %w", hdr.Name, err)
	}
	return nil
}

func (b *Builder) add(ctx context.Context, hdr *tar.Header, content io.Reader) error {
	m, err := metaOf(hdr)
	if err != nil {
		return err
	}
	if path.Clean("/"+hdr.Name) == "/" {
		if hdr.Typeflag != tar.TypeDir {
			return errkind.New(api.KindInvalid, "the root must be a directory")
		}
		b.root.meta = m
		return nil
	}
	return b.place(hdr.Name, hdr.Typeflag == tar.TypeDir, func(old *node) (*node, error) {
		if old != nil {
			old.meta = m
			return old, nil
		}
		return b.newNode(ctx, hdr, m, content)
	})
}

// place gives the node that fn makes the name. Where a directory is to be and one is, fn gets that.
func (b *Builder) place(name string, dir bool, fn func(old *node) (*node, error)) error {
	way, base := path.Split(path.Clean("/" + name))
	if len(base) > 255 {
		return errkind.New(api.KindInvalid, "name is longer than 255 bytes")
	}
	parent, err := b.walk(way, true)
	if err != nil {
		return err
	}
	old := parent.index[base]
	if old != nil && old.node.isDir() {
		if dir {
			old.layer = b.layer
			_, err := fn(old.node)
			return err
		}
		if !b.prune(old) {
			return errkind.New(api.KindInvalid, "a directory stands in the way")
		}
	}
	n, err := fn(nil)
	if err != nil {
		return err
	}
	if old != nil {
		b.unlink(old.node)
		old.node, old.layer = n, b.layer
		return nil
	}
	parent.add(base, n, b.layer)
	return nil
}

// newNode makes the node of an entry, or finds the one that a hard link refers to, and counts a name for it.
func (b *Builder) newNode(ctx context.Context, hdr *tar.Header, m meta, content io.Reader) (*node, error) {
	if hdr.Typeflag == tar.TypeLink {
		return b.link(hdr.Linkname)
	}
	if err := b.count(); err != nil {
		return nil, err
	}
	n := &node{meta: m, links: 1}
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		n.mode |= modeRegular
		return n, b.write(ctx, n, content, hdr.Size)
	case tar.TypeSymlink:
		n.mode |= modeSymlink
		n.link = hdr.Linkname
		n.size = int64(len(n.link))
		if n.size == 0 || n.size >= blockSize {
			return nil, errkind.New(api.KindInvalid, "symbolic link to a path of %d bytes", n.size)
		}
		if n.size >= fastLink {
			return n, b.write(ctx, n, strings.NewReader(n.link), n.size)
		}
	case tar.TypeDir:
		n.mode |= modeDir
		n.index = map[string]*entry{}
	case tar.TypeChar, tar.TypeBlock:
		n.mode |= modeChar
		if hdr.Typeflag == tar.TypeBlock {
			n.mode = n.mode&0o7777 | modeBlock
		}
		n.dev = deviceNumber(hdr.Devmajor, hdr.Devminor)
	case tar.TypeFifo:
		n.mode |= modeFifo
	default:
		return nil, errkind.New(api.KindInvalid, "tar entry of unknown type %q", hdr.Typeflag)
	}
	return n, nil
}

// Close writes directories, inodes and bitmaps, and brings the file to disk. On error the file is removed.
func (b *Builder) Close() error {
	if b.f == nil {
		return errors.New("file system builder is closed")
	}
	err := b.finish()
	if err == nil {
		err = b.f.Sync()
	}
	if err != nil {
		b.Abort()
		return fmt.Errorf("finish file system %s: %w", b.path, err)
	}
	err = b.f.Close()
	b.f = nil
	return err
}

func (b *Builder) finish() error {
	nodes := []*node{b.root}
	number := uint32(lostInode)
	b.root.number = rootInode
	dirs := []*node{b.root}
	for i := 0; i < len(dirs); i++ { // directories found on the way are appended
		for _, e := range dirs[i].children {
			n := e.node
			if n.number == 0 {
				number++
				n.number = number
			} else if n.number != lostInode {
				continue // a further hard link
			}
			nodes = append(nodes, n)
			if n.isDir() {
				dirs = append(dirs, n)
			}
		}
	}
	if number > b.space.inodesPerGroup*uint32(b.space.groups()) {
		return errFull
	}
	perGroup := make([]uint32, b.space.groups())
	parent := map[*node]*node{b.root: b.root}
	for _, d := range dirs {
		perGroup[(d.number-1)/b.space.inodesPerGroup]++
		for _, e := range d.children {
			if e.node.isDir() {
				parent[e.node] = d
			}
		}
		if err := b.writeDir(d, parent[d]); err != nil {
			return err
		}
	}
	slices.SortFunc(nodes, func(x, y *node) int { return int(x.number) - int(y.number) })
	if err := b.writeInodes(nodes); err != nil {
		return err
	}
	return b.space.flush(number, perGroup, b.opts.ReadOnly)
}
