package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"

	"dnsfleet/internal/fleet"
)

// visitor takes what a question finds, in the order of time. Either may be called for the same instant: rollups hold
// what lies between the ragged ends of a window, events the ends.
type visitor interface {
	event(ms int64, k *kind, us int64)
	period(ms int64, instance string, p *period)
}

// need says which columns of a rollup are read.
type need int

const (
	needOutcomes need = iota
	needLatency
	needUpstreams
)

var rollupColumns = map[need]string{
	needOutcomes:  "outcomes, us, NULL, NULL",
	needLatency:   "outcomes, us, latency, NULL",
	needUpstreams: "NULL, 0, NULL, upstreams",
}

// visit answers a question by rollups of at most coarsest seconds where it can, and by events elsewhere. 0 = by events.
func (q *question) visit(ctx context.Context, c *conn, coarsest int64, n need, v visitor) error {
	if q.empty() {
		return nil
	}
	if q.Filtered() {
		coarsest = 0
	}
	return q.visitSpan(ctx, c, q.from, q.to, coarsest, n, v)
}

func (q *question) visitSpan(ctx context.Context, c *conn, from, to, size int64, n need, v visitor) error {
	if from >= to {
		return nil
	}
	if size == 0 {
		return q.visitEvents(ctx, c, from, to, v)
	}
	finer := int64(0)
	if size == hour {
		finer = minute
	}
	ms := size * 1000
	first, end := (from+ms-1)/ms*ms, to/ms*ms
	if first >= end {
		return q.visitSpan(ctx, c, from, to, finer, n, v)
	}
	if err := q.visitSpan(ctx, c, from, first, finer, n, v); err != nil {
		return err
	}
	if err := q.visitRollups(ctx, c, size, first, end, n, v); err != nil {
		return err
	}
	return q.visitSpan(ctx, c, end, to, finer, n, v)
}

func (q *question) visitRollups(ctx context.Context, c *conn, size, from, to int64, n need, v visitor) error {
	text := "SELECT start, instance, " + rollupColumns[n] + " FROM rollups WHERE size = ? AND start >= ? AND start < ? ORDER BY start, instance"
	return c.query(ctx, text, []any{size, from / 1000, to / 1000}, func(row []driver.Value) error {
		instance := textOf(row[1])
		if !isOf(&q.QueryFilter, instance) {
			return nil
		}
		p, err := readPeriod(row[2], row[3], row[4], row[5])
		if err != nil {
			return fmt.Errorf("read the sums of %s: %w", instance, err)
		}
		v.period(integer(row[0])*1000, instance, p)
		return nil
	})
}

func (q *question) visitEvents(ctx context.Context, c *conn, from, to int64, v visitor) error {
	return q.events(ctx, c, "id, kind, us", from, to, func(row []driver.Value) error {
		k, err := q.kind(row[1])
		if err != nil {
			return err
		}
		v.event(integer(row[0])>>idBits, k, integer(row[2]))
		return nil
	})
}

func (q *question) kind(id driver.Value) (*kind, error) {
	k := q.kinds[integer(id)]
	if k == nil {
		return nil, fmt.Errorf("%w: an event has no words", fleet.ErrUnavailable)
	}
	return k, nil
}
