// Package sqlite is the store that one primary embeds: a single SQLite file in WAL mode. Other processes on the same
// machine, such as the token command, may use the file at the same time; it must not lie on a network share.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store"
	"dnsfleet/migrations"
)

const (
	// busyTimeout is how long a write waits for another process, callTimeout how long a method takes in all.
	busyTimeout = 2500 * time.Millisecond
	callTimeout = 3 * time.Second
	// readers is how many reads go on at once.
	readers = 4
	// migrationsTable is goose's default, which the first files have.
	migrationsTable = "goose_db_version"
)

// Options say where the file is, and how it is used.
type Options struct {
	Path     string        // of the file; it and its folder are made where they are missing
	StatsTTL time.Duration // see store.Options
	History  time.Duration // see store.Options
	// NoMigrate leaves an older schema as it is; then Open fails.
	NoMigrate bool
	// Now is the store's clock. nil = the wall clock at Open, going on by the monotonic clock, so that a step of the wall
	// clock does not move it.
	Now func() time.Time
	Log *slog.Logger // nil discards
}

// Store is a store.Store in a SQLite file. It may be used concurrently.
type Store struct {
	path    string
	minutes *store.MinuteCache
	writer  *sql.DB // one connection; its transactions take the write lock at once
	reader  *sql.DB
	opt     store.Options
	codec   *store.SliceCodec
	now     func() time.Time
	log     *slog.Logger
}

var _ store.Store = (*Store)(nil)

// Open opens the file, makes it where there is none (readable only by its owner), and brings its schema up to date. Two
// processes may do so at once. An error names the file.
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = steadyClock()
	}
	if err := migrations.PrepareSQLite(o.Path); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	codec, err := store.NewSliceCodec()
	if err != nil {
		return nil, err
	}
	s := &Store{
		path: o.Path, codec: codec, minutes: store.NewMinuteCache(codec), now: o.Now, log: o.Log,
		opt: store.Options{StatsTTL: o.StatsTTL, History: o.History}.WithDefaults(),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.writer, err = openDB(o.Path, "immediate"); err != nil {
		return nil, fmt.Errorf("open store %s: %w", o.Path, err)
	}
	s.writer.SetMaxOpenConns(1)
	if s.reader, err = openReader(o.Path, readers); err != nil {
		return nil, fmt.Errorf("open store %s: %w", o.Path, err)
	}
	files, err := fs.Sub(migrations.SQLite, "sqlite")
	if err != nil {
		return nil, err
	}
	schema := migrations.SQLiteSchema{Files: files, Table: migrationsTable, Keep: o.NoMigrate}
	if err := translate(schema.Apply(ctx, o.Path, s.writer), "open"); err != nil {
		return nil, fmt.Errorf("open store %s: %w", o.Path, err)
	}
	return s, nil
}

// steadyClock relies on time.Time carrying a monotonic reading.
func steadyClock() func() time.Time {
	start := time.Now()
	return func() time.Time { return start.Add(time.Since(start)) }
}

func openDB(path, lock string, pragmas ...string) (*sql.DB, error) {
	query := url.Values{"_txlock": {lock}}
	// The time-out comes first, so that the pragmas after it wait for each other's locks.
	query["_pragma"] = append([]string{
		fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()),
		"journal_mode(wal)", "synchronous(normal)", "foreign_keys(1)",
	}, pragmas...)
	full, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	return sql.Open("sqlite", (&url.URL{Scheme: "file", Path: full, RawQuery: query.Encode()}).String())
}

// openReader opens the file for n reads at once.
func openReader(path string, n int) (*sql.DB, error) {
	db, err := openDB(path, "deferred", "query_only(1)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db, nil
}

// Close closes the file.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.reader, s.writer} { // the writer last: it folds the log into the file
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// Now is the clock of this process.
func (s *Store) Now(context.Context) (time.Time, error) { return s.now().UTC(), nil }

// durability says what a write must survive.
type durability bool

const (
	// relaxed survives a crash of the program; a power cut may take the last writes, which the instances send again.
	relaxed durability = false
	// durable survives a power cut too, at the price of a flush to the disk.
	durable durability = true
)

// write runs change in one transaction. While change runs, no other process writes.
func (s *Store) write(ctx context.Context, operation string, d durability, change func(ctx context.Context, tx *sql.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	conn, err := s.writer.Conn(ctx)
	if err != nil {
		return translate(err, operation)
	}
	defer conn.Close() //nolint:errcheck // it only goes back to the pool
	mode := "PRAGMA synchronous = NORMAL"
	if d == durable {
		mode = "PRAGMA synchronous = FULL"
	}
	if _, err := conn.ExecContext(ctx, mode); err != nil {
		return translate(err, operation)
	}
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return translate(err, operation)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing, else the first error counts
	if err := change(ctx, tx); err != nil {
		return translate(err, operation)
	}
	return translate(tx.Commit(), operation)
}

// translate names the operation and turns what SQLite says into the fleet's words: no row is fleet.ErrNotFound; a file
// that is locked, full, unreadable or closed is fleet.ErrUnavailable.
func translate(err error, operation string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("%s: %w", operation, fleet.ErrNotFound)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", operation, err)
	case unavailable(err):
		return fmt.Errorf("%s: %w: %w", operation, fleet.ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", operation, err)
}

func unavailable(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, sql.ErrConnDone) || strings.Contains(err.Error(), "database is closed") {
		return true
	}
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY,
		sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT,
		sqlite3.SQLITE_PERM:
		return true
	}
	return false
}

func toMS(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMS(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
