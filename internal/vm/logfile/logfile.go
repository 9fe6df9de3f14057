// Package logfile reads the logs of VMs: files that a VMM appends to, and that are put aside and begun anew when they are full.
//
// A console's lines carry no times. So while a daemon runs, [Marks] notes beside each log, in a file of its own, when it had which
// length; that is how a reader finds what came since some moment, to within [MarkEvery].
package logfile

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"time"
)

// followEvery is how often a followed log is looked at: the writer is a VMM that tells nobody.
const followEvery = 200 * time.Millisecond

// Range is what of a log is wanted; the zero value is all of it.
type Range struct {
	Tail  int       // lines from the end; 0 is all
	Since time.Time // what came after that, to within MarkEvery; zero is all
}

// Copy writes what r wants of the log at path to w. It returns where it stopped, for [Follow]. A log that does not exist is empty.
func Copy(w io.Writer, path string, r Range) (int64, error) {
	var from int64
	if r.Tail > 0 {
		var err error
		if from, err = tailOffset(path, r.Tail); err != nil {
			return 0, err
		}
	}
	if !r.Since.IsZero() {
		since, err := offsetAt(path, r.Since)
		if err != nil {
			return 0, err
		}
		from = max(from, since)
	}
	return copyFrom(w, path, from)
}

// Follow writes what is added to the log at path after offset, until ctx ends or live says that nobody writes it any more.
func Follow(ctx context.Context, w io.Writer, path string, offset int64, live func() bool) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		last := !live() // before the look, which then sees everything
		var err error
		if offset, err = copyFrom(w, path, offset); err != nil || last {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// copyFrom writes the file from offset on. A file that became shorter was begun anew and is read from its beginning.
func copyFrom(w io.Writer, path string, offset int64) (int64, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return offset, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return offset, err
	}
	if st.Size() < offset {
		offset = 0
	}
	n, err := io.Copy(w, io.NewSectionReader(f, offset, st.Size()-offset))
	return offset + n, err
}

// tailOffset finds where the last n lines of the file at path begin, reading backwards in blocks.
func tailOffset(path string, n int) (int64, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 32<<10)
	for end := st.Size(); end > 0; {
		begin := max(0, end-int64(len(buf)))
		block := buf[:end-begin]
		if _, err := f.ReadAt(block, begin); err != nil {
			return 0, err
		}
		for i := bytes.LastIndexByte(block, '\n'); i >= 0; i = bytes.LastIndexByte(block[:i], '\n') {
			last := begin+int64(i) == st.Size()-1 // the newline that ends the file begins no line
			if last {
				continue
			}
			if n--; n == 0 {
				return begin + int64(i) + 1, nil
			}
		}
		end = begin
	}
	return 0, nil
}
