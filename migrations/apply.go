package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pressly/goose/v3"
)

// ErrBehind says that a schema is older than this program, which was told not to change it.
var ErrBehind = errors.New("the schema is older than this program: run dnsfleet migrate, or set DNSFLEET_MIGRATE=auto")

const lockPoll = 20 * time.Millisecond

// PrepareSQLite makes the file and its folder where they are missing, readable only by their owner. SQLite itself would make
// the file readable by everybody; it gives its side files the same mode.
func PrepareSQLite(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// SQLiteSchema is what a file is brought to.
type SQLiteSchema struct {
	Files fs.FS // numbered SQL
	Table string
	// Keep leaves an older schema as it is, as ErrBehind.
	Keep bool
}

// Apply brings the file at path, which db has open, to the schema. It holds a lock on the file's folder, because two
// processes that find an empty file would both fill it.
func (s SQLiteSchema) Apply(ctx context.Context, path string, db *sql.DB) error {
	unlock, err := lockFolder(ctx, filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unlock()
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, s.Files, goose.WithDisableGlobalRegistry(true), goose.WithTableName(s.Table))
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if !s.Keep {
		if _, err = provider.Up(ctx); err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
		return nil
	}
	behind, err := provider.HasPending(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("look at the schema: %w", err)
	case behind:
		return ErrBehind
	}
	return nil
}

func lockFolder(ctx context.Context, dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, ctx.Err()), f.Close())
		}
	}
}
