// Package store keeps banger's records in one SQLite file: VMs, images, kernels and operations. It holds intent, and every
// name that a clean-up needs; what is true now (pids, sockets) is in handle files elsewhere and is never stored here.
//
// # Records
//
// A record is a row of a few indexed columns and one JSON document, which is the whole record; package banger owns its
// shape. A reference given by a user is a name, an id, or a prefix that only one id has, and the name wins.
//
// # Durability
//
// A method that returns without an error has its change on the disk: the write-ahead log is synced at every commit
// (synchronous=FULL). The cheaper NORMAL may forget the last commits when the power fails; a VM whose row is forgotten
// looks like leftover files, and leftovers are removed at daemon start, the user's data with them.
//
// # Concurrency
//
// All methods may be called concurrently. There is one connection that writes, in transactions that take SQLite's write
// lock at their start (BEGIN IMMEDIATE), so that nothing read in one changes before it commits; readers have their own
// connections, see the last commit, and never wait for the writer. A function given to an update method runs inside the
// write transaction: it only changes the record it is given, and must not call the store.
//
// # Events
//
// A change that others may want to know of is stored together with the event that tells it ([api.Event]): so events are in
// the order of the changes, none is missing, and none tells of what was rolled back. The latest ten thousand are remembered.
//
// # Migrations
//
// The files of migrations/ are applied in the order of their numbers, each in a transaction of its own, and
// PRAGMA user_version is the number of the last one. Published files are never edited. A database from a newer banger is
// refused.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // registers the driver "sqlite"
)

// readers is how many connections read; vm list and the pollers of a handful of clients need no more.
const readers = 4

// Store is an open database. See the package comment for what its methods promise.
type Store struct {
	write *sql.DB // one connection
	read  *sql.DB // any number, query only
	fresh bool
	bell  bell // rung when events were stored
}

// Open opens the database at path, which it creates (mode 0600) and migrates as needed. The directory must exist. A file
// of a newer banger is an error of kind precondition; one that is damaged, or no database, is of kind data-loss.
func Open(ctx context.Context, path string) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := createPrivate(path); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	s := &Store{}
	if s.write, err = connect(path, "immediate", 1); err == nil {
		s.fresh, err = migrate(ctx, s.write, migrations())
	}
	if err == nil {
		s.read, err = connect(path, "deferred", readers, "query_only(1)")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", path, mapError(ctx, err)), s.Close())
	}
	return s, nil
}

// createPrivate makes sure that path is a regular file that only its owner can read. SQLite gives the files beside it
// (-wal, -shm) the same mode.
func createPrivate(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Close())
}

// connect returns a pool of at most n connections. It does no I/O; a connection is opened by its first use.
func connect(path, txlock string, n int, pragmas ...string) (*sql.DB, error) {
	q := url.Values{"_txlock": {txlock}, "_pragma": append([]string{
		"busy_timeout(10000)", // a second program (a backup, sqlite3) may hold the lock for a moment
		"journal_mode(WAL)",
		"synchronous(FULL)",
		"foreign_keys(1)",
	}, pragmas...)}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db, nil
}

// Close closes the database after the calls in progress. The last connection's end folds the write-ahead log into the
// file.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// Fresh reports whether Open made the database. Then the absence of a record proves nothing about files that are there: the
// database may have been lost.
func (s *Store) Fresh() bool { return s.fresh }

// querier is what *sql.DB and *sql.Tx have in common.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// inTx runs fn in a transaction that is committed when fn returns nil and rolled back otherwise, also when fn panics.
func inTx(ctx context.Context, db *sql.DB, fn func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after Commit it does nothing
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// Check has SQLite look at the whole file (PRAGMA quick_check). What it finds is of kind data-loss.
func (s *Store) Check(ctx context.Context) error {
	found, err := names(ctx, s.read, "PRAGMA quick_check(10)")
	if err != nil || len(found) == 1 && found[0] == "ok" {
		return err
	}
	return damaged(errors.New(strings.Join(found, "; ")))
}
