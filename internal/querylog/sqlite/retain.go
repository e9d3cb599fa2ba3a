package sqlite

import (
	"context"
	"fmt"
	"time"
)

const (
	tidyEvery   = time.Minute
	deleteChunk = 2000
	vacuumPages = 500
)

// Run deletes what is older than the retention until ctx ends, in small pieces between which others write. It logs what
// keeps it from doing so and tries again.
func (l *Log) Run(ctx context.Context) error {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		if err := l.Tidy(ctx); err != nil && ctx.Err() == nil {
			l.log.WarnContext(ctx, "tidy query log failed", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Tidy deletes what is older than the retention, once, and gives free pages back to the disk.
func (l *Log) Tidy(ctx context.Context) error {
	if l.retention <= 0 {
		return nil
	}
	oldest := l.now().Add(-l.retention).UnixMilli()
	day := dayOf(oldest)
	// First nobody may store events of days that go; then the events go, and after them their words, which nothing needs.
	if err := l.change(ctx, "UPDATE horizon SET day = max(day, ?)", day); err != nil {
		return err
	}
	if err := l.delete(ctx, "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE id < ? ORDER BY id LIMIT ?)", oldest<<idBits); err != nil {
		return err
	}
	for _, table := range []string{"names", "clients", "kinds"} {
		if err := l.delete(ctx, "DELETE FROM "+table+" WHERE id IN (SELECT id FROM "+table+" WHERE day < ? LIMIT ?)", day); err != nil {
			return err
		}
	}
	if err := l.delete(ctx, "DELETE FROM batches WHERE (instance, boot, first) IN (SELECT instance, boot, first FROM batches WHERE day < ? LIMIT ?)", day); err != nil {
		return err
	}
	for _, size := range []int64{minute, hour} { // the one that the oldest event is in stays
		if err := l.delete(ctx, "DELETE FROM rollups WHERE rowid IN (SELECT rowid FROM rollups WHERE size = ? AND start < ? LIMIT ?)", size, oldest/1000-size+1); err != nil {
			return err
		}
	}
	return l.vacuum(ctx)
}

// delete runs a statement, whose last argument is how many rows it may delete, until nothing is left to delete.
func (l *Log) delete(ctx context.Context, text string, args ...any) error {
	for {
		n, err := l.changed(ctx, text, append(args[:len(args):len(args)], int64(deleteChunk))...)
		if err != nil || n < deleteChunk {
			return err
		}
	}
}

// vacuum gives pages back until none is free that could be, but for a few that are used again soon.
func (l *Log) vacuum(ctx context.Context) error {
	for {
		free := int64(0)
		err := l.write(ctx, func(w *writer) (err error) {
			if free, _, err = w.number(ctx, "PRAGMA freelist_count"); err != nil || free < 2*vacuumPages {
				return err
			}
			_, err = w.exec(ctx, fmt.Sprintf("PRAGMA incremental_vacuum(%d)", vacuumPages))
			return err
		})
		if err != nil || free < 2*vacuumPages {
			return l.fail("tidy", err)
		}
	}
}

func (l *Log) change(ctx context.Context, text string, args ...any) error {
	_, err := l.changed(ctx, text, args...)
	return err
}

func (l *Log) changed(ctx context.Context, text string, args ...any) (n int64, err error) {
	err = l.write(ctx, func(w *writer) error {
		return w.transact(ctx, func(ctx context.Context) error {
			done, err := w.exec(ctx, text, args...)
			if err != nil {
				return err
			}
			n, err = done.RowsAffected()
			return err
		})
	})
	return n, l.fail("tidy", err)
}
