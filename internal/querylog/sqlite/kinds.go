package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"
	"sync"

	"dnsfleet/internal/fleet"
)

// kind is a row of the dictionary that says all of an event which has few values.
type kind struct {
	id, day                            int64
	instance, protocol, upstream, list string
	outcome                            fleet.Outcome
	rcode                              int
}

// kindBook is the dictionary of kinds as far as it was read, so that a question reads only what is new. A kind never
// changes and its number is not given to another, so a book that is newer than what a question sees does no harm.
type kindBook struct {
	mu   sync.Mutex // guards the following
	last int64      // the highest number that was read
	days map[int64][]*kind
}

// learn reads what was added since, and forgets days that nothing is left of.
func (b *kindBook) learn(ctx context.Context, c *conn) error {
	b.mu.Lock()
	last := b.last
	b.mu.Unlock()
	horizon, _, err := c.number(ctx, "SELECT day FROM horizon")
	if err != nil {
		return err
	}
	var added []*kind
	err = c.query(ctx, "SELECT id, day, instance, protocol, outcome, rcode, upstream, list FROM kinds WHERE id > ? ORDER BY id", []any{last}, func(row []driver.Value) error {
		k := &kind{
			id: integer(row[0]), day: integer(row[1]), instance: textOf(row[2]), protocol: textOf(row[3]), outcome: fleet.Outcome(integer(row[4])),
			rcode: int(integer(row[5])), upstream: textOf(row[6]), list: textOf(row[7]),
		}
		if int(k.outcome) >= fleet.NumOutcomes {
			return fmt.Errorf("%w: outcome %d is unknown to this version", fleet.ErrUnavailable, k.outcome)
		}
		added = append(added, k)
		return nil
	})
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range added {
		if k.id > b.last { // nobody else was quicker
			b.last = k.id
			b.days[k.day] = append(b.days[k.day], k)
		}
	}
	for day := range b.days {
		if day < horizon {
			delete(b.days, day)
		}
	}
	return nil
}

// find is the kinds of the days from first to last that a filter lets through, of how many that is the part, and the
// days that have any, in order.
func (b *kindBook) find(f *fleet.QueryFilter, first, last int64) (found map[int64]*kind, all int, days []int64) {
	found = map[int64]*kind{}
	b.mu.Lock()
	defer b.mu.Unlock()
	for day, kinds := range b.days {
		if day < first || day > last {
			continue
		}
		days = append(days, day)
		all += len(kinds)
		for _, k := range kinds {
			if isOf(f, k.instance) && (len(f.Outcomes) == 0 || slices.Contains(f.Outcomes, k.outcome)) && (f.Upstream == "" || f.Upstream == k.upstream) {
				found[k.id] = k
			}
		}
	}
	slices.Sort(days)
	return found, all, days
}

// isOf reports whether a filter lets an instance through.
func isOf(f *fleet.QueryFilter, id string) bool {
	return len(f.Instances) == 0 || slices.Contains(f.Instances, id)
}
