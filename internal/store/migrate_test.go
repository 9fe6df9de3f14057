package store

import (
	"context"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

func TestMigrations(t *testing.T) {
	ctx := t.Context()
	exec := func(t *testing.T, path, statement string) {
		t.Helper()
		db, err := connect(path, "immediate", 1)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.ExecContext(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	open := func(path string) error {
		s, err := Open(ctx, path)
		if err == nil {
			s.Close()
		}
		return err
	}

	t.Run("a database of a newer banger is refused with words", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x.db")
		if err := open(path); err != nil {
			t.Fatal(err)
		}
		exec(t, path, "PRAGMA user_version = 99")
		err := open(path)
		if !errkind.Is(err, api.KindPrecondition) || !strings.Contains(err.Error(), "version 99") || errkind.Hint(err) == "" {
			t.Errorf("got %v, hint %q", err, errkind.Hint(err))
		}
	})
	t.Run("another program's database is refused and left alone", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x.db")
		exec(t, path, "CREATE TABLE bookmarks (a)")
		if err := open(path); !errkind.Is(err, api.KindPrecondition) {
			t.Errorf("got %v", err)
		}
		exec(t, path, "INSERT INTO bookmarks VALUES (1)")
	})
	t.Run("each is applied once, and one that fails is undone", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x.db")
		db, err := connect(path, "immediate", 1)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		first := "PRAGMA application_id = 0x62616e67; CREATE TABLE one (a) STRICT;"
		files := fstest.MapFS{
			"0001_a.sql": {Data: []byte(strings.Replace(first, "(a)", "(a TEXT)", 1))},
			"0002_b.sql": {Data: []byte("CREATE TABLE two (a TEXT) STRICT; CREATE TABLE oops (")},
		}
		if _, err := migrate(ctx, db, files); err == nil || !strings.Contains(err.Error(), "0002_b.sql") {
			t.Fatalf("got %v", err)
		}
		if v, err := checkFile(ctx, db, 2); v != 1 || err != nil {
			t.Fatalf("version %d, %v", v, err)
		}
		files["0002_b.sql"] = &fstest.MapFile{Data: []byte("CREATE TABLE two (a TEXT) STRICT;")}
		for range 2 {
			if _, err := migrate(ctx, db, files); err != nil {
				t.Fatal(err)
			}
		}
		if v, err := checkFile(ctx, db, 2); v != 2 || err != nil {
			t.Errorf("version %d, %v", v, err)
		}
	})
	t.Run("a database from before guests had addresses keeps its VMs, and gives them none", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x.db")
		db, err := connect(path, "immediate", 1)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		old := fstest.MapFS{}
		for _, name := range []string{"0001_records.sql", "0002_events.sql"} {
			text, err := fs.ReadFile(migrations(), name)
			if err != nil {
				t.Fatal(err)
			}
			old[name] = &fstest.MapFile{Data: text}
		}
		if _, err := migrate(ctx, db, old); err != nil {
			t.Fatal(err)
		}
		exec(t, path, `INSERT INTO vm (id, name, created, doc) VALUES ('a', 'a', 0, '{"id":"a","name":"a","state":"created"}'),
			('b', 'b', 0, '{"id":"b","name":"b","state":"created"}')`)
		s, err := Open(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		vms, err := s.ListVMs(ctx)
		if err != nil || len(vms) != 2 || vms[0].Address.IsValid() || vms[1].Address.IsValid() {
			t.Errorf("VMs %+v %v", vms, err)
		}
	})
	t.Run("a gap in the numbers is a defect", func(t *testing.T) {
		db, err := connect(filepath.Join(t.TempDir(), "x.db"), "immediate", 1)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := migrate(ctx, db, fstest.MapFS{"0002_b.sql": {}}); !errkind.Is(err, api.KindInternal) {
			t.Errorf("got %v", err)
		}
	})
}

func TestConnections(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "x.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1"} {
		var got string
		if err := s.write.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q, want %q (%v)", pragma, got, want, err)
		}
	}
	if _, err := s.read.ExecContext(context.Background(), "DELETE FROM vm"); err == nil {
		t.Error("a reader could write")
	}
}

func TestDamagedRecord(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "x.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.write.ExecContext(t.Context(), `INSERT INTO vm (id, name, created, doc) VALUES ('a', 'a', 0, '{"state":"odd"}')`); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ListVMs(t.Context()); !errkind.Is(err, api.KindDataLoss) {
		t.Errorf("got %v", err)
	}
}
