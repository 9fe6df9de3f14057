package store

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// mapError gives an error of SQLite its kind by its result code (https://sqlite.org/rescode.html). Other errors, and those
// that have a kind, pass unchanged.
func mapError(ctx context.Context, err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff { // the low byte is the primary code
	case sqlite3.SQLITE_INTERRUPT:
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%w: %w", err, syscall.ENOSPC)
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return damaged(err)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return errkind.WithHint(errkind.Wrap(api.KindBusy, err), "another program holds the database; close it")
	case sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
		return errkind.WithHint(errkind.Wrap(api.KindPermission, err), "check the owner and mode of the file and its directory")
	}
	return err
}

func damaged(err error) error {
	return errkind.WithHint(errkind.Wrap(api.KindDataLoss, err),
		"stop the daemon, copy the state directory, and restore the database from a backup; what no record claims is removed at start")
}

// violates reports whether err is a violation of the constraint with SQLite's extended result code.
func violates(err error, code int) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code() == code
}
