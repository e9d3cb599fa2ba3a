package main

import (
	"net/http"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/metrics"
	"dnsfleet/internal/syncapi/replica"
)

// metricsOptions are the sources that every instance has.
func (n *instance) metricsOptions(reporter *replica.Reporter) metrics.Options {
	return metrics.Options{
		Release: version(), Counters: n.counters.Counters, Durations: n.counters.Durations,
		Cache: n.engine.Cache, Blocklist: n.engine.Blocklist,
		PolicyRevision: func() int64 {
			revision, _ := n.engine.PolicyHash()
			return revision
		},
		Pushes: func() metrics.Pushes {
			s := reporter.Stats()
			return metrics.Pushes{Results: map[string]uint64{"ok": s.Pushes, "failed": s.Failures}, LastSuccess: s.LastSuccess}
		},
		Slices: func() metrics.Slices {
			s := n.counters.History()
			return metrics.Slices{Pending: s.Pending, Dropped: s.Dropped, Failures: s.Failures}
		},
		QueryLog: func() metrics.QueryLog {
			s := n.events.stats()
			return metrics.QueryLog{
				Recorded: s.Recorded, Dropped: s.Dropped, Lost: s.Lost, Waiting: s.Waiting, Delivered: s.Delivered, Refused: s.Refused,
				Failures: s.Failures, Away: s.Away, SpooledEvents: s.Spool.Events, SpooledBytes: s.Spool.Bytes, SpoolDropped: s.Spool.Dropped,
			}
		},
		Log: n.log,
	}
}

func (r *following) metrics() http.Handler { return metrics.New(r.metricsOptions(r.reporter)) }

func (p *primary) metrics() http.Handler {
	o := p.metricsOptions(p.reporter)
	o.Instances = func() (map[fleet.Status]int, error) { return p.view.Statuses(), nil }
	o.StoreErrors = p.storeErrors.Load
	o.EventBatches = func() map[string]uint64 { return p.sync.Stats().Events }
	return metrics.New(o)
}
