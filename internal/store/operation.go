package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// PutOperation stores the operation, in place of the one with its id if there is one.
func (s *Store) PutOperation(ctx context.Context, op api.Operation) error {
	if err := putOperation(ctx, s.write, op); err != nil {
		return fmt.Errorf("store operation %s: %w", op.ID, mapError(ctx, err))
	}
	return nil
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
	err := inTx(ctx, s.write, func(tx *sql.Tx) error {
		var err error
		ops, err = scanDocs[api.Operation](ctx, tx,
			"SELECT doc FROM operation WHERE state = 'running' ORDER BY created, rowid")
		if err != nil {
			return err
		}
		for i := range ops {
			interrupt(&ops[i])
			if err := putOperation(ctx, tx, ops[i]); err != nil {
				return err
			}
		}
		return nil
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
