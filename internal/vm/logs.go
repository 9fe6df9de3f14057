package vm

import (
	"context"
	"io"
	"path/filepath"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/vm/logfile"
	"github.com/banger-vm/banger/internal/vmm"
)

// logFiles are the log sources of a VM and their files in its directory.
var logFiles = map[string]string{"": vmm.ConsoleLog, "console": vmm.ConsoleLog, "vmm": vmm.VMMLog}

func (s *Service) logPath(id banger.VMID, source string) string {
	return filepath.Join(s.cfg.Dirs.VMDir(id), logFiles[source])
}

// CheckLogs reports what is wrong with a request for logs, before any of them is sent.
func (s *Service) CheckLogs(ctx context.Context, p api.VMLogs) error {
	if _, ok := logFiles[p.Source]; !ok {
		return errkind.New(api.KindInvalid, "bad log source %q: want console or vmm", p.Source)
	}
	if p.Source == "vmm" && !p.Since.IsZero() {
		return errkind.WithHint(errkind.New(api.KindInvalid, "the VMM's log has no times"), "it is short: leave the time out, or use a number of lines")
	}
	_, err := s.Get(ctx, p.Ref.Ref)
	return err
}

// Logs writes what p wants of a VM's log to w. With follow it goes on until ctx ends or the VM does not run any more. A log that
// does not exist yet is empty.
func (s *Service) Logs(ctx context.Context, p api.VMLogs, w io.Writer) error {
	vm, err := s.Get(ctx, p.Ref.Ref)
	if err != nil {
		return err
	}
	path := s.logPath(vm.ID, p.Source)
	offset, err := logfile.Copy(w, path, logfile.Range{Tail: p.Tail, Since: p.Since})
	if err != nil || !p.Follow {
		return err
	}
	return logfile.Follow(ctx, w, path, offset, func() bool { return s.Run(vm.ID) != nil })
}

// MarkLogs notes when the consoles of running VMs had which length, until ctx ends.
func (s *Service) MarkLogs(ctx context.Context) {
	tick := time.NewTicker(logfile.MarkEvery)
	defer tick.Stop()
	for marks := (logfile.Marks{}); ; {
		live := map[string]bool{}
		for _, id := range s.running() {
			path := s.logPath(id, "console")
			live[path] = true
			if err := marks.Note(path, time.Now()); err != nil {
				s.log.Debug("mark console", "id", id, "err", err) // it is being stopped, or the disk is full
			}
		}
		marks.Keep(func(path string) bool { return live[path] })
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Service) running() []banger.VMID {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]banger.VMID, 0, len(s.runs))
	for id := range s.runs {
		ids = append(ids, id)
	}
	return ids
}
