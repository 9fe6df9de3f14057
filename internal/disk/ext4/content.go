package ext4

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// write stores size bytes of r as n's contents. Blocks of zeros become holes.
func (b *Builder) write(ctx context.Context, n *node, r io.Reader, size int64) error {
	n.size = size
	if size > int64(b.space.blocks)*blockSize {
		return errFull // a hole of any size would take any time
	}
	for size > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		buf := b.buf[:min(size, int64(len(b.buf)))]
		if _, err := io.ReadFull(r, buf); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("content ends early: %w", err)
		}
		size -= int64(len(buf))
		if err := b.append(n, buf); err != nil {
			return err
		}
	}
	return nil
}

// append stores buf at the end of n's contents; only the last call may be with less than whole blocks.
func (b *Builder) append(n *node, buf []byte) error {
	for len(buf) > 0 {
		length, zero := stretch(buf)
		blocks := blocksFor(int64(length))
		runs := []run{{n: blocks}}
		if !zero {
			var err error
			if runs, err = b.space.allocate(blocks); err != nil {
				return err
			}
		}
		for _, r := range runs {
			part := buf[:min(len(buf), int(r.n)*blockSize)]
			if r.start != 0 {
				if err := writeAt(b.f, part, r.start); err != nil {
					return err
				}
			}
			n.extend(r)
			buf = buf[len(part):]
		}
	}
	return nil
}

// extend adds r to the contents, to their last run if it goes on there.
func (n *node) extend(r run) {
	if len(n.runs) > 0 {
		last := &n.runs[len(n.runs)-1]
		if (r.start == 0) == (last.start == 0) && (r.start == 0 || last.start+last.n == r.start && last.n+r.n <= maxRun) {
			last.n += r.n
			return
		}
	}
	n.runs = append(n.runs, r)
}

// minHole is the least that becomes a hole, so that files are not cut to pieces for little.
const minHole = 16 * blockSize

var zeros [minHole]byte

// stretch returns how much of buf, from its beginning on, is zero, or else how much is not, in units of minHole or to the end.
func stretch(buf []byte) (length int, zero bool) {
	for length < len(buf) {
		part := buf[length:min(len(buf), length+minHole)]
		z := len(part) == minHole && bytes.Equal(part, zeros[:])
		if length > 0 && z != zero {
			break
		}
		zero = z
		length += len(part)
	}
	return length, zero
}

func blocksFor(size int64) uint32 { return uint32((size + blockSize - 1) / blockSize) }

// content reads what n holds.
func (b *Builder) content(n *node) io.Reader {
	var parts []io.Reader
	for _, r := range n.runs {
		size := int64(r.n) * blockSize
		if r.start == 0 {
			parts = append(parts, io.LimitReader(zeroReader{}, size))
			continue
		}
		parts = append(parts, io.NewSectionReader(b.f, int64(r.start)*blockSize, size))
	}
	return io.LimitReader(io.MultiReader(parts...), n.size)
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }
