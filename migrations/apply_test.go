package migrations_test

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"

	_ "modernc.org/sqlite"

	"dnsfleet/migrations"
)

func open(t *testing.T, path string) *sql.DB {
	t.Helper()
	if err := migrations.PrepareSQLite(path); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func files(t *testing.T, names ...string) fs.FS {
	t.Helper()
	all := fstest.MapFS{}
	for _, name := range names {
		all["000"+name+"_table.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\nCREATE TABLE t" + name + " (n INTEGER);\n")}
	}
	return all
}

func apply(t *testing.T, path string, db *sql.DB, keep bool, names ...string) error {
	t.Helper()
	return migrations.SQLiteSchema{Files: files(t, names...), Table: "versions", Keep: keep}.Apply(t.Context(), path, db)
}

func TestASchemaThatIsKeptIsNeverBehindUnnoticed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "a.db")
	db := open(t, path)
	if err := apply(t, path, db, true, "1"); !errors.Is(err, migrations.ErrBehind) {
		t.Errorf("an empty file: got %v, want %v", err, migrations.ErrBehind)
	}
	for range 2 {
		if err := apply(t, path, db, false, "1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := apply(t, path, db, true, "1"); err != nil {
		t.Errorf("a file that is up to date: got %v", err)
	}
	if err := apply(t, path, db, true, "1", "2"); !errors.Is(err, migrations.ErrBehind) {
		t.Errorf("a file of an older release: got %v, want %v", err, migrations.ErrBehind)
	}
	if _, err := db.ExecContext(t.Context(), "INSERT INTO t2 VALUES (1)"); err == nil {
		t.Error("got the new table, want the schema left as it was")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v, want a file for its owner only", info.Mode(), err)
	}
}

func TestTwoThatFillAnEmptyFileAtOnceDoItOnce(t *testing.T) {
	for range 5 {
		path := filepath.Join(t.TempDir(), "a.db")
		var both sync.WaitGroup
		for range 2 {
			db := open(t, path)
			both.Go(func() {
				if err := apply(t, path, db, false, "1", "2", "3"); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
	}
}

func TestAWaitForTheLockEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	db := open(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := migrations.SQLiteSchema{Files: files(t, "1"), Table: "versions"}.Apply(ctx, path, db)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func TestWhatIsEmbeddedIsThere(t *testing.T) {
	for folder, from := range map[string]fs.FS{"sqlite": migrations.SQLite, "sqlitelog": migrations.SQLiteLog, "clickhouse": migrations.ClickHouse} {
		found, err := fs.Glob(from, folder+"/*.sql")
		if err != nil || len(found) == 0 {
			t.Errorf("%s: got %v, %v, want numbered SQL", folder, found, err)
		}
	}
}
