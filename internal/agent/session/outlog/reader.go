package outlog

import (
	"context"
	"io"
	"os"

	"github.com/banger-vm/banger/api/frame"
)

// Reader reads a log from some offset on. It is for one goroutine, which calls Close at its end.
type Reader struct {
	log  *Log
	from int64 // records before are left out
	base int64 // of the segment that is read; -1 before the first
	file *os.File
	fr   *frame.Reader
	pos  int64 // in the file
}

// Reader returns a reader that begins with the byte at offset from, or with the first after it that is kept.
func (l *Log) Reader(from int64) *Reader { return &Reader{log: l, from: from, base: -1} }

// Close closes the reader's file.
func (r *Reader) Close() {
	if r.file != nil {
		r.file.Close()
	}
}

// Next returns the next record, which is valid until the following call. At the end it waits for more when follow is set, and is
// io.EOF otherwise, and in any case when the log has ended. Its other errors are ctx's and those of reading files.
func (r *Reader) Next(ctx context.Context, follow bool) (frame.Record, error) {
	for {
		p := r.log.place(r.base, r.from)
		if r.file != nil && p.size < 0 { // the segment was dropped while it was read: it is complete
			info, err := r.file.Stat()
			if err != nil {
				return frame.Record{}, err
			}
			p.size = info.Size()
		}
		switch {
		case r.file != nil && r.pos < p.size:
			rec, n, err := next(r.fr)
			if err != nil {
				return rec, err
			}
			r.pos += n
			if rec = rec.After(r.from); len(rec.Data) > 0 {
				r.from = rec.End()
				return rec, nil
			}
		case r.file == nil && p.size > 0: // there was no file when it was looked for: the disk was full
			if err := r.open(r.base); err != nil && !os.IsNotExist(err) {
				return frame.Record{}, err
			}
		case p.hasNext:
			if err := r.open(p.next); err != nil && !os.IsNotExist(err) { // it may just have been dropped
				return frame.Record{}, err
			}
		case p.more == nil || !follow:
			return frame.Record{}, io.EOF
		default:
			select {
			case <-p.more:
			case <-ctx.Done():
				return frame.Record{}, ctx.Err()
			}
		}
	}
}

func (r *Reader) open(base int64) error {
	r.Close()
	r.file, r.pos, r.base = nil, 0, base
	f, err := os.Open(r.log.path(base))
	if err != nil {
		return err
	}
	r.file, r.fr = f, frame.NewReader(f)
	return nil
}

// place is where a reader of a segment may go on.
type place struct {
	size    int64 // bytes of whole records in its segment; -1 when that was dropped
	next    int64 // base of the segment to read after it
	hasNext bool
	more    <-chan struct{} // closed when something is added; nil when nothing is any more
}

// place looks for a reader that is in the segment base, or in none yet (-1), and wants what is at or after from.
func (l *Log) place(base, from int64) place {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := place{size: -1}
	for i, s := range l.segs {
		switch {
		case s.base == base:
			p.size = s.size
		case s.base > base && !p.hasNext:
			p.next, p.hasNext = s.base, true
			for _, later := range l.segs[i+1:] { // a reader's first segment is the last that begins at or before from
				if base < 0 && later.base <= from {
					p.next = later.base
				}
			}
		}
	}
	if !l.done {
		if l.more == nil {
			l.more = make(chan struct{})
		}
		p.more = l.more
	}
	return p
}

// next reads one record and returns the length of its frame as well.
func next(fr *frame.Reader) (frame.Record, int64, error) {
	_, payload, err := fr.Next()
	if err != nil {
		return frame.Record{}, 0, err
	}
	rec, err := frame.ParseRecord(payload)
	return rec, frame.HeaderLen + int64(len(payload)), err
}
