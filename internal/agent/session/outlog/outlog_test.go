package outlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/banger-vm/banger/api/frame"
)

func open(t *testing.T, dir string, limit int64) *Log {
	t.Helper()
	l, err := Open(dir, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func write(l *Log, stream frame.Type, text string) { io.WriteString(l.Stream(stream), text) }

// read returns what a reader finds from an offset to the end, a line "OFFSET STREAM DATA" each.
func read(t *testing.T, l *Log, from int64) string {
	t.Helper()
	r := l.Reader(from)
	defer r.Close()
	var b bytes.Buffer
	for {
		rec, err := r.Next(t.Context(), false)
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%d %s %s\n", rec.Offset, rec.Stream, rec.Data)
	}
}

func TestLog(t *testing.T) {
	t.Run("both streams are in the order of writing, from any offset on", func(t *testing.T) {
		l := open(t, t.TempDir(), 1<<20)
		write(l, frame.Stdout, "one")
		write(l, frame.Stderr, "two")
		write(l, frame.Stdout, "three")
		if got, want := read(t, l, 0), "0 stdout one\n3 stderr two\n6 stdout three\n"; got != want {
			t.Errorf("from 0: %q", got)
		}
		if got, want := read(t, l, 4), "4 stderr wo\n6 stdout three\n"; got != want {
			t.Errorf("from 4: %q", got)
		}
		if got := read(t, l, 11); got != "" {
			t.Errorf("from the end: %q", got)
		}
	})
	t.Run("the oldest segments go, and offsets go on", func(t *testing.T) {
		dir := t.TempDir()
		l := open(t, dir, 4000)
		for i := range 1000 {
			write(l, frame.Stdout, fmt.Sprintf("%09d\n", i))
		}
		first, end, lost := l.Extent()
		if first == 0 || end != 10000 || lost != 0 {
			t.Errorf("extent %d to %d, lost %d", first, end, lost)
		}
		if files, _ := filepath.Glob(dir + "/*.log"); len(files) != segments {
			t.Errorf("%d files", len(files))
		}
		if got, want := read(t, l, 0), fmt.Sprintf("%d stdout %09d\n", first, first/10); got[:len(want)] != want {
			t.Errorf("begins with %.40q, not %q", got, want)
		}
	})
	t.Run("a log that was cut inside a record goes on after the last whole one", func(t *testing.T) {
		dir := t.TempDir()
		l := open(t, dir, 1<<20)
		write(l, frame.Stdout, "whole")
		write(l, frame.Stdout, "cut off")
		l.Close()
		path := filepath.Join(dir, "0000000000000000.log")
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, info.Size()-3); err != nil {
			t.Fatal(err)
		}
		ended, err := OpenEnded(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, ended, 0); got != "0 stdout whole\n" {
			t.Errorf("read %q", got)
		}
		l = open(t, dir, 1<<20)
		write(l, frame.Stdout, "more")
		if got := read(t, l, 0); got != "0 stdout whole\n5 stdout more\n" {
			t.Errorf("after it was opened again: %q", got)
		}
	})
	t.Run("what cannot be written is counted, and leaves a gap", func(t *testing.T) {
		l := open(t, t.TempDir(), 1<<20)
		write(l, frame.Stdout, "before")
		good := l.file
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0) // each write is ENOSPC
		if err != nil {
			t.Fatal(err)
		}
		l.file = full
		write(l, frame.Stdout, "lost")
		l.file = good
		full.Close()
		write(l, frame.Stdout, "after")
		if got := read(t, l, 0); got != "0 stdout before\n10 stdout after\n" {
			t.Errorf("read %q", got)
		}
		if _, end, lost := l.Extent(); end != 15 || lost != 4 {
			t.Errorf("end %d, lost %d", end, lost)
		}
	})
}

func TestReader(t *testing.T) {
	t.Run("follows through segments, to the end of the log", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := open(t, t.TempDir(), 1<<20)
			const total = 900 << 10 // less than the limit: nobody is overtaken
			got := make(chan int)
			go func() {
				r, n := l.Reader(0), 0
				defer r.Close()
				for {
					rec, err := r.Next(t.Context(), true)
					if err != nil {
						got <- n
						return
					}
					n += len(rec.Data)
				}
			}()
			for range 900 {
				l.Stream(frame.Stdout).Write(make([]byte, 1<<10))
			}
			l.Close()
			if n := <-got; n != total {
				t.Errorf("%d bytes of %d", n, total)
			}
		})
	})
	t.Run("one that was overtaken goes on with what is kept", func(t *testing.T) {
		l := open(t, t.TempDir(), 4000)
		write(l, frame.Stdout, "first")
		r := l.Reader(0)
		defer r.Close()
		if _, err := r.Next(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		for range 1000 {
			write(l, frame.Stdout, "0123456789")
		}
		last, gap := int64(5), false
		for {
			rec, err := r.Next(t.Context(), false)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			gap, last = gap || rec.Offset > last, rec.End()
		}
		if !gap || last != 10005 {
			t.Errorf("ends at %d, with a gap: %v", last, gap)
		}
	})
	t.Run("gives up waiting with its context", func(t *testing.T) {
		l := open(t, t.TempDir(), 1<<20)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		r := l.Reader(0)
		defer r.Close()
		if _, err := r.Next(ctx, true); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
