package qemu

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

func TestLogsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		full, small := filepath.Join(dir, "full"), filepath.Join(dir, "small")
		guest, err := os.OpenFile(full, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer guest.Close()
		if err := guest.Truncate(maxLog); err != nil {
			t.Fatal(err)
		}
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
		if err := guest.Truncate(2 * maxLog); err != nil {
			t.Fatal(err)
		}
		k.keep(full)
		look()
		if got := size(t, full); got != 0 {
			t.Errorf("a log that is kept anew has %d bytes", got)
		}
		k.drop(full)
		look() // the goroutine ends; the test would fail if it were left
	})
}
