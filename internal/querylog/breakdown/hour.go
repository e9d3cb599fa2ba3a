package breakdown

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dnsfleet/internal/fleet"
)

const (
	hourFresh = 30 * time.Second // how long what was read is used
	hourStale = 5 * time.Minute  // how long it may be shown while it is read anew

	hourTimeout = time.Second            // for log and slices together, as long as somebody waits
	hourLog     = 800 * time.Millisecond // of that, for the log
	hourLate    = 15 * time.Second       // for the slices that did not come in time

	hourWindow = "1h"
)

// hour is what was known of the last hour at one time. It does not change.
type hour struct {
	at   time.Time
	rows map[string]fleet.QueryBreakdown
	err  error
}

// Hour tells the last hour of every member that answers DNS: from the log for those whose events are in it, from slices for
// the others, and for all when the log is away. An error names what could not be had; the rows that could are there in spite
// of it. It is read at most every thirty seconds, also when that failed, by one caller for all, and takes a second at most;
// what is no older than five minutes is told at once while it is read anew. The map is the same one until then, and must not be
// changed.
func (b *Breakdown) Hour(ctx context.Context) (map[string]fleet.QueryBreakdown, error) {
	known := b.hour.Load()
	if known != nil && time.Since(known.at) < hourFresh {
		return known.rows, known.err
	}
	detached := context.WithoutCancel(ctx) // others wait for it, too
	reading := b.flight.DoChan(hourWindow, func() (any, error) {
		if h := b.hour.Load(); h == nil || time.Since(h.at) >= hourFresh { // nobody was just before us
			b.readHour(detached)
		}
		return nil, nil
	})
	if known != nil && time.Since(known.at) < hourStale {
		return known.rows, known.err
	}
	patience := time.NewTimer(hourTimeout + hourTimeout/20) // what there is after a second is told then
	defer patience.Stop()
	select {
	case <-reading:
	case <-patience.C:
	case <-ctx.Done():
		return nil, fmt.Errorf("read last hour: %w", ctx.Err())
	}
	if known = b.hour.Load(); known == nil {
		return nil, errors.New("the last hour is still being read")
	}
	return known.rows, known.err
}

// readHour reads the last hour and keeps it. What takes longer than a second is told without the reports of those that it
// did not come to, unless there is an older one that can wait until they are read, too.
func (b *Breakdown) readHour(ctx context.Context) {
	now := b.o.Now().UTC()
	f := fleet.QueryFilter{From: now.Add(-time.Hour), To: now}
	members, unlogged := b.wanted(f)
	var logged []Member
	for i, m := range members { // both are sorted
		if at := i - len(logged); at < len(unlogged) && unlogged[at].ID == m.ID {
			continue
		}
		logged = append(logged, m)
	}
	soon, cancel := context.WithTimeout(ctx, hourTimeout)
	defer cancel()
	rows := make(map[string]fleet.QueryBreakdown, len(members))
	var others map[string]fleet.QueryBreakdown
	var left []Member
	var logErr, reportsErr error
	var both sync.WaitGroup
	both.Go(func() { logErr = b.hourOfLog(soon, f, logged, rows) })
	both.Go(func() { others, left, reportsErr = b.hourOfReports(soon, f, unlogged) })
	both.Wait()
	maps.Copy(rows, others)
	if logErr != nil {
		b.o.Log.WarnContext(ctx, "query log does not tell the last hour", "err", logErr)
		instead, more, err := b.hourOfReports(soon, f, logged)
		maps.Copy(rows, instead)
		left, reportsErr = append(left, more...), cmp.Or(reportsErr, err)
	}
	if reportsErr == nil && len(left) > 0 {
		if old := b.hour.Load(); old == nil || time.Since(old.at) >= hourStale {
			waiting := fmt.Errorf("those of %d instances are still being read", len(left))
			b.hour.Store(&hour{at: time.Now(), rows: maps.Clone(rows), err: hourError(logErr, waiting)})
		}
		late, cancel := context.WithTimeout(ctx, hourLate)
		defer cancel()
		others, left, reportsErr = b.hourOfReports(late, f, left)
		maps.Copy(rows, others)
		if reportsErr == nil && len(left) > 0 {
			reportsErr = fmt.Errorf("those of %d instances did not come within %s", len(left), hourLate)
		}
	}
	b.hour.Store(&hour{at: time.Now(), rows: rows, err: hourError(logErr, reportsErr)})
}

// hourError names what could not be had; either may be nil.
func hourError(log, reports error) error {
	switch {
	case log != nil && reports != nil:
		return fmt.Errorf("%s; reports: %w", reasonOf(log), reports)
	case log != nil:
		return errors.New(reasonOf(log))
	case reports != nil:
		return fmt.Errorf("reports: %w", reports)
	}
	return nil
}

// hourOfLog adds a row for each member, or nothing when it fails.
func (b *Breakdown) hourOfLog(ctx context.Context, f fleet.QueryFilter, members []Member, rows map[string]fleet.QueryBreakdown) error {
	if len(members) == 0 {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, hourLog)
	defer cancel()
	var latency fleet.QueryLatency
	var upstreams fleet.QueryUpstreams
	g, limited := errgroup.WithContext(limited)
	g.Go(func() (err error) {
		latency, err = b.o.Reader.Latency(limited, f, true)
		return err
	})
	g.Go(func() (err error) {
		upstreams, err = b.o.Reader.Upstreams(limited, f, true)
		return err
	})
	if err := g.Wait(); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %s", hourLog)
		}
		return err
	}
	for _, m := range members {
		rows[m.ID] = fleet.QueryBreakdown{Source: b.o.Reader.Source(), Window: hourWindow, Upstreams: []fleet.UpstreamStats{}}
	}
	for _, g := range latency.Groups {
		if row, wanted := rows[g.InstanceID]; wanted {
			row.Total, row.Quantiles = g.Count, g.Quantiles
			rows[g.InstanceID] = row
		}
	}
	for _, g := range upstreams.Groups {
		if row, wanted := rows[g.InstanceID]; wanted {
			row.Upstreams = short(g.Upstreams)
			rows[g.InstanceID] = row
		}
	}
	return nil
}

// hourOfReports are rows of the members that have slices, and the members that it did not come to before ctx ended. Any other
// reason not to come to all is an error.
func (b *Breakdown) hourOfReports(ctx context.Context, f fleet.QueryFilter, members []Member) (rows map[string]fleet.QueryBreakdown, left []Member, err error) {
	rows = make(map[string]fleet.QueryBreakdown, len(members))
	r := b.newReports(f, members)
	err = r.sums(ctx, func(*fleet.Slice) {}, func(id string, sum fleet.Slice) {
		rows[id] = fleet.QueryBreakdown{
			Source: sourceReports, Window: hourWindow, Total: sum.Outcomes.Total(), Quantiles: sum.Latency.Quantiles(),
			Upstreams: short(ranked(sum.Upstreams)),
		}
	})
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		left = slices.DeleteFunc(slices.Clone(members), func(m Member) bool { return r.visited[m.ID] })
		return rows, left, nil
	}
	return rows, nil, err
}

func short(upstreams []fleet.QueryUpstream) []fleet.UpstreamStats {
	list := make([]fleet.UpstreamStats, 0, len(upstreams))
	for _, u := range upstreams {
		list = append(list, fleet.UpstreamStats{Address: u.Address, Count: u.Count, Errors: u.Errors, Avg: u.AvgMS})
	}
	return list
}
