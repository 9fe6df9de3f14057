package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
)

// Sessions returns what was stored last of a VM's sessions; none when nothing was.
func (s *Store) Sessions(ctx context.Context, id banger.VMID) ([]guestapi.Session, error) {
	docs, err := scanDocs[[]guestapi.Session](ctx, s.read, "SELECT doc FROM session WHERE vm_id = ?", string(id))
	if err != nil {
		return nil, fmt.Errorf("read sessions of VM %s: %w", id, mapError(ctx, err))
	}
	if len(docs) == 0 {
		return nil, nil
	}
	return docs[0], nil
}

// PutSessions stores a VM's sessions in place of what was stored before. They go with the VM's record. A VM that has none is of
// kind not-found.
func (s *Store) PutSessions(ctx context.Context, id banger.VMID, sessions []guestapi.Session) error {
	doc, err := json.Marshal(sessions)
	if err != nil {
		return err
	}
	return s.writes(ctx, func(tx *sql.Tx) ([]api.Event, error) {
		res, err := tx.ExecContext(ctx, `INSERT INTO session (vm_id, doc) SELECT id, ?2 FROM vm WHERE id = ?1
			ON CONFLICT (vm_id) DO UPDATE SET doc = excluded.doc`, string(id), string(doc))
		if err != nil {
			return nil, fmt.Errorf("store sessions of VM %s: %w", id, mapError(ctx, err))
		}
		if n, err := res.RowsAffected(); err != nil || n > 0 {
			return nil, err
		}
		return nil, vms.notFound(string(id))
	})
}
