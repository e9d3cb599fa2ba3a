// Package sqlite is the query log that one primary embeds: a SQLite file in WAL mode. Events are rows of five numbers;
// names, clients and the rest are in dictionaries, and sums per minute and hour are kept beside them, so that charts do not
// read events. Several processes of one machine may use the file at once; it must not lie on a network share.
//
// An event takes some 27 bytes, its part of words and sums included, so that a box with 100 queries/s keeps a week in
// 1.6 GB; only the retention bounds the file. What is deleted is given back to the disk but for 4 MB. The write-ahead log
// beside the file has some 10 MB; while a read goes on it grows with all that is written, and shrinks afterwards.
//
// What Write has stored survives a crash of the program; a power cut may take what the operating system has not written
// yet, usually the last half minute.
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
	"sync"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	"dnsfleet/migrations"
)

const (
	// busyTimeout is how long a write waits for another process.
	busyTimeout = 2500 * time.Millisecond
	// readers is how many questions are answered at once.
	readers = 4
	// migrationsTable is not goose's default, so that store and log could share a file.
	migrationsTable = "querylog_migrations"
)

// Options say where the file is, and how much is kept.
type Options struct {
	Path      string        // of the file; it and its folder are made where they are missing
	Retention time.Duration // events older than this are neither told nor kept; 0 keeps all
	// NoMigrate leaves an older schema as it is; then Open fails.
	NoMigrate bool
	Now       func() time.Time // nil = time.Now
	Log       *slog.Logger     // nil discards
}

// Log is a querylog.Sink and a querylog.Reader in a SQLite file. It may be used concurrently.
type Log struct {
	path      string
	retention time.Duration
	now       func() time.Time
	log       *slog.Logger

	keepSchema bool

	writer  chan *writer // holds the one writer while nobody writes
	readers chan *conn   // holds the connections that nobody reads with
	kinds   kindBook

	hasWriter bool // was it opened
	opened    int  // how many readers were opened
	closing   sync.Once
	closed    chan struct{}
	closeErr  error
}

var (
	_ querylog.Sink   = (*Log)(nil)
	_ querylog.Reader = (*Log)(nil)
)

// Open opens the file, makes it where there is none (readable only by its owner), and brings its schema up to date. Two
// processes may do so at once. It starts nothing: Run keeps the file small. An error names the file.
func Open(ctx context.Context, o Options) (*Log, error) {
	l := &Log{
		path: o.Path, retention: o.Retention, now: o.Now, log: o.Log, keepSchema: o.NoMigrate,
		writer: make(chan *writer, 1), readers: make(chan *conn, readers), closed: make(chan struct{}),
		kinds: kindBook{days: map[int64][]*kind{}},
	}
	if l.now == nil {
		l.now = time.Now
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if err := l.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open query log %s: %w", o.Path, err), l.Close())
	}
	return l, nil
}

func (l *Log) open(ctx context.Context) error {
	if err := migrations.PrepareSQLite(l.path); err != nil {
		return err
	}
	if err := l.migrate(ctx); err != nil {
		return err
	}
	w, err := l.newWriter()
	if err != nil {
		return translate(err)
	}
	l.writer <- w
	l.hasWriter = true
	for range readers {
		c, err := openConn(l.path, "query_only(1)")
		if err != nil {
			return translate(err)
		}
		l.readers <- c
		l.opened++
	}
	return nil
}

func dataSource(path string, pragmas ...string) (string, error) {
	full, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	// The time-out comes first, so that the pragmas after it wait for each other's locks. Vacuuming has to be chosen
	// before there is a table.
	query := url.Values{"_pragma": append([]string{
		fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()),
		"auto_vacuum(incremental)", "journal_mode(wal)", "synchronous(normal)",
		"journal_size_limit(67108864)", "wal_autocheckpoint(2000)", "temp_store(memory)",
	}, pragmas...)}
	return (&url.URL{Scheme: "file", Path: full, RawQuery: query.Encode()}).String(), nil
}

// migrate brings the file to its schema.
func (l *Log) migrate(ctx context.Context) (err error) {
	source, err := dataSource(l.path)
	if err != nil {
		return err
	}
	db, err := sql.Open("sqlite", source)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	files, err := fs.Sub(migrations.SQLiteLog, "sqlitelog")
	if err != nil {
		return err
	}
	return translate(migrations.SQLiteSchema{Files: files, Table: migrationsTable, Keep: l.keepSchema}.Apply(ctx, l.path, db))
}

// Close waits for calls that go on and closes the file. Later calls are answered with fleet.ErrUnavailable. It may be called
// again.
func (l *Log) Close() error {
	l.closing.Do(func() {
		close(l.closed)
		var errs []error
		for range l.opened {
			errs = append(errs, (<-l.readers).close())
		}
		if l.hasWriter { // last: it folds the write-ahead log into the file
			errs = append(errs, (<-l.writer).close())
		}
		l.closeErr = errors.Join(errs...)
	})
	return l.closeErr
}

// Source is "sqlite".
func (l *Log) Source() string { return "sqlite" }

// fail names the operation and the file.
func (l *Log) fail(operation string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: query log %s: %w", operation, l.path, translate(err))
}

// errClosed is told by a log that was closed.
var errClosed = fmt.Errorf("%w: query log is closed", fleet.ErrUnavailable)

// translate turns what SQLite says into the fleet's words: a file that is locked, full, unreadable or broken is
// fleet.ErrUnavailable, and so is an answer that took longer than its deadline.
func translate(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
	}
	var e *sqlite.Error
	if !errors.As(err, &e) || errors.Is(err, fleet.ErrUnavailable) {
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("%w: the file is damaged or no SQLite file; move it away to start with an empty one: %w", fleet.ErrUnavailable, err)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY,
		sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_PERM:
		return fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
	}
	return err
}
