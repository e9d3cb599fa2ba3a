package sqlite

import (
	"context"
	"database/sql"
	"time"

	"dnsfleet/internal/fleet"
)

// watchEvery is how often the file is asked whether somebody wrote to it. The question reads no page.
const watchEvery = 200 * time.Millisecond

// Kinds of change, as the table changes has them.
const (
	changedInstance = "instance"
	changedTokens   = "tokens"
	changedPolicy   = "policy"
)

// changed notes a change for Watch, in this process and in others.
func changed(ctx context.Context, tx *sql.Tx, kind, key string) error {
	_, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO changes (kind, key, seq)
		VALUES (?, ?, (SELECT coalesce(max(seq), 0) + 1 FROM changes))`, kind, key)
	return err
}

// Watch is part of store.Store. It sees this process's changes the same way as another's.
func (s *Store) Watch(ctx context.Context, hint func(fleet.Hint)) error {
	w := watcher{store: s, hint: hint}
	defer w.drop()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		if err := w.look(ctx); err != nil && ctx.Err() == nil {
			s.log.DebugContext(ctx, "watch store failed", "path", s.path, "err", err)
			w.drop()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// watcher has a connection of its own, because data_version is news only to the connection that asks.
type watcher struct {
	store   *Store
	hint    func(fleet.Hint)
	db      *sql.DB
	version int64
	seq     int64
}

func (w *watcher) drop() {
	if w.db != nil {
		w.db.Close() //nolint:errcheck // it only read
		w.db = nil
	}
}

func (w *watcher) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if w.db == nil {
		db, err := openReader(w.store.path, 1)
		if err != nil {
			return err
		}
		w.db = db
		if err := db.QueryRowContext(ctx, `SELECT coalesce(max(seq), 0) FROM changes`).Scan(&w.seq); err != nil {
			return err
		}
		w.hint(fleet.Hint{}) // what happened before is unknown
	}
	var version int64
	if err := w.db.QueryRowContext(ctx, `PRAGMA data_version`).Scan(&version); err != nil {
		return err
	}
	if version == w.version {
		return nil
	}
	w.version = version
	return w.tell(ctx)
}

// tell gives a hint for each change since the last one that was told.
func (w *watcher) tell(ctx context.Context) error {
	rows, err := w.db.QueryContext(ctx, `SELECT kind, key, seq FROM changes WHERE seq > ? ORDER BY seq`, w.seq)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // Err tells all
	for rows.Next() {
		var kind, key string
		if err := rows.Scan(&kind, &key, &w.seq); err != nil {
			return err
		}
		switch kind {
		case changedInstance:
			w.hint(fleet.Hint{InstanceID: key})
		case changedTokens:
			w.hint(fleet.Hint{Tokens: true})
		case changedPolicy:
			w.hint(fleet.Hint{Policy: true})
		}
	}
	return rows.Err()
}
