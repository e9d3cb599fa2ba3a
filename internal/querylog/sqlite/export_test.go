package sqlite

import (
	"context"
	"fmt"

	"dnsfleet/internal/fleet"
)

// LimitPages lets the file grow no further than n pages, or what it has: a disk that is full.
func (l *Log) LimitPages(ctx context.Context, n int) error {
	return l.write(ctx, func(w *writer) error {
		_, err := w.exec(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", n))
		return err
	})
}

// RecodeRollup reads the binary form of a rollup's upstreams and outcomes and writes it again.
func RecodeRollup(upstreams, outcomes []byte) (upstreamsAgain, outcomesAgain []byte, err error) {
	m := upstreamTallies{}
	if err := m.readBinary(upstreams); err != nil {
		return nil, nil, err
	}
	var o fleet.Outcomes
	if err := readOutcomes(outcomes, &o); err != nil {
		return nil, nil, err
	}
	upstreamsAgain, err = m.appendBinary(nil)
	return upstreamsAgain, appendOutcomes(nil, o), err
}

// NumberFrom begins to number events at n.
func (l *Log) NumberFrom(ctx context.Context, n int64) error {
	return l.write(ctx, func(w *writer) error {
		w.next = n
		return nil
	})
}

// Reading runs do while one of the log's readers is taken and sees the state that the file has now.
func (l *Log) Reading(ctx context.Context, do func()) error {
	return l.read(ctx, "test", func(c *conn) error {
		if _, _, err := c.number(ctx, "SELECT max(id) FROM events"); err != nil { // only now its view is fixed
			return err
		}
		do()
		return nil
	})
}

// Readers is how many questions are answered at once, and DeleteChunk how many rows go in one piece.
const (
	Readers     = readers
	DeleteChunk = deleteChunk
)
