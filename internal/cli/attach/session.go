package attach

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/errkind"
)

// errLeft ends an attachment by its detach keys.
var errLeft = errors.New("detached")

// comeBack is how long a client whose connection was cut tries to attach again.
const comeBack = 30 * time.Second

// session is one attachment, over as many connections as it takes.
type session struct {
	app    *app.App
	p      api.SessionAttach
	client *client.Client

	mu     sync.Mutex // input comes while connections change
	stream *client.SessionStream
}

// Session joins this process's streams to a session until it ends, and returns how. Leaving it, by the bytes of detach, is a
// status of 0. A connection that is cut is made again, from the offset where it was cut.
func Session(ctx context.Context, a *app.App, c *client.Client, p api.SessionAttach, detach []byte) (frame.ExitStatus, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &session{app: a, p: p, client: c}
	terminal := a.InTTY && a.OutTTY
	if terminal {
		s.p.Size = size(a.Out)
	}
	stream, err := c.SessionAttach(ctx, s.p)
	if err != nil {
		return frame.ExitStatus{}, err
	}
	s.use(stream)
	info := stream.Session()
	if terminal && info.TTY {
		restore, err := raw(a)
		if err != nil {
			stream.Close()
			return frame.ExitStatus{}, err
		}
		defer restore()
		defer followSize(a.Out, s)()
	}
	if info.Stdin && !p.ReadOnly {
		go s.input(&keyWatch{keys: detach, on: terminal}, cancel)
	}
	st, err := s.follow(ctx)
	if errors.Is(context.Cause(ctx), errLeft) {
		fmt.Fprintf(a.Err, "\r\nbanger: detached from session %s, which goes on\r\n", info.Name)
		return frame.ExitStatus{}, nil
	}
	return st, err
}

// use makes stream the one that input goes to.
func (s *session) use(stream *client.SessionStream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stream, s.p.Take = stream, false // a place that was taken from us is not taken back
}

// from makes the next connection begin at offset.
func (s *session) from(offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.p.From = &offset
}

func (s *session) current() *client.SessionStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream
}

// Resize tells the session this terminal's size.
func (s *session) Resize(size frame.WindowSize) error {
	s.mu.Lock()
	s.p.Size = &size
	stream := s.stream
	s.mu.Unlock()
	return stream.Resize(size)
}

// input sends standard input. Its end is not the session's, which others may write to.
func (s *session) input(watch *keyWatch, cancel context.CancelCauseFunc) {
	buf := make([]byte, 32<<10)
	for {
		n, err := s.app.In.Read(buf)
		data, left := watch.feed(buf[:n])
		if _, err := s.current().Write(data); err != nil && left {
			break // it was cut, and the user wants to leave
		}
		if left {
			break
		}
		if err != nil {
			return
		}
	}
	cancel(errLeft)
}

// follow prints what the session writes, and comes back when the connection is cut.
func (s *session) follow(ctx context.Context) (frame.ExitStatus, error) {
	for {
		stream := s.current()
		st, err := s.print(stream)
		stream.Close()
		if err == nil || ctx.Err() != nil || !errkind.Is(err, api.KindUnavailable) {
			return st, err
		}
		s.from(stream.Offset())
		if stream, err = s.again(ctx, err); err != nil {
			return st, err
		}
		s.use(stream)
	}
}

// print prints what comes on one connection.
func (s *session) print(stream *client.SessionStream) (frame.ExitStatus, error) {
	next := stream.Offset()
	for {
		rec, err := stream.Next()
		if errors.Is(err, io.EOF) {
			return stream.Wait()
		}
		if err != nil {
			return frame.ExitStatus{}, err
		}
		if rec.Offset > next {
			fmt.Fprintf(s.app.Err, "\r\nbanger: %d bytes of output are missing here\r\n", rec.Offset-next)
		}
		next = rec.End()
		w := s.app.Out
		if rec.Stream == frame.Stderr {
			w = s.app.Err
		}
		if _, err := w.Write(rec.Data); err != nil {
			return frame.ExitStatus{}, fmt.Errorf("write the session's output: %w", err)
		}
	}
}

// again attaches anew after the failure of a connection, which it returns when that does not work within comeBack.
func (s *session) again(ctx context.Context, failure error) (*client.SessionStream, error) {
	giveUp, cancel := context.WithTimeout(ctx, comeBack)
	defer cancel()
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		c, err := s.app.Client(giveUp)
		if err == nil {
			var stream *client.SessionStream
			s.mu.Lock()
			p := s.p
			s.mu.Unlock()
			if stream, err = c.SessionAttach(ctx, p); err == nil {
				return stream, nil
			}
		}
		if !errkind.Is(err, api.KindUnavailable) && giveUp.Err() == nil {
			return nil, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-giveUp.Done():
			timer.Stop()
			return nil, failure
		}
	}
}

// keyWatch looks for the detach keys in what is typed. What may be their beginning is held back until the next key.
type keyWatch struct {
	keys []byte
	on   bool
	held int // of keys
}

// feed returns what is to be sent of p, and whether the keys were typed.
func (w *keyWatch) feed(p []byte) (send []byte, left bool) {
	if !w.on || len(w.keys) == 0 {
		return p, false
	}
	for _, b := range p {
		if b != w.keys[w.held] {
			send = append(send, w.keys[:w.held]...)
			w.held = 0
		}
		if b != w.keys[w.held] {
			send = append(send, b)
			continue
		}
		if w.held++; w.held == len(w.keys) {
			return send, true
		}
	}
	return send, false
}

// ParseKeys returns the bytes that a list of keys such as "ctrl-p,ctrl-q" or "~,." stands for; an empty one is no keys.
func ParseKeys(list string) ([]byte, error) {
	if list == "" {
		return nil, nil
	}
	var out bytes.Buffer
	for _, key := range strings.Split(list, ",") {
		c, ctrl := strings.CutPrefix(strings.ToLower(key), "ctrl-")
		switch {
		case ctrl && len(c) == 1 && (c[0] >= 'a' && c[0] <= 'z' || strings.Contains(`@[\]^_`, c)):
			out.WriteByte(c[0] & 0x1f)
		case !ctrl && len(key) == 1:
			out.WriteString(key)
		default:
			return nil, errkind.WithHint(errkind.New(api.KindInvalid, "bad detach keys %q", list), "write them as ctrl-p,ctrl-q: characters, or ctrl- and one")
		}
	}
	return out.Bytes(), nil
}
