package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/proc"
	"github.com/banger-vm/banger/internal/agent/run"
	"github.com/banger-vm/banger/internal/agent/session/outlog"
	"github.com/banger-vm/banger/internal/errkind"
)

// record is session.json.
type record struct {
	Spec    guestapi.SessionSpec `json:"spec"`
	Session guestapi.Session     `json:"session"`
}

// session is one session.
type session struct {
	m     *Manager
	dir   string
	group cgroup
	log   *outlog.Log // set before anybody else has the session, and by begin
	ended chan struct{}
	halt  chan struct{} // closed when the session is asked to end
	spec  guestapi.SessionSpec

	mu      sync.Mutex       // calls look and attach while the command runs
	rec     guestapi.Session // id and name never change
	proc    *proc.Process    // nil while none runs
	queue   *queue           // of that process
	stopped bool             // halt is closed
	clients map[*client]bool
	writer  *client // of them, nil when none may write
}

func (m *Manager) newSession(r record) *session {
	return &session{
		m: m, dir: m.sessionDir(r.Session.ID), rec: r.Session, spec: r.Spec, clients: map[*client]bool{},
		ended: make(chan struct{}), halt: make(chan struct{}),
	}
}

// read makes the session that the directory id tells of. One that ran is lost, and so is what is left of its processes.
func (m *Manager) read(id string) (*session, error) {
	b, err := os.ReadFile(filepath.Join(m.sessionDir(id), "session.json"))
	if err != nil {
		return nil, err
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, err
	}
	s := m.newSession(r)
	if s.log, err = outlog.OpenEnded(filepath.Join(s.dir, "log")); err != nil {
		return nil, err
	}
	close(s.ended)
	if !s.rec.State.Done() {
		if m.cfg.Cgroup != "" {
			cgroup(filepath.Join(m.cfg.Cgroup, id)).remove()
		}
		s.rec.State, s.rec.PID, s.rec.Ended = guestapi.SessionLost, 0, time.Now()
		s.noteLocked()
	}
	return s, nil
}

// begin makes the session's directory, and starts its command for the first time.
func (s *session) begin(cmd proc.Spec) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	log, err := outlog.Open(filepath.Join(s.dir, "log"), s.spec.LogLimit)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.log = log
	err = s.saveLocked()
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.group = newCgroup(s.m.cfg.Cgroup, s.rec.ID)
	p, err := s.startProcess(cmd)
	if err != nil {
		return err
	}
	go s.supervise(cmd, p)
	return nil
}

// startProcess starts the command.
func (s *session) startProcess(cmd proc.Spec) (*proc.Process, error) {
	if cmd.Cgroup = s.group.open(); cmd.Cgroup != nil {
		defer cmd.Cgroup.Close()
	}
	cmd.Stdout, cmd.Stderr = s.log.Stream(frame.Stdout), s.log.Stream(frame.Stderr)
	p, err := s.m.cfg.Run.StartSpec(context.Background(), cmd)
	if err != nil {
		return nil, err
	}
	q := newQueue()
	if input := p.Input(); input != nil {
		go q.run(input)
	} else {
		q.close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proc, s.queue = p, q
	s.rec.State, s.rec.PID, s.rec.Started = guestapi.SessionRunning, p.PID(), time.Now()
	if s.stopped { // since it was asked to end, nobody had a process to end
		s.rec.State = guestapi.SessionStopping
		p.Kill()
	}
	s.resizeLocked()
	s.noteLocked()
	return p, nil
}

// noteLocked writes the record where that need not work: a full disk does not end a command.
func (s *session) noteLocked() {
	if err := s.saveLocked(); err != nil {
		s.m.cfg.Log.Error("record a session's state", "session", s.rec.Name, "err", err)
	}
}

// The pause before a command that failed is started again, at first and at most.
const (
	firstPause = time.Second
	mostPause  = 30 * time.Second
)

// supervise waits for the command, and starts it again where the session says so.
func (s *session) supervise(cmd proc.Spec, p *proc.Process) {
	var status frame.ExitStatus
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		status = s.await(p)
		if !s.spec.RestartOnFailure || status.Code == 0 || s.m.poweringOff.Load() || !s.waitToRestart(status, pause) {
			break
		}
		var err error
		if p, err = s.startProcess(cmd); err != nil {
			status = proc.Status(err)
			break
		}
		s.mu.Lock()
		s.rec.Restarts++
		s.mu.Unlock()
	}
	s.finish(status)
}

