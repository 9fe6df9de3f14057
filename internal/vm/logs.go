package vm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// logFiles are the log sources of a VM and their files in its directory.
var logFiles = map[string]string{"": "console.log", "console": "console.log", "vmm": "vmm.log"}

// followEvery is how often a followed log is looked at: the writer is a VMM that tells nobody.
const followEvery = 200 * time.Millisecond

// CheckLogs reports what is wrong with a request for logs, before any of them is sent.
func (s *Service) CheckLogs(ctx context.Context, p api.VMLogs) error {
	if _, ok := logFiles[p.Source]; !ok {
		return errkind.New(api.KindInvalid, "bad log source %q: want console or vmm", p.Source)
	}
	_, err := s.Get(ctx, p.Ref.Ref)
	return err
}

// Logs writes a VM's log to w: the last tail lines, or all when tail is 0. With follow it goes on until ctx ends or the VM
// does not run any more. A log that does not exist yet is empty.
func (s *Service) Logs(ctx context.Context, p api.VMLogs, w io.Writer) error {
	vm, err := s.Get(ctx, p.Ref.Ref)
	if err != nil {
		return err
	}
	name := logFiles[p.Source]
	path := filepath.Join(s.cfg.Dirs.VMDir(vm.ID), name)
	offset, err := copyTail(w, path, p.Tail)
	if err != nil || !p.Follow {
		return err
	}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		live := s.Run(vm.ID) != nil
		if offset, err = copyFrom(w, path, offset); err != nil || !live {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// copyTail writes the last n lines of the file at path, or all when n is 0, and returns where it stopped.
func copyTail(w io.Writer, path string, n int) (int64, error) {
	var from int64
	if n > 0 {
		var err error
		if from, err = tailOffset(path, n); err != nil {
			return 0, err
		}
	}
	return copyFrom(w, path, from)
}

// copyFrom writes the file from offset on. A file that became shorter was rotated and is read from its beginning.
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
