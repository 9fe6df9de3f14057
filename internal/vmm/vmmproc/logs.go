package vmmproc

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/vmm"
)

const (
	maxLog    = 8 << 20 // bytes at which a log is put aside
	keepEvery = 5 * time.Second
)

// keeper keeps the logs of all live machines bounded: a VMM writes to them for as long as the guest prints. A full log is copied
// over the one put aside before and emptied; a VMM that appends to it goes on at its beginning, and what it writes between copy
// and emptying is lost. A VMM cannot change to a new file, and a pipe through the daemon would end with it.
//
// One goroutine looks at the sizes of all logs every few seconds, while there are any. Without a daemon nothing is bounded.
type keeper struct {
	mu      sync.Mutex // machines come and go
	logs    map[string]bool
	running bool
}

func newKeeper() *keeper { return &keeper{logs: map[string]bool{}} }

func (k *keeper) keep(paths ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, path := range paths {
		k.logs[path] = true
	}
	if !k.running {
		k.running = true
		go k.run()
	}
}

func (k *keeper) drop(paths ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, path := range paths {
		delete(k.logs, path)
	}
}

func (k *keeper) run() {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for range tick.C {
		if !k.look() {
			return
		}
	}
}

// look puts full logs aside. false: there are none to look at any more, and the caller is to end.
func (k *keeper) look() bool {
	k.mu.Lock()
	var paths []string
	for path := range k.logs {
		paths = append(paths, path)
	}
	k.running = len(paths) > 0
	k.mu.Unlock()
	for _, path := range paths {
		// A VMM that does not append leaves a hole where the log was emptied, so what counts is what is on disk.
		if n, err := host.Allocated(path); err == nil && n > maxLog {
			putAside(path) //nolint:errcheck // the next look tries again
		}
	}
	return len(paths) > 0
}

// putAside copies the end of the log at path, of at most maxLog bytes, to the one put aside, and empties it.
func putAside(path string) error {
	src, err := os.Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(path+vmm.RotatedSuffix, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, tail(src, maxLog))
	return errors.Join(err, dst.Close(), os.Truncate(path, 0))
}

// tail returns the last n bytes of f.
func tail(f *os.File, n int64) io.Reader {
	if st, err := f.Stat(); err == nil && st.Size() > n {
		f.Seek(-n, io.SeekEnd) //nolint:errcheck // the beginning is as good as nothing
	}
	return io.LimitReader(f, n)
}

// Tail returns the last n bytes of the text at path, trimmed; nothing when it cannot be read.
func Tail(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(tail(f, n))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
