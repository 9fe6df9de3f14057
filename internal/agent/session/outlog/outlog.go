// Package outlog keeps the output of a session on the guest's disk: both streams in the order in which they were written, as
// frames of type output (package frame), so that what is on disk is what goes to a reader.
//
// # Files
//
// A log is a directory of segments, SEGMENT.log with the offset of its first byte in the name as 16 hex digits. The last one is
// written to; when it has a quarter of the log's limit a new one begins, and the oldest go while the log is above its limit.
//
// # Loss
//
// An offset counts every byte of output, kept or not. Bytes that could not be written, as on a full disk, are counted and left
// out; the offset of the next record says where. A log that is opened again is cut after its last whole record.
//
// # Readers
//
// The writer knows no readers, and waits for none. A reader follows with a file of its own, from the page cache when it is quick;
// one that was overtaken finds a gap in the offsets. What it holds in memory is one record.
package outlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/banger-vm/banger/api/frame"
)

// segments is how many a full log has.
const segments = 4

const suffix = ".log"

// Log is the output of one session. Its methods may be called concurrently.
type Log struct {
	dir   string
	limit int64

	mu   sync.Mutex    // the streams' order is decided under it: held across the write of a record
	segs []segment     // oldest first; at least one
	file *os.File      // of the last; nil when it could not be opened, or the log is closed
	end  int64         // offset of the next byte
	lost int64         // bytes that could not be written
	more chan struct{} // closed with the next change; nil while nobody waits
	done bool          // nothing is appended any more
	buf  bytes.Buffer
}

// segment is one file.
type segment struct {
	base int64 // offset of its first byte
	size int64 // bytes of whole records in the file
}

// Open opens the log in dir, which is made when it is missing, for appending. It keeps at most limit bytes of files.
func Open(dir string, limit int64) (*Log, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l := &Log{dir: dir, limit: limit}
	if err := l.find(); err != nil {
		return nil, err
	}
	if len(l.segs) == 0 {
		l.segs = []segment{{}}
	}
	return l, l.openLast()
}

// OpenEnded opens the log in dir for reading only: readers meet its end.
func OpenEnded(dir string) (*Log, error) {
	l := &Log{dir: dir, done: true}
	if err := l.find(); err != nil {
		return nil, err
	}
	return l, nil
}

// find reads which segments there are, and how far the last is whole.
func (l *Log) find() error {
	entries, err := os.ReadDir(l.dir) // sorted by name, which is by offset
	if err != nil {
		return err
	}
	for _, e := range entries {
		base, err := strconv.ParseInt(strings.TrimSuffix(e.Name(), suffix), 16, 64)
		info, infoErr := e.Info()
		if err != nil || infoErr != nil || !strings.HasSuffix(e.Name(), suffix) {
			continue
		}
		l.segs = append(l.segs, segment{base: base, size: info.Size()})
	}
	if len(l.segs) == 0 {
		return nil
	}
	last := &l.segs[len(l.segs)-1]
	l.end = last.base
	f, err := os.Open(l.path(last.base))
	if err != nil {
		return err
	}
	defer f.Close()
	last.size = 0
	for fr := frame.NewReader(f); ; {
		rec, n, err := next(fr)
		if err != nil {
			return nil // the end, or a record that was being written when the guest ended
		}
		last.size += n
		l.end = rec.End()
	}
}

func (l *Log) path(base int64) string {
	return filepath.Join(l.dir, fmt.Sprintf("%016x%s", base, suffix))
}

// openLast opens the last segment at the end of its last whole record.
func (l *Log) openLast() error {
	last := l.segs[len(l.segs)-1]
	f, err := os.OpenFile(l.path(last.base), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(last.size), seek(f, last.size)); err != nil {
		f.Close()
		return err
	}
	l.file = f
	return nil
}

func seek(f *os.File, to int64) error {
	_, err := f.Seek(to, io.SeekStart)
	return err
}

// Stream returns a writer of the output of one stream, [frame.Stdout] or [frame.Stderr]. It takes everything: what cannot be
// kept is lost, and does not end who writes.
func (l *Log) Stream(t frame.Type) io.Writer { return stream{l, t} }

type stream struct {
	l *Log
	t frame.Type
}

func (s stream) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), frame.MaxRecord)
		s.l.append(frame.Record{Time: time.Now(), Stream: s.t, Data: rest[:n]})
		rest = rest[n:]
	}
	return len(p), nil
}

func (l *Log) append(rec frame.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return
	}
	rec.Offset = l.end
	l.end = rec.End()
	if err := l.writeLocked(rec); err != nil {
		l.lost += int64(len(rec.Data))
	}
	l.wakeLocked()
}

// writeLocked writes rec whole, or leaves the file as it was.
func (l *Log) writeLocked(rec frame.Record) error {
	if l.segs[len(l.segs)-1].size >= l.limit/segments {
		l.rotateLocked(rec.Offset)
	}
	if l.file == nil {
		if err := l.openLast(); err != nil {
			return err
		}
	}
	l.buf.Reset()
	_ = frame.NewWriter(&l.buf).Write(frame.Output, rec.Append(nil)) // into memory
	last := &l.segs[len(l.segs)-1]
	if _, err := l.file.Write(l.buf.Bytes()); err != nil {
		return errors.Join(err, l.file.Truncate(last.size), seek(l.file, last.size))
	}
	last.size += int64(l.buf.Len())
	return nil
}

// rotateLocked begins a segment, and removes the oldest that the limit has no room for.
func (l *Log) rotateLocked(base int64) {
	l.file.Close()
	l.file = nil
	l.segs = append(l.segs, segment{base: base})
	for len(l.segs) > segments {
		_ = os.Remove(l.path(l.segs[0].base)) // one that stays is found, and removed, with the session
		l.segs = l.segs[1:]
	}
}

func (l *Log) wakeLocked() {
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
}

// Close ends the log: readers meet its end when they have read the rest.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return
	}
	l.done = true
	if l.file != nil {
		l.file.Close()
	}
	l.wakeLocked()
}

// Extent returns the offset of the first byte that is kept, the number of bytes of output so far, and how many of them could not
// be written.
func (l *Log) Extent() (first, end, lost int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.segs) > 0 {
		first = l.segs[0].base
	}
	return first, l.end, l.lost
}
