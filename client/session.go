package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
)

// SessionStart starts a session. See [api.SessionStart] for a command that cannot be executed.
func (c *Client) SessionStart(ctx context.Context, p api.SessionStart) (api.Session, error) {
	return get[api.Session](ctx, c, api.MethodSessionStart, p)
}

// SessionList returns the sessions of the VMs that refs name; without refs, of all.
func (c *Client) SessionList(ctx context.Context, refs ...string) ([]api.Session, error) {
	l, err := get[api.SessionList](ctx, c, api.MethodSessionList, api.SessionsOf{Refs: refs})
	return l.Sessions, err
}

// sessionRef names a session.
func sessionRef(vm, session string) api.SessionRef {
	return api.SessionRef{Ref: api.Ref{Ref: vm}, SessionRef: guestapi.SessionRef{Session: session}}
}

// SessionGet returns one session of a running VM.
func (c *Client) SessionGet(ctx context.Context, vm, session string) (api.Session, error) {
	return get[api.Session](ctx, c, api.MethodSessionGet, sessionRef(vm, session))
}

// SessionWait waits until a session has ended, and returns it.
func (c *Client) SessionWait(ctx context.Context, vm, session string) (api.Session, error) {
	return get[api.Session](ctx, c, api.MethodSessionWait, sessionRef(vm, session))
}

// SessionSignal sends a signal to a session's process group.
func (c *Client) SessionSignal(ctx context.Context, p api.SessionSignal) error {
	return c.call(ctx, api.MethodSessionSignal, p, nil)
}

// SessionStop ends a session with all its processes, and returns it then.
func (c *Client) SessionStop(ctx context.Context, p api.SessionStop) (api.Session, error) {
	return get[api.Session](ctx, c, api.MethodSessionStop, p)
}

// SessionSend gives a session input. It returns when that is queued, in order behind what was sent before.
func (c *Client) SessionSend(ctx context.Context, p api.SessionSend) error {
	return c.call(ctx, api.MethodSessionSend, p, nil)
}

// SessionDelete forgets a session that has ended, with its log.
func (c *Client) SessionDelete(ctx context.Context, p api.SessionDelete) error {
	return c.call(ctx, api.MethodSessionDelete, p, nil)
}

// SessionStream is an open connection to a session: an io.Reader of its output, both streams in the order of writing, and an
// io.Writer of its input. One goroutine may read while another writes. Whoever writes more than 256 KiB must also read, because
// the session's word that there is room comes with its output.
type SessionStream struct {
	s       *stream
	fw      *frame.Writer
	fr      *frame.Reader
	session guestapi.Session
	offset  int64 // of what Next returns next
	room    room
	done    chan struct{} // closed with the last frame
	rest    []byte        // of a record that Read was given too little room for
	status  frame.ExitStatus
	err     error // valid once done is closed: io.EOF after an exit frame
}

// SessionAttach attaches to a session. Closing the stream, or the end of ctx, detaches; the session goes on.
func (c *Client) SessionAttach(ctx context.Context, p api.SessionAttach) (*SessionStream, error) {
	var a guestapi.SessionAttached
	s, err := c.open(ctx, api.MethodSessionAttach, p, &a)
	if err != nil {
		return nil, err
	}
	return newSessionStream(s, a), nil
}

// SessionLogs reads a session's log. Its Wait tells nothing of how the session ended.
func (c *Client) SessionLogs(ctx context.Context, p api.SessionLogs) (*SessionStream, error) {
	a := guestapi.SessionAttached{From: p.From}
	s, err := c.open(ctx, api.MethodSessionLogs, p, &a.Session)
	if err != nil {
		return nil, err
	}
	return newSessionStream(s, a), nil
}

func newSessionStream(s *stream, a guestapi.SessionAttached) *SessionStream {
	left := a.StdinWindow
	if left == 0 {
		left = math.MaxInt
	}
	return &SessionStream{
		s: s, fw: frame.NewWriter(s.Conn), fr: frame.NewReader(s.r), session: a.Session, offset: a.From,
		room: room{left: left, more: make(chan struct{}, 1)}, done: make(chan struct{}),
	}
}

// Session is the session as it was when the stream was opened.
func (s *SessionStream) Session() guestapi.Session { return s.session }

// Offset is where in the session's output the next record begins, unless something was lost. It is for the goroutine that reads;
// attaching with it as From goes on where this stream was cut.
func (s *SessionStream) Offset() int64 { return s.offset }

// Next returns the next piece of output, whose Data is valid until the following call. Offset tells of output that this reader
// was too slow for: it is beyond the end of the piece before. The error is io.EOF when the session has ended, of kind busy when
// another client took the place of this one, and of kind unavailable when the connection was cut.
func (s *SessionStream) Next() (frame.Record, error) {
	for {
		select {
		case <-s.done:
			return frame.Record{}, s.err
		default:
		}
		t, payload, err := s.fr.Next()
		if err != nil {
			s.end(s.s.failure("follow the session", err))
			continue
		}
		switch t {
		case frame.Output:
			rec, err := frame.ParseRecord(payload)
			if err != nil {
				s.end(err)
				continue
			}
			s.offset = rec.End()
			return rec, nil
		case frame.StdinTaken:
			var n int
			if err := json.Unmarshal(payload, &n); err != nil {
				s.end(fmt.Errorf("decode stdin-taken frame: %w", err))
				continue
			}
			s.room.add(n)
		case frame.Detached:
			s.end(&api.Error{Kind: api.KindBusy, Message: string(payload)})
		case frame.Exit:
			if s.status, err = decodeExit(payload); err == nil {
				err = io.EOF
			}
			s.end(err)
		}
	}
}

func (s *SessionStream) end(err error) {
	s.err = err
	close(s.done)
}

// Read reads output, as Next does; output that was lost is left out.
func (s *SessionStream) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		rec, err := s.Next()
		if err != nil {
			return 0, err
		}
		s.rest = rec.Data
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Write sends input. It waits while the session has 256 KiB that its command has not taken, and fails with io.ErrClosedPipe when
// the stream has ended.
func (s *SessionStream) Write(p []byte) (int, error) {
	sent := 0
	for sent < len(p) {
		select {
		case <-s.done:
			return sent, io.ErrClosedPipe
		default:
		}
		n := s.room.take(len(p)-sent, s.done)
		if n == 0 {
			return sent, io.ErrClosedPipe
		}
		if err := s.fw.Write(frame.Stdin, p[sent:sent+n]); err != nil {
			return sent, s.s.failure("send input", err)
		}
		sent += n
	}
	return sent, nil
}

// CloseWrite ends the session's input. On a terminal it types the end-of-file character.
func (s *SessionStream) CloseWrite() error { return s.fw.Write(frame.StdinEOF, nil) }

// Resize tells the session the size of this client's terminal.
func (s *SessionStream) Resize(size frame.WindowSize) error {
	return s.fw.WriteJSON(frame.Resize, size)
}

// Signal sends the session a signal, named without SIG, such as "INT".
func (s *SessionStream) Signal(name string) error { return s.fw.Write(frame.Signal, []byte(name)) }

// Wait drops what output is still to come until the session has ended, closes the stream, and returns how the session ended.
func (s *SessionStream) Wait() (frame.ExitStatus, error) {
	defer s.Close()
	for {
		_, err := s.Next()
		switch {
		case err == io.EOF:
			return s.status, nil
		case err != nil:
			return frame.ExitStatus{}, err
		}
	}
}

// Close detaches.
func (s *SessionStream) Close() error { return s.s.Close() }
