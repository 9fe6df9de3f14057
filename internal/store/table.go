package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"golang.org/x/sync/errgroup"
	sqlite3 "modernc.org/sqlite/lib"
)

// table is one kind of named record: how it is called, and which columns it has beside its document.
type table[T any] struct {
	name  string         // of the table
	noun  string         // in errors
	list  string         // the command that lists them, for hints
	extra string         // further columns, ", a, b"
	row   func(T) record // what the columns hold
}

// record is a record's columns.
type record struct {
	id, name string
	created  time.Time
	extra    []any // in the order of table.extra
}

// maxCandidates bounds how many records an error about an ambiguous reference lists.
const maxCandidates = 8

// columns returns r's values in the order id, name, created, doc, extra.
func (r record) columns(doc []byte) []any {
	return append([]any{r.id, r.name, r.created.UnixNano(), string(doc)}, r.extra...)
}

func (t table[T]) insert(ctx context.Context, tx *sql.Tx, v T) error {
	doc, err := json.Marshal(v)
	if err != nil {
		return err
	}
	r := t.row(v)
	_, err = tx.ExecContext(ctx, fmt.Sprintf("INSERT INTO %s (id, name, created, doc%s) VALUES (?, ?, ?, ?%s)",
		t.name, t.extra, strings.Repeat(", ?", len(r.extra))), r.columns(doc)...)
	if err != nil {
		return fmt.Errorf("store %s %q: %w", t.noun, r.name, t.conflict(ctx, r, err))
	}
	return nil
}

// update changes the record with the exact id: fn gets a copy and changes it; an error from fn changes nothing.
func (t table[T]) update(ctx context.Context, tx *sql.Tx, id string, fn func(*T) error) (T, error) {
	var zero T
	docs, err := t.scan(ctx, tx, "WHERE id = ?", id)
	if err != nil {
		return zero, err
	}
	if len(docs) == 0 {
		return zero, t.notFound(id)
	}
	v := docs[0]
	if err := fn(&v); err != nil {
		return zero, err
	}
	return v, t.replace(ctx, tx, id, v)
}

func (t table[T]) replace(ctx context.Context, tx *sql.Tx, id string, v T) error {
	r := t.row(v)
	if r.id != id {
		return errkind.New(api.KindInternal, "update %s %q: its id became %q", t.noun, id, r.id)
	}
	doc, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, fmt.Sprintf("UPDATE %s SET (id, name, created, doc%s) = (?, ?, ?, ?%s) WHERE id = ?",
		t.name, t.extra, strings.Repeat(", ?", len(r.extra))), append(r.columns(doc), id)...)
	if err != nil {
		return fmt.Errorf("update %s %q: %w", t.noun, r.name, t.conflict(ctx, r, err))
	}
	return nil
}

// get resolves ref: a name, an id, or a prefix that only one id has.
func (t table[T]) get(ctx context.Context, db *sql.DB, ref string) (T, error) {
	var zero T
	if ref == "" {
		return zero, errkind.WithHint(errkind.New(api.KindInvalid, "empty %s name", t.noun), "%s", t.hint())
	}
	// An id is hex, so the ids that begin with ref are those between it and ref + "g".
	found, err := t.scan(ctx, db, "WHERE name = ?1 OR (id >= ?1 AND id < ?1 || 'g') ORDER BY id LIMIT ?2", ref, maxCandidates+2)
	if err != nil {
		return zero, fmt.Errorf("find %s %q: %w", t.noun, ref, mapError(ctx, err))
	}
	for _, v := range found {
		if t.row(v).name == ref {
			return v, nil
		}
	}
	for _, v := range found {
		if t.row(v).id == ref {
			return v, nil
		}
	}
	switch len(found) {
	case 0:
		return zero, t.notFound(ref)
	case 1:
		return found[0], nil
	}
	names := make([]string, len(found))
	for i, v := range found {
		r := t.row(v)
		names[i] = fmt.Sprintf("%s (%s)", r.name, r.id)
	}
	return zero, ambiguous(t.noun, ref, names)
}

