package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// applicationID marks a SQLite file as banger's: "bang" in ASCII, set by the first migration (PRAGMA application_id).
const applicationID = 0x62616e67

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migrations returns the embedded files, whose names are NNNN_WHAT.sql.
func migrations() fs.FS {
	sub, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		panic(err) // the directory is embedded above
	}
	return sub
}

// migrate brings the database to the version of the last file in files, and reports whether it was empty before. It changes
// nothing when it fails, but for the migrations before the one that failed.
func migrate(ctx context.Context, db *sql.DB, files fs.FS) (fresh bool, err error) {
	entries, err := fs.ReadDir(files, ".") // sorted by name
	if err != nil {
		return false, err
	}
	version, err := checkFile(ctx, db, len(entries))
	if err != nil {
		return false, err
	}
	for i, e := range entries {
		number, _, _ := strings.Cut(e.Name(), "_")
		if n, err := strconv.Atoi(number); err != nil || n != i+1 {
			return false, errkind.New(api.KindInternal, "migration %s is not number %d", e.Name(), i+1)
		}
		if i < version {
			continue
		}
		text, err := fs.ReadFile(files, e.Name())
		if err != nil {
			return false, err
		}
		err = inTx(ctx, db, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, string(text)+fmt.Sprintf("\nPRAGMA user_version = %d;", i+1))
			return err
		})
		if err != nil {
			return false, fmt.Errorf("migration %s: %w", e.Name(), err)
		}
	}
	return version == 0, nil
}

// checkFile returns the database's version, and refuses files that are not banger's or are of a version above known.
func checkFile(ctx context.Context, db *sql.DB, known int) (int, error) {
	var version, application, tables int
	err := db.QueryRowContext(ctx, `SELECT user_version, application_id, (SELECT count(*) FROM sqlite_schema)
		FROM pragma_user_version, pragma_application_id`).Scan(&version, &application, &tables)
	switch {
	case err != nil:
		return 0, err
	case application != applicationID && (version != 0 || tables != 0):
		return 0, errkind.WithHint(errkind.New(api.KindPrecondition, "the file is another program's database"),
			"move it away, or point BANGER_ROOT to another directory")
	case version > known:
		return 0, errkind.WithHint(
			errkind.New(api.KindPrecondition, "the database is of a newer banger (version %d; this one knows %d)", version, known),
			"upgrade banger, or point BANGER_ROOT to another directory to use this one beside it")
	}
	return version, nil
}
