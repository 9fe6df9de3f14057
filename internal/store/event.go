package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// keepEvents is how many events are remembered; trimEvery is after how many additions the older ones go.
const (
	keepEvents = 10_000
	trimEvery  = 1_000
)

// bell wakes those who wait for the next event. The zero value is ready.
type bell struct {
	mu   sync.Mutex // guards next, against ringing and waiting at once
	next chan struct{}
}

// wait returns a channel that is closed by the next ring.
func (b *bell) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = make(chan struct{})
	}
	return b.next
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}

// writes runs fn in a write transaction together with the events that it returns, and wakes their readers.
func (s *Store) writes(ctx context.Context, fn func(tx *sql.Tx) ([]api.Event, error)) error {
	added := false
	err := inTx(ctx, s.write, func(tx *sql.Tx) error {
		events, err := fn(tx)
		if err != nil {
			return err
		}
		added = len(events) > 0
		return addEvents(ctx, tx, events)
	})
	if err == nil && added {
		s.bell.ring()
	}
	return err
}

func addEvents(ctx context.Context, tx *sql.Tx, events []api.Event) error {
	for _, e := range events {
		e.At = time.Now().UTC()
		doc, err := json.Marshal(e)
		if err != nil {
			return err
		}
		r, err := tx.ExecContext(ctx, "INSERT INTO event (doc) VALUES (?)", string(doc))
		if err != nil {
			return err
		}
		seq, err := r.LastInsertId()
		if err != nil {
			return err
		}
		if seq%trimEvery == 0 {
			if _, err := tx.ExecContext(ctx, "DELETE FROM event WHERE seq <= ?", seq-keepEvents); err != nil {
				return err
			}
		}
	}
	return nil
}

// AddEvent stores an event that no record shows, such as a warning. Its Seq and At are given here.
func (s *Store) AddEvent(ctx context.Context, e api.Event) error {
	err := s.writes(ctx, func(*sql.Tx) ([]api.Event, error) { return []api.Event{e}, nil })
	if err != nil {
		return fmt.Errorf("store event %s: %w", e.Type, mapError(ctx, err))
	}
	return nil
}

// Events returns at most limit events that came after the one with Seq after, oldest first.
func (s *Store) Events(ctx context.Context, after int64, limit int) ([]api.Event, error) {
	events, err := scanDocs[api.Event](ctx, s.read,
		"SELECT json_set(doc, '$.seq', seq) FROM event WHERE seq > ? ORDER BY seq LIMIT ?", after, limit)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", mapError(ctx, err))
	}
	return events, nil
}

// NextEvent returns a channel that is closed when another event is stored. Take it before reading events, so that none falls
// in between.
func (s *Store) NextEvent() <-chan struct{} { return s.bell.wait() }

// ResumeEvents turns a client's token into the Seq after which to read: 0 means from now on, -1 from the oldest that there is.
// A token before that is of kind precondition, because events would be missing; one that was never given out, of kind invalid.
func (s *Store) ResumeEvents(ctx context.Context, token int64) (int64, error) {
	var oldest, last int64
	err := s.read.QueryRowContext(ctx, `SELECT
		coalesce((SELECT min(seq) FROM event), 0), coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'event'), 0)`).Scan(&oldest, &last)
	if err != nil {
		return 0, fmt.Errorf("read events: %w", mapError(ctx, err))
	}
	switch {
	case token == 0:
		return last, nil
	case token == -1:
		return max(oldest-1, 0), nil
	case token < oldest-1:
		return 0, errkind.WithHint(errkind.New(api.KindPrecondition, "events after %d are not all remembered: the oldest is %d", token, oldest),
			"look at the present state, then follow from now on, without a token")
	case token < -1 || token > last:
		return 0, errkind.WithHint(errkind.New(api.KindInvalid, "%d is no event of this daemon: the last one is %d", token, last),
			"a token is the seq of an event that was received; leave it out to follow from now on")
	}
	return token, nil
}
