package ext4

import (
	"archive/tar"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// BeginLayer begins a layer: from now on [Builder.Whiteout], [Builder.Opaque] and entries that are no directories remove what was
// written before, and nothing that is written later (image-spec, layer.md).
func (b *Builder) BeginLayer() { b.layer++ }

// Whiteout removes name, with all that is below it, as far as earlier layers wrote it. A name that is not there is no error.
func (b *Builder) Whiteout(name string) error {
	way, base := path.Split(path.Clean("/" + name))
	parent, err := b.walk(way, false)
	if err != nil || parent == nil {
		return err
	}
	if e := parent.index[base]; e != nil && b.prune(e) {
		b.unlink(e.node)
		delete(parent.index, base)
		parent.children = slices.DeleteFunc(parent.children, func(c *entry) bool { return c == e })
	}
	return nil
}

// Has reports whether there is anything at name.
func (b *Builder) Has(name string) bool {
	way, base := path.Split(path.Clean("/" + name))
	parent, err := b.walk(way, false)
	return err == nil && parent != nil && parent.index[base] != nil
}

// Opaque removes all that is below the directory dir as far as earlier layers wrote it. One that is not there is no error.
func (b *Builder) Opaque(dir string) error {
	n, err := b.walk(path.Clean("/"+dir), false)
	if err == nil && n != nil {
		b.pruneBelow(n)
	}
	return err
}

// prune removes what is below e as far as earlier layers wrote it, and reports whether e itself is to go.
func (b *Builder) prune(e *entry) bool {
	if e.node.isDir() {
		b.pruneBelow(e.node)
	}
	return e.layer < b.layer && len(e.node.children) == 0 && e.node.number != lostInode
}

func (b *Builder) pruneBelow(dir *node) {
	dir.children = slices.DeleteFunc(dir.children, func(e *entry) bool {
		if !b.prune(e) {
			return false
		}
		b.unlink(e.node)
		delete(dir.index, e.name)
		return true
	})
}

// CopyFrom gives the name of a hard link a copy of the file that it refers to, which is target of another file system.
func (b *Builder) CopyFrom(ctx context.Context, hdr *tar.Header, from *Builder, target string) error {
	err := b.place(hdr.Name, false, func(*node) (*node, error) {
		t, err := from.lookup(target)
		if err != nil {
			return nil, err
		}
		if err := b.count(); err != nil {
			return nil, err
		}
		n := &node{meta: t.meta, link: t.link, dev: t.dev, links: 1, size: t.size}
		if len(t.runs) > 0 {
			err = b.write(ctx, n, from.content(t), t.size)
		}
		return n, err
	})
	if err != nil {
		return fmt.Errorf("add %q: %w", hdr.Name, err)
	}
	return nil
}

// link finds the file that a hard link refers to, and counts a name for it.
func (b *Builder) link(name string) (*node, error) {
	target, err := b.lookup(name)
	if err != nil {
		return nil, err
	}
	if target.links == maxLinks {
		return nil, errkind.New(api.KindInvalid, "more than %d hard links to %q", maxLinks, name)
	}
	target.links++
	return target, nil
}

// lookup finds the file, other than a directory, that has the name.
func (b *Builder) lookup(name string) (*node, error) {
	way, base := path.Split(path.Clean("/" + name))
	parent, err := b.walk(way, false)
	if err != nil {
		return nil, err
	}
	if parent != nil {
		if e := parent.index[base]; e != nil && !e.node.isDir() {
			return e.node, nil
		}
	}
	return nil, errkind.New(api.KindInvalid, "hard link to %q, which is no file before it", name)
}

// maxHops is how many symbolic links a path may lead over, as in Linux (path_resolution(7)).
const maxHops = 40

// walk returns the directory dir. Where there is none it is made, or else the result is nil.
func (b *Builder) walk(dir string, make bool) (*node, error) {
	at := []*node{b.root}
	hops := 0
	for parts := strings.Split(dir, "/"); len(parts) > 0; {
		part := parts[0]
		parts = parts[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = at[:max(1, len(at)-1)]
			continue
		}
		parent := at[len(at)-1]
		e := parent.index[part]
		switch {
		case e != nil && e.node.isDir():
			at = append(at, e.node)
		case e != nil && e.node.link != "" && hops < maxHops:
			hops++
			if e.node.link[0] == '/' {
				at = at[:1]
			}
			parts = append(strings.Split(e.node.link, "/"), parts...)
		case !make:
			return nil, nil
		default:
			child, err := b.newDir(parent, e, part)
			if err != nil {
				return nil, err
			}
			at = append(at, child)
		}
	}
	return at[len(at)-1], nil
}

// newDir makes a directory that a path leads over and no entry has told of. A file of an earlier layer gives way to it.
func (b *Builder) newDir(parent *node, old *entry, name string) (*node, error) {
	if old != nil && old.node.link != "" {
		return nil, errkind.New(api.KindInvalid, "more than %d symbolic links in its path", maxHops)
	}
	if old != nil && old.layer == b.layer {
		return nil, errkind.New(api.KindInvalid, "%q in its path is no directory", name)
	}
	if err := b.count(); err != nil {
		return nil, err
	}
	m := meta{mode: modeDir | 0o755, atime: parent.mtime, ctime: parent.mtime, mtime: parent.mtime}
	child := &node{meta: m, index: map[string]*entry{}, links: 1}
	if old == nil {
		parent.add(name, child, b.layer)
		return child, nil
	}
	b.unlink(old.node)
	old.node, old.layer = child, b.layer
	return child, nil
}

func (n *node) add(name string, child *node, layer int) {
	e := &entry{name, child, layer}
	n.children = append(n.children, e)
	n.index[name] = e
}

// count counts a node, and refuses the one that would get no inode, before it takes memory here.
func (b *Builder) count() error {
	if b.nodes++; b.nodes > int(b.space.inodesPerGroup)*b.space.groups()-lostInode {
		return errFull
	}
	return nil
}

func (b *Builder) unlink(n *node) {
	if n.links--; n.links == 0 {
		b.space.release(n.runs)
		b.nodes--
	}
}
