package sqlite_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog/sqlite"
)

// manyEvents is a log of one event with a type that no other has, the oldest, and n more behind it, which are written by
// SQLite itself.
func manyEvents(t *testing.T, n int) *sqlite.Log {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log.db")
	l := open(t, sqlite.Options{Path: path})
	b := batch(1, noon, 2)
	b.Events[0].Time = noon.Add(-time.Hour)
	b.Events[0].QType = 12
	write(t, l, b)
	addEvents(t, path, n)
	return l
}

// impatient is a context that ends when it was asked for its error that often, and never tells anybody.
type impatient struct{ left atomic.Int64 }

func (*impatient) Deadline() (at time.Time, ok bool) { return at, false }
func (*impatient) Done() <-chan struct{}             { return nil }
func (*impatient) Value(any) any                     { return nil }

func (c *impatient) Err() error {
	if c.left.Add(-1) < 0 {
		return context.DeadlineExceeded
	}
	return nil
}

// Each of these scans all events; a page and the groups find a first row at once and then nothing more, so that the driver
// has no part in it.
func TestAReadEndsWithItsContextHoweverLittleItFinds(t *testing.T) {
	const n = 8_000
	l := manyEvents(t, n)
	rare, none, all := fleet.QueryFilter{QType: "PTR"}, fleet.QueryFilter{Domain: "example", QType: "TYPE999"}, fleet.QueryFilter{}
	for name, read := range map[string]func(ctx context.Context) error{
		"a summary of one event": func(ctx context.Context) error { _, err := l.Summary(ctx, rare, true); return err },
		"a top of one event":     func(ctx context.Context) error { _, err := l.TopDomains(ctx, rare, 10, true); return err },
		"an export of one event": func(ctx context.Context) error { return l.Export(ctx, rare, func(fleet.QueryRow) error { return nil }) },
		"a page of nothing":      func(ctx context.Context) error { _, err := l.Rows(ctx, none, 10, ""); return err },
		"a summary of nothing":   func(ctx context.Context) error { _, err := l.Summary(ctx, none, false); return err },
		"a top of everything":    func(ctx context.Context) error { _, err := l.TopClients(ctx, all, 10, false); return err },
		"a page of everything":   func(ctx context.Context) error { _, err := l.Rows(ctx, all, 10_000, ""); return err },
	} {
		t.Run(name, func(t *testing.T) {
			if err := read(t.Context()); err != nil {
				t.Fatalf("with enough time: got %v", err)
			}
			// Everything before the scan, with some to spare, and not yet all of the scan.
			ctx := new(impatient)
			ctx.left.Store(8)
			if err := read(ctx); !errors.Is(err, fleet.ErrUnavailable) {
				t.Errorf("with a context that ends in between: got %v, want %v", err, fleet.ErrUnavailable)
			}
			late, cancel := context.WithTimeout(t.Context(), time.Microsecond)
			defer cancel()
			if err := read(late); !errors.Is(err, fleet.ErrUnavailable) {
				t.Errorf("with no time: got %v, want %v", err, fleet.ErrUnavailable)
			}
		})
	}
}

// All readers are in the middle of something: that keeps nobody from writing or tidying, and who asks meanwhile waits no
// longer than they want to.
func TestReadersKeepNobodyFromWriting(t *testing.T) {
	now := noon
	l := open(t, sqlite.Options{Path: filepath.Join(t.TempDir(), "log.db"), Retention: day, Now: func() time.Time { return now }})
	write(t, l, batch(1, noon, 10))
	var during func(left int)
	during = func(left int) {
		if left > 0 {
			if err := l.Reading(t.Context(), func() { during(left - 1) }); err != nil {
				t.Error(err)
			}
			return
		}
		for seq := range uint64(20) {
			write(t, l, batch(seq+2, noon.Add(time.Hour), 100))
		}
		now = now.Add(day + time.Minute)
		if err := l.Tidy(t.Context()); err != nil {
			t.Errorf("Tidy: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := l.Summary(ctx, fleet.QueryFilter{}, false); !errors.Is(err, fleet.ErrUnavailable) {
			t.Errorf("one reader too many: got %v, want %v", err, fleet.ErrUnavailable)
		}
	}
	during(sqlite.Readers)
	wantTotal(t, l, fleet.QueryFilter{}, 2000)
}