// all returns the records that clause selects, all of them when it is empty; the caller orders.
func (t table[T]) all(ctx context.Context, db *sql.DB, clause string, args ...any) ([]T, error) {
	vs, err := t.scan(ctx, db, clause, args...)
	if err != nil {
		return nil, fmt.Errorf("list %ss: %w", t.noun, mapError(ctx, err))
	}
	return vs, nil
}

func (t table[T]) scan(ctx context.Context, q querier, clause string, args ...any) ([]T, error) {
	return scanDocs[T](ctx, q, "SELECT doc FROM "+t.name+" "+clause, args...)
}

// delete forgets the record with the exact id and returns it; found is false if there was none.
func (t table[T]) delete(ctx context.Context, tx *sql.Tx, id string) (v T, found bool, err error) {
	docs, err := scanDocs[T](ctx, tx, "DELETE FROM "+t.name+" WHERE id = ? RETURNING doc", id)
	switch {
	case violates(err, sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY):
		return v, false, errkind.WithHint(errkind.New(api.KindPrecondition, "delete %s %q: a VM still uses it", t.noun, id),
			"delete the VMs that use it first; `banger vm list` shows them")
	case err != nil:
		return v, false, fmt.Errorf("delete %s %q: %w", t.noun, id, mapError(ctx, err))
	case len(docs) == 0:
		return v, false, nil
	}
	return docs[0], true, nil
}

// conflict explains the constraint that record r met.
func (t table[T]) conflict(ctx context.Context, r record, err error) error {
	switch {
	case violates(err, sqlite3.SQLITE_CONSTRAINT_UNIQUE):
		return errkind.WithHint(errkind.New(api.KindExists, "name %q is taken", r.name),
			"choose another name, or delete the %s that has it; %s", t.noun, t.hint())
	case violates(err, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY):
		return errkind.New(api.KindExists, "id %q is taken", r.id)
	case violates(err, sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY):
		return errkind.WithHint(errkind.New(api.KindNotFound, "its image or kernel is gone"),
			"`banger image list` and `banger kernel list` show what there is")
	}
	return mapError(ctx, err)
}

func (t table[T]) notFound(ref string) error {
	return errkind.WithHint(errkind.New(api.KindNotFound, "no %s %q", t.noun, ref), "%s", t.hint())
}

func (t table[T]) hint() string { return fmt.Sprintf("`%s` shows the %ss there are", t.list, t.noun) }

// ambiguous says that ref is a prefix of several ids.
func ambiguous(noun, ref string, candidates []string) error {
	list := strings.Join(candidates[:min(len(candidates), maxCandidates)], ", ")
	if len(candidates) > maxCandidates {
		list += ", …"
	}
	return errkind.WithHint(errkind.New(api.KindInvalid, "%q is the beginning of more than one %s id: %s", ref, noun, list),
		"give more of the id, or the name")
}

// scanDocs decodes the documents that query, of one column, selects.
func scanDocs[T any](ctx context.Context, q querier, query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var docs [][]byte
	for rows.Next() {
		var doc []byte
		if err := rows.Scan(&doc); err != nil {
			return nil, err
		}
		docs = append(docs, doc)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return decode[T](docs)
}

// decodeChunk is how many documents one goroutine decodes: decoding is most of the time that a list of many takes.
const decodeChunk = 128

func decode[T any](docs [][]byte) ([]T, error) {
	out := make([]T, len(docs))
	var g errgroup.Group
	for first := 0; first < len(docs); first += decodeChunk {
		g.Go(func() error {
			for i := first; i < min(first+decodeChunk, len(docs)); i++ {
				if err := json.Unmarshal(docs[i], &out[i]); err != nil {
					return errkind.New(api.KindDataLoss, "damaged record: %w", err)
				}
			}
			return nil
		})
	}
	return out, g.Wait()
}

// names returns the first column of query's rows, texts.
func names(ctx context.Context, q querier, query string, args ...any) ([]string, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, mapError(ctx, err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, mapError(ctx, err)
		}
		out = append(out, s)
	}
	return out, mapError(ctx, rows.Err())
}
