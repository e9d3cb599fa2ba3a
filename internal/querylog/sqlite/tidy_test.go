package sqlite_test

import (
	"database/sql"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog/sqlite"
)

// Much is deleted while others write and read. Between two pieces whoever waits has a turn, and what was freed is given
// back to the disk.
func TestTidyingHoldsUpNobodyForLong(t *testing.T) {
	const pieces = 5
	path := filepath.Join(t.TempDir(), "log.db")
	var ahead atomic.Int64
	l := open(t, sqlite.Options{Path: path, Retention: day, Now: func() time.Time { return noon.Add(time.Duration(ahead.Load())) }})
	write(t, l, batch(1, noon, 1))
	addEvents(t, path, pieces*sqlite.DeleteChunk)
	before := onDisk(t, path)
	ahead.Store(int64(2 * day))

	ctx := new(impatient) // asked once for the horizon and once for each piece
	ctx.left.Store(1 + 2)
	if err := l.Tidy(ctx); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("Tidy with a context that ends in between: got %v, want %v", err, fleet.ErrUnavailable)
	}
	if got, want := countEvents(t, path), 1+(pieces-2)*sqlite.DeleteChunk; got != want {
		t.Errorf("after two pieces: got %d events, want %d", got, want)
	}
	done := make(chan error, 1)
	go func() { done <- l.Tidy(t.Context()) }()
	var longestWrite, longestRead time.Duration
	writes := 0
	for tidying := true; tidying; writes++ {
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("Tidy: %v", err)
			}
			tidying = false
		default:
		}
		began := time.Now()
		write(t, l, batch(uint64(writes+2), noon.Add(2*day), 20))
		longestWrite = max(longestWrite, time.Since(began))
		began = time.Now()
		if _, err := l.Rows(t.Context(), fleet.QueryFilter{}, 50, ""); err != nil {
			t.Fatalf("Rows: %v", err)
		}
		longestRead = max(longestRead, time.Since(began))
	}
	wantTotal(t, l, fleet.QueryFilter{}, uint64(20*writes))
	after := onDisk(t, path)
	t.Logf("%d events deleted in %d pieces: %d batches written meanwhile, the longest write took %s, the longest read %s; %d KiB on disk before, %d after",
		pieces*sqlite.DeleteChunk, pieces, writes, longestWrite.Round(time.Millisecond), longestRead.Round(time.Millisecond), before/1024, after/1024)

	// What is freed and not given back is used first: the file does not grow with every day that passes.
	for i := range 3 {
		ahead.Add(int64(2 * day))
		write(t, l, batch(uint64(100_000+i), noon.Add(time.Duration(ahead.Load())), 1))
		addEvents(t, path, 2*sqlite.DeleteChunk)
		if err := l.Tidy(t.Context()); err != nil {
			t.Fatalf("Tidy: %v", err)
		}
	}
	if size := sizes(t, path)["log.db"]; size > before {
		t.Errorf("got a file of %d bytes after some days, want at most the %d of the fullest day", size, before)
	}
}

// countEvents is how many events are in the file.
func countEvents(t *testing.T, path string) (n int) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM events").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// addEvents has SQLite itself write n more events like the newest, right behind it. No sums tell of them.
func addEvents(t *testing.T, path string, n int) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, err = db.ExecContext(t.Context(), "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?)"+
		" INSERT INTO events SELECT max_id + i, kind, qtype, client, name, us FROM n, (SELECT max(id) AS max_id, * FROM events)", n)
	if err != nil {
		t.Fatal(err)
	}
}
