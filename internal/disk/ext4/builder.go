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
	buf   []byte
}

// node is a file of any type. An inode number is given to it at the end, so that nothing is left of a file that a later
// entry of the stream replaces.
type node struct {
	meta
	size     int64  // bytes; of a directory and a long symbolic link too
	runs     []run  // contents
	link     string // target of a symbolic link
	dev      uint32
	children []*entry // in order of arrival; nil: not a directory
	index    map[string]*entry
	links    int // names that refer to it, other than those of directories
	number   uint32
}

type entry struct {
	name string
	node *node
}

func (n *node) isDir() bool { return n.index != nil }

// lostName is where fsck puts what it finds, in the root.
const lostName = "lost+found"

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
	b.root.add(lostName, lost)
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
// it begins with, and cannot leave it. Directories on the way that are missing are made, owned by root. An entry whose name is
// taken replaces the older one, but a directory is only given new attributes. On error the Builder is good for Abort only.
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
	name := path.Clean("/" + hdr.Name)
	m, err := metaOf(hdr)
	if err != nil {
		return err
	}
	if name == "/" {
		if hdr.Typeflag != tar.TypeDir {
			return errkind.New(api.KindInvalid, "the root must be a directory")
		}
		b.root.meta = m
		return nil
	}
	dir, base := path.Split(name)
	if len(base) > 255 {
		return errkind.New(api.KindInvalid, "name is longer than 255 bytes")
	}
	parent, err := b.parents(dir)
	if err != nil {
		return err
	}
	old := parent.index[base]
	if hdr.Typeflag == tar.TypeDir && old != nil && old.node.isDir() {
		old.node.meta = m
		return nil
	}
	if old != nil && old.node.isDir() {
		return errkind.New(api.KindInvalid, "a directory stands in the way")
	}
	n, err := b.newNode(ctx, hdr, m, content)
	if err != nil {
		return err
	}
	if old != nil {
		b.unlink(old.node)
		old.node = n
		return nil
	}
	parent.add(base, n)
	return nil
}

// newNode makes the node of an entry, or finds the one that a hard link refers to, and counts a name for it.
func (b *Builder) newNode(ctx context.Context, hdr *tar.Header, m meta, content io.Reader) (*node, error) {
	n := &node{meta: m, links: 1}
	switch hdr.Typeflag {
	case tar.TypeLink:
		target := b.lookup(hdr.Linkname)
		if target == nil || target.isDir() {
			return nil, errkind.New(api.KindInvalid, "hard link to %q, which is no file before it", hdr.Linkname)
		}
		if target.links == maxLinks {
			return nil, errkind.New(api.KindInvalid, "more than %d hard links to %q", maxLinks, hdr.Linkname)
		}
		target.links++
		return target, nil
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

// write stores size bytes of r as n's contents.
func (b *Builder) write(ctx context.Context, n *node, r io.Reader, size int64) error {
	n.size = size
	if size > int64(b.space.free)*blockSize {
		return errFull
	}
	var err error
	if n.runs, err = b.space.allocate(blocksFor(size)); err != nil {
		return err
	}
	for _, run := range n.runs {
		if err := ctx.Err(); err != nil {
			return err
		}
		length := min(size, int64(run.n)*blockSize)
		w := io.NewOffsetWriter(b.f, int64(run.start)*blockSize)
		if _, err := io.CopyBuffer(onlyWriter{w}, io.LimitReader(r, length), b.buf); err != nil {
			return err
		}
		if done, _ := w.Seek(0, io.SeekCurrent); done != length {
			return fmt.Errorf("content ends early: %w", io.ErrUnexpectedEOF)
		}
		size -= length
	}
	return nil
}

// onlyWriter hides other methods, so that the copy uses our buffer.
type onlyWriter struct{ io.Writer }

func blocksFor(size int64) uint32 { return uint32((size + blockSize - 1) / blockSize) }

// Remove removes what there is at name, with everything below it; nothing is there is fine too. lost+found stays. Files that have
// another name keep it.
func (b *Builder) Remove(name string) {
	name = path.Clean("/" + name)
	dir, base := path.Split(name)
	parent := b.lookup(dir)
	if parent == nil || !parent.isDir() || base == "" || parent == b.root && base == lostName {
		return
	}
	if e := parent.index[base]; e != nil {
		b.drop(e.node)
		delete(parent.index, base)
		parent.children = slices.DeleteFunc(parent.children, func(c *entry) bool { return c == e })
	}
}

// Clear removes everything below the directory name but what keep wants; it gets paths from the root, and must want the directories on
// the way.
func (b *Builder) Clear(name string, keep func(path string) bool) {
	dir := b.lookup(name)
	if dir == nil || !dir.isDir() {
		return
	}
	for _, e := range slices.Clone(dir.children) {
		at := path.Join("/", name, e.name)
		if keep(at) {
			b.Clear(at, keep)
		} else {
			b.Remove(at)
		}
	}
}

// IsDir reports whether there is a directory at name, and whether there is anything.
func (b *Builder) IsDir(name string) (dir, exists bool) {
	n := b.lookup(name)
	return n != nil && n.isDir(), n != nil
}

// drop takes a name from a file, or from everything below a directory.
func (b *Builder) drop(n *node) {
	for _, e := range n.children {
		b.drop(e.node)
	}
	if !n.isDir() {
		b.unlink(n)
	}
}

func (b *Builder) unlink(n *node) {
	if n.links--; n.links == 0 {
		b.space.release(n.runs)
	}
}

func (n *node) add(name string, child *node) {
	e := &entry{name, child}
	n.children = append(n.children, e)
	n.index[name] = e
}

func (b *Builder) lookup(name string) *node {
	n := b.root
	for part := range strings.SplitSeq(strings.Trim(path.Clean("/"+name), "/"), "/") {
		if part == "" {
			continue // the root
		}
		if e := n.index[part]; e != nil {
			n = e.node
			continue
		}
		return nil
	}
	return n
}

// maxFollowed is how many symbolic links a path may lead through, as of path_resolution(7).
const maxFollowed = 40

// parents returns the directory dir, which it makes where it is missing. Symbolic links on the way are followed, and lead nowhere but
// below the root.
func (b *Builder) parents(dir string) (*node, error) {
	for range maxFollowed {
		n, link, err := b.walk(dir)
		if err != nil || link == "" {
			return n, err
		}
		dir = link
	}
	return nil, errkind.New(api.KindInvalid, "more than %d symbolic links in its path", maxFollowed)
}

// walk goes to the directory dir. At a symbolic link it stops, and returns the path that goes on from there.
func (b *Builder) walk(dir string) (n *node, link string, err error) {
	n = b.root
	parts := strings.Split(strings.Trim(path.Clean("/"+dir), "/"), "/")
	for i, part := range parts {
		if part == "" {
			continue
		}
		e := n.index[part]
		switch {
		case e == nil:
			child := &node{meta: meta{mode: modeDir | 0o755, mtime: n.mtime}, index: map[string]*entry{}, links: 1}
			n.add(part, child)
			n = child
		case e.node.isDir():
			n = e.node
		case e.node.link != "":
			to := e.node.link
			if !path.IsAbs(to) {
				to = path.Join("/", path.Join(parts[:i]...), to)
			}
			return nil, path.Join("/", to, path.Join(parts[i+1:]...)), nil
		default:
			return nil, "", errkind.New(api.KindInvalid, "%q in its path is no directory", part)
		}
	}
	return n, "", nil
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