// await waits for one process to its end.
func (s *session) await(p *proc.Process) frame.ExitStatus {
	overdue := run.Limit(p, time.Duration(s.spec.TimeoutMS)*time.Millisecond)
	status := p.Wait()
	if overdue() {
		status = run.Overdue(s.spec.TimeoutMS)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue.close()
	s.proc, s.rec.PID = nil, 0
	return status
}

// waitToRestart reports whether the command is to be started again, when it is time to.
func (s *session) waitToRestart(status frame.ExitStatus, pause time.Duration) bool {
	s.mu.Lock()
	if !s.stopped {
		s.rec.State, s.rec.Exit = guestapi.SessionWaiting, &status
		s.noteLocked()
	}
	s.mu.Unlock()
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-s.halt:
		return false
	case <-timer.C:
		return true
	}
}

// finish notes the end.
func (s *session) finish(status frame.ExitStatus) {
	if s.log != nil {
		s.log.Close()
	}
	s.mu.Lock()
	s.rec.State, s.rec.PID, s.rec.Exit, s.rec.Ended = guestapi.SessionExited, 0, &status, time.Now()
	if s.m.poweringOff.Load() {
		s.rec.State = guestapi.SessionLost
	}
	s.noteLocked()
	s.mu.Unlock()
	close(s.ended)
}

// saveLocked writes the record.
func (s *session) saveLocked() error {
	b, err := json.Marshal(record{Spec: s.spec, Session: s.rec})
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir, "session.json")
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("record session %q: %w", s.rec.Name, err)
	}
	return os.Rename(path+".new", path)
}

// view is the session as others see it now.
func (s *session) view() guestapi.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.rec
	v.Attached = len(s.clients)
	if s.log != nil {
		v.LogFirst, v.LogEnd, v.LogLost = s.log.Extent()
	}
	return v
}

func wait(ctx context.Context, s *session, _ guestapi.SessionRef) (any, error) {
	select {
	case <-s.ended:
		return s.view(), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// running returns the process, or why there is none.
func (s *session) running() (*proc.Process, *queue, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return nil, nil, errkind.New(api.KindPrecondition, "session %q is not running: it is %s", s.rec.Name, s.rec.State)
	}
	return s.proc, s.queue, nil
}

func signal(_ context.Context, s *session, p guestapi.SessionSignal) (any, error) {
	sig, err := proc.ParseSignal(p.Signal)
	if err != nil {
		return nil, err
	}
	process, _, err := s.running()
	if err != nil {
		return nil, err
	}
	err = process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		err = errkind.New(api.KindPrecondition, "session %q has just ended", s.rec.Name)
	}
	return nil, err
}

func send(ctx context.Context, s *session, p guestapi.SessionSend) (any, error) {
	_, q, err := s.running()
	if err != nil {
		return nil, err
	}
	if !s.rec.Stdin {
		return nil, noInput(s)
	}
	if err := q.addWhenRoom(ctx, p.Data); err != nil {
		return nil, err
	}
	if p.EOF {
		q.end(s.rec.TTY)
	}
	return nil, nil
}

func noInput(s *session) error {
	return errkind.WithHint(errkind.New(api.KindPrecondition, "session %q has no input", s.rec.Name),
		"sessions started with --stdin pipe or --stdin pty have")
}

// stop ends the session with all its processes. One that has ended may have left processes: they are ended as well.
func stop(_ context.Context, s *session, p guestapi.SessionStop) (any, error) {
	s.mu.Lock()
	if !s.stopped {
		s.stopped = true
		close(s.halt)
	}
	process := s.proc
	if !s.rec.State.Done() {
		s.rec.State = guestapi.SessionStopping
	}
	s.mu.Unlock()
	if process != nil {
		if p.GraceMS > 0 {
			process.Stop(syscall.SIGTERM, time.Duration(p.GraceMS)*time.Millisecond)
		} else {
			process.Kill()
		}
	}
	s.group.kill()
	<-s.ended
	return s.view(), nil
}
