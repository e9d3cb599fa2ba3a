// Package querylog keeps what every query was and what became of it, and answers questions about it. An instance's
// recorder collects events, a spool keeps them while the sink is away, and a sink stores them: ClickHouse, SQLite, or a
// primary, which has a sink of its own. Readers break the log down for the web API.
package querylog

import (
	"context"
	"time"

	"dnsfleet/internal/fleet"
)

// Batch is events of one instance on their way to a sink. Its identity goes with it through spool, primaries and retries,
// so that a sink can tell a batch it has from one it has not.
type Batch struct {
	InstanceID string
	BootID     string
	Seq        uint64             // numbers the batches of one boot, from 1
	Events     []fleet.QueryEvent // at least one, all of one UTC day, oldest first
}

// Sink stores batches.
type Sink interface {
	// Write stores the whole batch or nothing. A batch whose (InstanceID, BootID, Seq) was stored before changes nothing and
	// is no error. fleet.ErrInvalid says that the batch can never be stored, any other error that it may be tried again. It
	// may be called concurrently.
	Write(ctx context.Context, b Batch) error
}

// Reader answers questions about the log. Every method waits no longer than its context, may be called concurrently, and
// answers fleet.ErrUnavailable when the log cannot be reached. byInstance fills in Groups, sorted by instance id. A filter's
// window is [From, To). Values of a filter are data: they never become a part of a statement's text.
type Reader interface {
	// Source is the word by which answers name this log: clickhouse or sqlite.
	Source() string
	Summary(ctx context.Context, f fleet.QueryFilter, byInstance bool) (fleet.QuerySummary, error)
	Latency(ctx context.Context, f fleet.QueryFilter, byInstance bool) (fleet.QueryLatency, error)
	// Series has a point for each step that begins in the window, those without queries included.
	Series(ctx context.Context, f fleet.QueryFilter, step time.Duration, byInstance bool) (fleet.QuerySeries, error)
	Upstreams(ctx context.Context, f fleet.QueryFilter, byInstance bool) (fleet.QueryUpstreams, error)
	TopDomains(ctx context.Context, f fleet.QueryFilter, limit int, byInstance bool) (fleet.QueryTop, error)
	TopClients(ctx context.Context, f fleet.QueryFilter, limit int, byInstance bool) (fleet.QueryTop, error)
	// Clients is how many different clients asked.
	Clients(ctx context.Context, f fleet.QueryFilter) (uint64, error)
	// Rows are the newest events first, at most limit. cursor is Next of the page before, "" for the first.
	Rows(ctx context.Context, f fleet.QueryFilter, limit int, cursor string) (fleet.QueryPage, error)
	// Export calls each for every row, oldest first, without holding them all in memory. An error of each ends it.
	Export(ctx context.Context, f fleet.QueryFilter, each func(fleet.QueryRow) error) error
}
