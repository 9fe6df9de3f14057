package session

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/agent/session/outlog"
	"github.com/banger-vm/banger/internal/errkind"
)

// logs serves [guestapi.MethodSessionLogs].
func (m *Manager) logs(ctx context.Context, c *call.Call) (any, error) {
	var p guestapi.SessionLogs
	if err := c.Params(&p); err != nil {
		return nil, err
	}
	s, err := m.find(p.Session)
	if err != nil {
		return nil, err
	}
	if p.Stream != "" && p.Stream != frame.Stdout.String() && p.Stream != frame.Stderr.String() {
		return nil, errkind.WithHint(errkind.New(api.KindInvalid, "unknown stream %q", p.Stream), "use stdout or stderr")
	}
	from := p.From
	if p.Tail > 0 {
		if from, err = tail(ctx, s.log, p); err != nil {
			return nil, err
		}
	}
	if err := c.Accept(s.view()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		io.Copy(io.Discard, c) // any end is a hang-up
		cancel()
		c.Close()
	}()
	return nil, s.sendLogs(ctx, frame.NewWriter(c), from, p)
}

func (s *session) sendLogs(ctx context.Context, frames *frame.Writer, from int64, p guestapi.SessionLogs) error {
	r := s.log.Reader(from)
	defer r.Close()
	for {
		rec, err := r.Next(ctx, p.Follow)
		switch {
		case errors.Is(err, io.EOF):
			return frames.WriteJSON(frame.Exit, frame.ExitStatus{})
		case err != nil:
			return err
		case !wanted(rec, p):
			continue
		}
		if err := frames.Write(frame.Output, rec.Append(nil)); err != nil {
			return err
		}
	}
}

func wanted(rec frame.Record, p guestapi.SessionLogs) bool {
	return (p.Stream == "" || p.Stream == rec.Stream.String()) && (p.Since.IsZero() || !rec.Time.Before(p.Since))
}

// tail returns the offset at which the last p.Tail lines of what p wants begin.
func tail(ctx context.Context, l *outlog.Log, p guestapi.SessionLogs) (int64, error) {
	r := l.Reader(p.From)
	defer r.Close()
	var starts []int64 // of the last lines, as a ring; next is the oldest
	next, fresh := 0, true
	for {
		rec, err := r.Next(ctx, false)
		switch {
		case errors.Is(err, io.EOF):
			if len(starts) == 0 {
				return p.From, nil
			}
			return starts[next%len(starts)], nil
		case err != nil:
			return 0, err
		case !wanted(rec, p):
			continue
		}
		for at := 0; at < len(rec.Data); {
			if fresh && len(starts) < p.Tail {
				starts = append(starts, rec.Offset+int64(at))
			} else if fresh {
				starts[next] = rec.Offset + int64(at)
				next = (next + 1) % p.Tail
			}
			line := bytes.IndexByte(rec.Data[at:], '\n')
			fresh = line >= 0
			if !fresh {
				break
			}
			at += line + 1
		}
	}
}
