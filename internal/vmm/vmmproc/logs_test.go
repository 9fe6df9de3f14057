package vmmproc

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/banger-vm/banger/internal/vmm"
)

func size(t *testing.T, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

// fill writes as many bytes as make a log full.
func fill(t *testing.T, f *os.File) {
	t.Helper()
	if _, err := f.Write(make([]byte, maxLog+1)); err != nil {
		t.Fatal(err)
	}
}

func TestLogsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		full, small := filepath.Join(dir, "full"), filepath.Join(dir, "small")
		guest, err := os.OpenFile(full, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer guest.Close()
		fill(t, guest)
		if _, err := guest.WriteString("the last line"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(small, []byte("little"), 0o600); err != nil {
			t.Fatal(err)
		}
		k := newKeeper()
		look := func() {
			<-time.After(keepEvery)
			synctest.Wait()
		}
		k.keep(full, small)
		look()
		if _, err := guest.WriteString("goes on"); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(full); err != nil || string(b) != "goes on" {
			t.Errorf("the log has %d bytes, %v", len(b), err)
		}
		if got := size(t, small); got != 6 {
			t.Errorf("the small log has %d bytes", got)
		}
		b, err := os.ReadFile(full + vmm.RotatedSuffix)
		if err != nil || len(b) != maxLog || !strings.HasSuffix(string(b), "the last line") {
			t.Errorf("put aside: %d bytes, %v", len(b), err)
		}

		k.drop(full, small)
		look()
		fill(t, guest)
		fill(t, guest)
		k.keep(full)
		look()
		if got := size(t, full); got != 0 {
			t.Errorf("a log that is kept anew has %d bytes", got)
		}
		k.drop(full)
		look() // the goroutine ends; the test would fail if it were left
	})
}

func TestALogThatIsNotAppendedToIsPutAsideOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "log")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fill(t, f)
		k := newKeeper()
		k.keep(path)
		<-time.After(keepEvery)
		synctest.Wait()
		if _, err := f.WriteString("goes on behind a hole"); err != nil {
			t.Fatal(err)
		}
		before := size(t, path)
		<-time.After(keepEvery)
		synctest.Wait()
		if got := size(t, path); got != before || got <= maxLog {
			t.Errorf("the log has %d bytes, had %d", got, before)
		}
		k.drop(path)
		<-time.After(keepEvery)
	})
}
