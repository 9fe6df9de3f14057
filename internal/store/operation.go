package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// PutOperation stores the operation, in place of the one with its id if there is one. Its beginning and its end are events.
func (s *Store) PutOperation(ctx context.Context, op api.Operation) error {
	err := s.writes(ctx, func(tx *sql.Tx) ([]api.Event, error) {
		var before sql.NullString
		err := tx.QueryRowContext(ctx, "SELECT state FROM operation WHERE id = ?", op.ID).Scan(&before)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, err
		}
		return operationEvents(before.String, op), putOperation(ctx, tx, op)
	})
	if err != nil {
		return fmt.Errorf("store operation %s: %w", op.ID, mapError(ctx, err))
	}
	return nil
}

// operationEvents tells what is new about op, whose state was before, or empty.
func operationEvents(before string, op api.Operation) []api.Event {
	e := api.Event{ID: op.ID, Name: op.Subject, State: string(op.State), Kind: op.Kind}
	if op.Error != nil {
		e.Message = op.Error.Message
	}
	var events []api.Event
	if before == "" {
		e.Type = api.EventOperationBegun
		events = append(events, e)
	}
	if op.State.Done() && !api.OperationState(before).Done() {
		e.Type = api.EventOperationEnded
		events = append(events, e)
	}
	return events
}

func putOperation(ctx context.Context, q querier, op api.Operation) error {
	doc, err := json.Marshal(op)
	if err != nil {
		return err
	}
	_, err = q.ExecContext(ctx, `INSERT INTO operation (id, created, state, doc) VALUES (?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET created = excluded.created, state = excluded.state, doc = excluded.doc`,
		op.ID, op.Created.UnixNano(), string(op.State), string(doc))
	return err
}

// GetOperation returns the operation that ref means: its id, or a prefix that only its id has. Kinds: not-found, and
// invalid for an ambiguous prefix, whose message lists the candidates.
func (s *Store) GetOperation(ctx context.Context, ref string) (api.Operation, error) {
	found, err := scanDocs[api.Operation](ctx, s.read,
		"SELECT doc FROM operation WHERE id >= ?1 AND id < ?1 || 'g' ORDER BY id LIMIT ?2", ref, maxCandidates+1)
	switch {
	case err != nil:
		return api.Operation{}, fmt.Errorf("find operation %q: %w", ref, mapError(ctx, err))
	case len(found) == 0 || ref == "":
		return api.Operation{}, errkind.WithHint(errkind.New(api.KindNotFound, "no operation %q", ref),
			"`banger operation list` shows the operations there are; old ones are forgotten")
	case len(found) == 1:
		return found[0], nil
	}
	ids := make([]string, len(found))
	for i, op := range found {
		ids[i] = op.ID
	}
	return api.Operation{}, ambiguous("operation", ref, ids)
}

// ListOperations returns at most limit operations, newest first; limit 0 is all.
func (s *Store) ListOperations(ctx context.Context, limit int) ([]api.Operation, error) {
	if limit <= 0 {
		limit = -1 // SQLite's "no limit"
	}
	ops, err := scanDocs[api.Operation](ctx, s.read, "SELECT doc FROM operation ORDER BY created DESC, rowid DESC LIMIT ?", limit)
	if err != nil {
		return nil, fmt.Errorf("list operations: %w", mapError(ctx, err))
	}
	return ops, nil
}

// PruneOperations forgets all operations that have ended but the newest keep.
func (s *Store) PruneOperations(ctx context.Context, keep int) error {
	_, err := s.write.ExecContext(ctx, `DELETE FROM operation WHERE state <> ?1 AND id NOT IN
		(SELECT id FROM operation WHERE state <> ?1 ORDER BY created DESC, rowid DESC LIMIT ?2)`,
		string(api.OperationRunning), max(keep, 0))
	if err != nil {
		return fmt.Errorf("prune operations: %w", mapError(ctx, err))
	}
	return nil
}

// InterruptOperations marks the operations that are stored as running as interrupted, and returns them. It is for the
// daemon's start: nothing runs them any more.
func (s *Store) InterruptOperations(ctx context.Context) ([]api.Operation, error) {
	var ops []api.Operation
	err := s.writes(ctx, func(tx *sql.Tx) (events []api.Event, err error) {
		ops, err = scanDocs[api.Operation](ctx, tx,
			"SELECT doc FROM operation WHERE state = 'running' ORDER BY created, rowid")
		if err != nil {
			return nil, err
		}
		for i := range ops {
			before := string(ops[i].State)
			interrupt(&ops[i])
			if err := putOperation(ctx, tx, ops[i]); err != nil {
				return nil, err
			}
			events = append(events, operationEvents(before, ops[i])...)
		}
		return events, nil
	})
	if err != nil {
		return nil, fmt.Errorf("interrupt operations: %w", mapError(ctx, err))
	}
	return ops, nil
}

func interrupt(op *api.Operation) {
	op.State = api.OperationInterrupted
	op.Ended = time.Now().UTC()
	op.Progress = nil
	op.Error = &api.Error{Kind: api.KindUnavailable, Message: "the daemon went away while it ran", Operation: op.ID,
		Hint: "what it had begun was undone; run the command again"}
}
