package breakdown

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dnsfleet/internal/fleet"
)

const (
	hourFresh = 30 * time.Second // how long what was read is used
	hourStale = 5 * time.Minute  // how long it may be shown while it is read anew

	hourTimeout = time.Second            // for log and slices together
	hourLog     = 800 * time.Millisecond // of that, for the log

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
// what is no older than five minutes is told at once while it is read anew. The caller must not change the map, which is the same one until it is read anew.
func (b *Breakdown) Hour(ctx context.Context) (map[string]fleet.QueryBreakdown, error) {
	known := b.hour.Load()
	if known != nil && time.Since(known.at) < hourFresh {
		return known.rows, known.err
	}
	detached := context.WithoutCancel(ctx) // others wait for it, too
	reading := b.flight.DoChan(hourWindow, func() (any, error) {
		if h := b.hour.Load(); h != nil && time.Since(h.at) < hourFresh { // somebody was just before us
			return nil, nil
		}
		ctx, cancel := context.WithTimeout(detached, hourTimeout)
		defer cancel()
		b.hour.Store(b.readHour(ctx))
		return nil, nil
	})
	if known != nil && time.Since(known.at) < hourStale {
		return known.rows, known.err
	}
	select {
	case <-reading:
		known = b.hour.Load()
		return known.rows, known.err
	case <-ctx.Done():
		return nil, fmt.Errorf("read last hour: %w", ctx.Err())
	}
}

func (b *Breakdown) readHour(ctx context.Context) *hour {
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
	h := &hour{rows: make(map[string]fleet.QueryBreakdown, len(members))}
	var others map[string]fleet.QueryBreakdown
	var logErr, reportsErr error
	var both sync.WaitGroup
	both.Go(func() { logErr = b.hourOfLog(ctx, f, logged, h.rows) })
	both.Go(func() { others, reportsErr = b.hourOfReports(ctx, f, unlogged) })
	both.Wait()
	maps.Copy(h.rows, others)
	if logErr != nil {
		b.o.Log.WarnContext(ctx, "query log does not tell the last hour", "err", logErr)
		h.err = errors.New(reasonOf(logErr))
		instead, err := b.hourOfReports(ctx, f, logged)
		maps.Copy(h.rows, instead)
		if reportsErr == nil {
			reportsErr = err
		}
	}
	switch {
	case reportsErr != nil && h.err != nil:
		h.err = fmt.Errorf("%w; reports: %w", h.err, reportsErr)
	case reportsErr != nil:
		h.err = fmt.Errorf("reports: %w", reportsErr)
	}
	h.at = time.Now()
	return h
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

// hourOfReports are rows of the members that have slices, as many as there are when it fails.
func (b *Breakdown) hourOfReports(ctx context.Context, f fleet.QueryFilter, members []Member) (map[string]fleet.QueryBreakdown, error) {
	rows := make(map[string]fleet.QueryBreakdown, len(members))
	err := b.newReports(f, members).sums(ctx, func(*fleet.Slice) {}, func(id string, sum fleet.Slice) {
		rows[id] = fleet.QueryBreakdown{
			Source: sourceReports, Window: hourWindow, Total: sum.Outcomes.Total(), Quantiles: sum.Latency.Quantiles(),
			Upstreams: short(ranked(sum.Upstreams)),
		}
	})
	return rows, err
}

func short(upstreams []fleet.QueryUpstream) []fleet.UpstreamStats {
	list := make([]fleet.UpstreamStats, 0, len(upstreams))
	for _, u := range upstreams {
		list = append(list, fleet.UpstreamStats{Address: u.Address, Count: u.Count, Errors: u.Errors, Avg: u.AvgMS})
	}
	return list
}
