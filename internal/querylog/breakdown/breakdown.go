// Package breakdown answers questions about a fleet's queries. It joins the query log that a primary reads with the slices
// that instances push: the log knows everything of the instances that write to it, slices know counts, latencies, upstreams
// and tops of all. An answer comes from one of the two, never from both, because quantiles and tops of a log cannot be merged
// with those of slices; it says from which, and what it does not cover.
package breakdown

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
)

// sourceReports is the word by which answers name what instances push.
const sourceReports = "reports"

// logOff is the name of no log; see fleet.Report.QueryLog.
const logOff = "off"

// Member is an instance of the fleet.
type Member struct {
	ID, Name     string
	Primary, DNS bool            // who answers no DNS has no queries, and is missing nowhere
	QueryLog     string          // where its events go, see fleet.Report.QueryLog; "" = not known, taken for the log that is read here
	LastHour     *fleet.LastHour // nil where it has none, or does not tell
}

// Options are what a Breakdown is made of.
type Options struct {
	Reader querylog.Reader // nil = no log is read here
	// LogID tells the log's name as members' QueryLog has it, "" while it is not known. It must not block. nil with a Reader:
	// every member's events are in the log.
	LogID func() string
	// Slices are an instance's slices of one size that start in [from, to), by start, as the store keeps them.
	Slices func(ctx context.Context, instanceID string, size fleet.Size, from, to time.Time) ([]fleet.Slice, error)
	// Members are all instances as they are known now. It must not block, and what it returns must not change afterwards.
	Members func() []Member

	Now       func() time.Time // the clock by which slices and events are timed; nil = time.Now
	Retention time.Duration    // how long the log keeps events; 0 = for ever
	History   time.Duration    // how long the store keeps slices
	// LogTimeout is how long a question waits for the log before it is put to the slices; 0 = seven seconds.
	LogTimeout time.Duration
	Log        *slog.Logger // nil = nothing is logged
}

// defaultLogTimeout leaves slices some time of the ten seconds that an answer may take.
const defaultLogTimeout = 7 * time.Second

// Breakdown answers questions. It may be used concurrently.
//
// Each method gives, beside its answer, what this stands on, also with an error. Errors are fleet.ErrInvalid for a question
// that cannot be answered as it is, because of what was asked or, where Enabled is false, because that takes a query log; and
// fleet.ErrUnavailable where log or store is away. Lists are never nil, but for groups that were not asked for.
type Breakdown struct {
	o Options

	hour   atomic.Pointer[hour]
	flight singleflight.Group
}

// New makes a Breakdown.
func New(o Options) *Breakdown {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.LogTimeout == 0 {
		o.LogTimeout = defaultLogTimeout
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Breakdown{o: o}
}

// logged reports whether a member's events are in the log that is read here.
func (b *Breakdown) logged(m Member) bool {
	if b.o.Reader == nil || m.QueryLog == logOff {
		return false
	}
	if m.QueryLog == "" || b.o.LogID == nil {
		return true
	}
	own := b.o.LogID()
	if own == "" { // a server that has not told its name yet
		return kindOf(m.QueryLog) == b.o.Reader.Source()
	}
	return m.QueryLog == own
}

// wanted are the members that a filter asks for and that answer DNS, by id, and those among them whose events are not in
// the log.
func (b *Breakdown) wanted(f fleet.QueryFilter) (all, unlogged []Member) {
	named := map[string]bool{}
	for _, id := range f.Instances {
		named[id] = true
	}
	for _, m := range b.o.Members() {
		if !m.DNS || (len(named) > 0 && !named[m.ID]) {
			continue
		}
		all = append(all, m)
		if !b.logged(m) {
			unlogged = append(unlogged, m)
		}
	}
	byID := func(a, b Member) int { return cmp.Compare(a.ID, b.ID) }
	slices.SortFunc(all, byID)
	slices.SortFunc(unlogged, byID)
	return all, unlogged
}
