package session

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/agent/proc"
	"github.com/banger-vm/banger/internal/errkind"
)

// client is one attached client.
type client struct {
	key    string            // the client's own; see guestapi.SessionAttach
	size   *frame.WindowSize // of its terminal, nil without one; the session's mutex guards it
	cancel context.CancelCauseFunc
	frames *frame.Writer
}

// errSelf ends an attachment whose client has attached again.
var errSelf = errors.New("you attached again")

// errTaken ends an attachment whose place as the writer was taken.
var errTaken = errors.New("another client has taken the session over; attach again with --take to have it back, or with --read-only to watch")

// attach serves [guestapi.MethodSessionAttach].
func (m *Manager) attach(ctx context.Context, c *call.Call) (any, error) {
	var p guestapi.SessionAttach
	if err := c.Params(&p); err != nil {
		return nil, err
	}
	s, err := m.find(p.Session)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cl := &client{key: p.Client, size: p.Size, cancel: cancel, frames: frame.NewWriter(c)}
	if err := s.join(cl, p); err != nil {
		return nil, err
	}
	leave := sync.OnceFunc(func() { s.leave(cl) })
	defer leave()
	answer := guestapi.SessionAttached{Session: s.view(), StdinWindow: window}
	answer.From = start(answer.Session, p)
	if _, q, err := s.running(); err == nil {
		answer.StdinWindow = q.room()
	}
	if err := c.Accept(answer); err != nil {
		return nil, err
	}
	go func() {
		s.obey(cl, frame.NewReader(c))
		cancel(io.EOF)
		leave() // before whoever waits to write is told that the place is taken
		c.Close()
	}()
	return nil, s.follow(ctx, cl, answer.From)
}

// start is the offset at which an attachment begins.
func start(s guestapi.Session, p guestapi.SessionAttach) int64 {
	if p.From != nil {
		return max(*p.From, 0)
	}
	return max(s.LogEnd-max(p.Replay, 0), s.LogFirst)
}

// join makes cl one of the session's clients.
func (s *session) join(cl *client, p guestapi.SessionAttach) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for other := range s.clients {
		if cl.key != "" && other.key == cl.key {
			s.dropLocked(other, errSelf)
		}
	}
	if !p.ReadOnly && s.rec.Stdin && !s.rec.State.Done() {
		if s.writer != nil && !p.Take {
			return errkind.WithHint(errkind.New(api.KindBusy, "another client is attached to session %q and writes to it", s.rec.Name),
				"watch it with --read-only, or take its place with --take")
		}
		if s.writer != nil {
			s.dropLocked(s.writer, errTaken)
		}
		s.writer = cl
	}
	s.clients[cl] = true
	s.resizeLocked()
	return nil
}

// dropLocked ends the attachment of cl.
func (s *session) dropLocked(cl *client, why error) {
	delete(s.clients, cl)
	if s.writer == cl {
		s.writer = nil
	}
	cl.cancel(why)
}

func (s *session) leave(cl *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(cl, nil)
	s.resizeLocked()
}

// resizeLocked gives the terminal the smallest size of those attached.
func (s *session) resizeLocked() {
	var size *frame.WindowSize
	for cl := range s.clients {
		switch {
		case cl.size == nil:
		case size == nil:
			size = &frame.WindowSize{Rows: cl.size.Rows, Cols: cl.size.Cols}
		default:
			size.Rows, size.Cols = min(size.Rows, cl.size.Rows), min(size.Cols, cl.size.Cols)
		}
	}
	if size != nil && s.proc != nil {
		_ = s.proc.Resize(*size) // fails when the process has ended
	}
}

// obey carries out the client's frames until they end. Those of a client that may not write are dropped, but for sizes.
func (s *session) obey(cl *client, r *frame.Reader) {
	taken := func(n int) { _ = cl.frames.WriteJSON(frame.StdinTaken, n) } // a client that has gone shows in r
	for {
		t, payload, err := r.Next()
		if err != nil {
			return
		}
		s.mu.Lock()
		if t == frame.Resize {
			var size frame.WindowSize
			if json.Unmarshal(payload, &size) == nil && size.Rows > 0 && size.Cols > 0 {
				cl.size = &size
				s.resizeLocked()
			}
		}
		process, q, may := s.proc, s.queue, s.writer == cl
		s.mu.Unlock()
		if process == nil || !may {
			continue
		}
		switch t {
		case frame.Stdin:
			_ = q.add(payload, taken) // what comes after the end of the input is dropped
		case frame.StdinEOF:
			q.end(s.rec.TTY)
		case frame.Signal:
			if sig, err := proc.ParseSignal(string(payload)); err == nil {
				_ = process.Signal(sig) // fails when the process has ended
			}
		}
	}
}

// follow sends the output from an offset on, and how the session or the attachment ended.
func (s *session) follow(ctx context.Context, cl *client, from int64) error {
	r := s.log.Reader(from)
	defer r.Close()
	for {
		rec, err := r.Next(ctx, true)
		switch {
		case err == nil:
			if err := cl.frames.Write(frame.Output, rec.Append(nil)); err != nil {
				return err
			}
		case errors.Is(err, io.EOF):
			return s.tellEnd(ctx, cl.frames)
		case errors.Is(context.Cause(ctx), errTaken), errors.Is(context.Cause(ctx), errSelf):
			return cl.frames.Write(frame.Detached, []byte(context.Cause(ctx).Error()))
		default:
			return err
		}
	}
}

// tellEnd waits for the session's end, which comes just after that of its log, and sends its status.
func (s *session) tellEnd(ctx context.Context, frames *frame.Writer) error {
	select {
	case <-s.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	return frames.WriteJSON(frame.Exit, exitOf(s.view()))
}

// exitOf is the status of a session that has ended.
func exitOf(v guestapi.Session) frame.ExitStatus {
	switch {
	case v.State == guestapi.SessionLost:
		return frame.ExitStatus{Code: 1, Error: "the session was lost when its VM was restarted", Hint: "start it again; `banger vm session logs` has its output"}
	case v.Exit == nil:
		return frame.ExitStatus{}
	}
	return *v.Exit
}
