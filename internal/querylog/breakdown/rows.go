package breakdown

import (
	"context"
	"errors"
	"iter"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
)

// Rows is a page of the log, newest first; see querylog.Reader. Where there is no log it is empty, and Enabled is false.
func (b *Breakdown) Rows(ctx context.Context, f fleet.QueryFilter, limit int, cursor string) (fleet.QueryPage, fleet.QueryAnswer, error) {
	if b.o.Reader == nil {
		return fleet.QueryPage{Rows: []fleet.QueryRow{}}, b.aboutNothing(f), nil
	}
	page, about, err := ask(ctx, b, question[fleet.QueryPage]{
		filter: f,
		log: func(ctx context.Context, log querylog.Reader) (fleet.QueryPage, error) {
			return log.Rows(ctx, f, limit, cursor)
		},
	})
	page.Rows = orEmpty(page.Rows)
	return page, about, err
}

// Export are all rows, oldest first, read while they are ranged over, once. An error is the last that is told, and means that rows
// are missing. Nothing but ctx bounds the time. Where there is no log there are no rows, and Enabled is false.
func (b *Breakdown) Export(ctx context.Context, f fleet.QueryFilter) (fleet.QueryAnswer, iter.Seq2[fleet.QueryRow, error]) {
	if b.o.Reader == nil {
		return b.aboutNothing(f), func(func(fleet.QueryRow, error) bool) {}
	}
	_, unlogged := b.wanted(f)
	return b.aboutLog(f, unlogged), func(yield func(fleet.QueryRow, error) bool) {
		enough := false
		err := b.o.Reader.Export(ctx, f, func(row fleet.QueryRow) error {
			if enough = enough || !yield(row, nil); enough {
				return errEnough
			}
			return nil
		})
		if err != nil && !enough {
			yield(fleet.QueryRow{}, unavailable(ctx, err))
		}
	}
}

// errEnough ends an export whose rows nobody wants any more.
var errEnough = errors.New("enough")
