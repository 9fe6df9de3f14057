package ext4

import "encoding/binary"

// dirTypes maps an inode's type to that in a directory entry (kernel documentation, ext4/directory.rst).
var dirTypes = map[uint16]byte{
	modeRegular: 1, modeDir: 2, modeChar: 3, modeBlock: 4, modeFifo: 5, modeSymlink: 7,
}

// dirWriter fills blocks with linear directory entries. An entry does not cross blocks, and the last of a block reaches
// to its end.
type dirWriter struct {
	out  []byte
	last int // where the last entry begins
}

func (w *dirWriter) add(name string, n *node) {
	size := padded(8 + len(name))
	if room := blockSize - len(w.out)%blockSize; len(w.out)%blockSize != 0 && size > room {
		w.pad()
	}
	le := binary.LittleEndian
	w.last = len(w.out)
	w.out = le.AppendUint32(w.out, n.number)
	w.out = le.AppendUint16(w.out, uint16(size))
	w.out = append(w.out, byte(len(name)), dirTypes[n.mode&modeType])
	w.out = append(w.out, name...)
	w.out = append(w.out, make([]byte, size-8-len(name))...)
}

// pad stretches the last entry to the end of its block.
func (w *dirWriter) pad() {
	room := (blockSize - len(w.out)%blockSize) % blockSize
	w.out = append(w.out, make([]byte, room)...)
	binary.LittleEndian.PutUint16(w.out[w.last+4:], uint16(len(w.out)-w.last))
}

// writeDir writes d's entries. Blocks that d has already come first, and stay its own even when they are not needed.
func (b *Builder) writeDir(d, parent *node) error {
	var w dirWriter
	w.add(".", d)
	w.add("..", parent)
	for _, e := range d.children {
		w.add(e.name, e.node)
	}
	w.pad()
	have := uint32(0)
	for _, r := range d.runs {
		have += r.n
	}
	for uint32(len(w.out)/blockSize) < have { // empty blocks: one unused entry each
		w.last = len(w.out)
		w.out = append(w.out, make([]byte, 8)...)
		w.pad()
	}
	if need := uint32(len(w.out) / blockSize); need > have {
		more, err := b.space.allocate(need - have)
		if err != nil {
			return err
		}
		d.runs = append(d.runs, more...)
	}
	d.size = int64(len(w.out))
	out := w.out
	for _, r := range d.runs {
		n := int(r.n) * blockSize
		if err := writeAt(b.f, out[:n], r.start); err != nil {
			return err
		}
		out = out[n:]
	}
	return nil
}
