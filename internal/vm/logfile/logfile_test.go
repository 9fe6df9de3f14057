package logfile

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// log is a log file of the test's own.
type log struct {
	t    *testing.T
	path string
}

func newLog(t *testing.T) log { return log{t, filepath.Join(t.TempDir(), "console.log")} }

func (l log) write(flag int, text string) {
	l.t.Helper()
	f, err := os.OpenFile(l.path, flag|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
		f.Close()
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l log) append(text string)  { l.t.Helper(); l.write(os.O_APPEND, text) }
func (l log) restart(text string) { l.t.Helper(); l.write(os.O_TRUNC, text) }

func (l log) copy(r Range) string {
	l.t.Helper()
	var b bytes.Buffer
	if _, err := Copy(&b, l.path, r); err != nil {
		l.t.Fatal(err)
	}
	return b.String()
}

func TestCopy(t *testing.T) {
	l := newLog(t)
	if got := l.copy(Range{Tail: 3}); got != "" {
		t.Errorf("a log that is not there has %q", got)
	}
	l.append("one\ntwo\n" + strings.Repeat("x", 40<<10) + "\nthree\nfour")
	for tail, want := range map[int]string{1: "four", 2: "three\nfour", 9: l.copy(Range{})} {
		if got := l.copy(Range{Tail: tail}); got != want {
			t.Errorf("the last %d lines are %.40q, want %.40q", tail, got, want)
		}
	}
}

func TestSince(t *testing.T) {
	begun := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(s int) time.Time { return begun.Add(time.Duration(s) * time.Second) }
	l := newLog(t)
	var m Marks
	note := func(s int) {
		t.Helper()
		if err := m.Note(l.path, at(s)); err != nil {
			t.Fatal(err)
		}
	}
	note(0)
	l.append("a\n")
	note(5)
	l.append("b\n")
	note(10)
	note(15)
	l.append("c\n")
	m = Marks{} // another daemon
	note(20)
	for s, want := range map[int]string{-1: "a\nb\nc\n", 4: "a\nb\nc\n", 5: "b\nc\n", 9: "b\nc\n", 19: "c\n", 99: ""} {
		if got := l.copy(Range{Since: at(s)}); got != want {
			t.Errorf("since second %d: %q, want %q", s, got, want)
		}
	}
	if got := l.copy(Range{Since: at(5), Tail: 1}); got != "c\n" {
		t.Errorf("both bounds: %q", got)
	}
	t.Run("a log that is begun anew has new marks", func(t *testing.T) {
		l.restart("d\n")
		note(25)
		l.append("e\n")
		note(30)
		if got := l.copy(Range{Since: at(20)}); got != "d\ne\n" {
			t.Errorf("got %q", got)
		}
		if got := l.copy(Range{Since: at(27)}); got != "e\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("the file of marks is bounded, and the latest stay", func(t *testing.T) {
		for s := range 6000 {
			l.append("x")
			note(100 + s)
		}
		if st, err := os.Stat(MarksFile(l.path)); err != nil || st.Size() > maxMarks+64 {
			t.Errorf("%v %v", st, err)
		}
		if got := l.copy(Range{Since: at(100 + 5990)}); len(got) != 9 {
			t.Errorf("got %d bytes", len(got))
		}
	})
}

// sink is a buffer for two goroutines.
type sink struct {
	mu sync.Mutex // the follower writes while the test reads
	b  bytes.Buffer
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		l.append("one\n")
		var dead atomic.Bool
		out := &sink{}
		done := make(chan error)
		go func() {
			done <- Follow(t.Context(), out, l.path, 4, func() bool { return !dead.Load() })
		}()
		step := func(change func()) string {
			t.Helper()
			change()
			time.Sleep(2 * followEvery) // the bubble's clock
			synctest.Wait()
			return out.String()
		}
		if got := step(func() { l.append("two\n") }); got != "two\n" {
			t.Errorf("got %q", got)
		}
		if got := step(func() { l.restart("3\n") }); got != "two\n3\n" {
			t.Errorf("begun anew: %q", got)
		}
		if got := step(func() { l.append("last\n"); dead.Store(true) }); got != "two\n3\nlast\n" {
			t.Errorf("got %q", got)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("it ends with its context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := Follow(ctx, &bytes.Buffer{}, filepath.Join(t.TempDir(), "none"), 0, func() bool { return true }); err != nil {
			t.Error(err)
		}
	})
}
