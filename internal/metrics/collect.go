package metrics

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dnsfleet/internal/fleet"
)

// bounds are the buckets of query_duration_seconds: a cached answer takes some microseconds, a lost one five seconds.
func bounds() []time.Duration {
	return []time.Duration{
		100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
		time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
		50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
		time.Second, 2500 * time.Millisecond, 5 * time.Second,
	}
}

// collector turns what the sources say into metrics.
type collector struct {
	Options
	families families
}

func newCollector(o Options) *collector { return &collector{o, newFamilies()} }

// Describe sends every metric that there can be.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range c.families {
		ch <- f.desc
	}
}

// Collect asks every source there is.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := scrape{c.families, ch}
	s.send("build_info", 1, c.Release, goVersion())
	if c.Counters != nil {
		s.counters(c.Counters())
	}
	if c.Durations != nil {
		s.durations(c.Durations(bounds()))
	}
	if c.Cache != nil {
		s.cache(c.Cache())
	}
	if c.Blocklist != nil {
		s.blocklist(c.Blocklist())
	}
	if c.PolicyRevision != nil {
		s.send("policy_revision", float64(c.PolicyRevision()))
	}
	if c.Pushes != nil {
		s.pushes(c.Pushes())
	}
	if c.Slices != nil {
		s.slices(c.Slices())
	}
	if c.QueryLog != nil {
		s.queryLog(c.QueryLog())
	}
	if c.EventBatches != nil {
		for result, n := range c.EventBatches() {
			s.send("event_batches_total", float64(n), result)
		}
	}
	if c.Instances != nil {
		s.instances(c.Instances())
	}
	if c.StoreErrors != nil {
		s.send("store_errors_total", float64(c.StoreErrors()))
	}
}

// scrape is one round of Collect.
type scrape struct {
	families families
	ch       chan<- prometheus.Metric
}

// send sends one value. Label values come from configuration and may be anything; what is no UTF-8 would cost the
// whole scrape.
func (s scrape) send(name string, value float64, labels ...string) {
	for i, l := range labels {
		labels[i] = strings.ToValidUTF8(l, "\uFFFD")
	}
	f := s.families[name]
	m, err := prometheus.NewConstMetric(f.desc, f.kind, value, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(f.desc, err)
	}
	s.ch <- m
}

func (s scrape) counters(c fleet.Counters) {
	for o := range fleet.NumOutcomes {
		s.send("queries_total", float64(c.Outcomes[o]), fleet.Outcome(o).String())
	}
	for _, u := range c.Upstreams {
		s.send("upstream_exchanges_total", float64(u.Count), u.Address)
		s.send("upstream_errors_total", float64(u.Errors), u.Address)
	}
}

func (s scrape) durations(within []uint64, count uint64, sum time.Duration) {
	buckets := map[float64]uint64{}
	for i, b := range bounds() {
		buckets[b.Seconds()] = within[i]
	}
	desc := s.families["query_duration_seconds"].desc
	m, err := prometheus.NewConstHistogram(desc, count, sum.Seconds(), buckets)
	if err != nil {
		m = prometheus.NewInvalidMetric(desc, err)
	}
	s.ch <- m
}

func (s scrape) cache(c fleet.CacheStats) {
	s.send("cache_hits_total", float64(c.Hits))
	s.send("cache_misses_total", float64(c.Misses))
	s.send("cache_entries", float64(c.LRU.Fresh), "fresh")
	s.send("cache_entries", float64(c.LRU.Stale), "stale")
	s.send("cache_entries", float64(c.LRU.Expired), "expired")
	s.send("cache_max_entries", float64(c.LRU.MaxEntries))
}

func (s scrape) blocklist(b fleet.BlocklistStats) {
	s.send("blocklist_entries", float64(b.Blocked))
	s.send("policy_rules", float64(b.Allow), "allow")
	s.send("policy_rules", float64(b.Deny), "deny")
	s.send("blocking_paused", oneIf(b.Paused))
	seen := map[string]bool{}
	for _, l := range b.Lists {
		if seen[l.Name] {
			continue // two of one name would spoil the scrape
		}
		seen[l.Name] = true
		s.send("list_entries", float64(l.Entries), l.Name)
		s.send("list_ignored_lines", float64(l.Ignored), l.Name)
		s.send("list_failing", oneIf(l.Error != ""), l.Name)
		s.timestamp("list_updated_timestamp_seconds", l.UpdatedAt, l.Name)
	}
}

func (s scrape) pushes(p Pushes) {
	for result, n := range p.Results {
		s.send("pushes_total", float64(n), result)
	}
	s.timestamp("push_last_success_timestamp_seconds", p.LastSuccess)
}

func (s scrape) slices(h Slices) {
	s.send("slices_pending", float64(h.Pending))
	s.send("slices_dropped_total", float64(h.Dropped))
	s.send("history_write_failures_total", float64(h.Failures))
}

func (s scrape) queryLog(q QueryLog) {
	for result, n := range map[string]uint64{
		"recorded": q.Recorded, "dropped": q.Dropped, "lost": q.Lost, "delivered": q.Delivered, "refused": q.Refused, "spool_dropped": q.SpoolDropped,
	} {
		s.send("querylog_events_total", float64(n), result)
	}
	s.send("querylog_waiting_events", float64(q.Waiting))
	s.send("querylog_failures_total", float64(q.Failures))
	s.send("querylog_away", oneIf(q.Away))
	s.send("querylog_spooled_events", float64(q.SpooledEvents))
	s.send("querylog_spooled_bytes", float64(q.SpooledBytes))
}

func (s scrape) instances(byStatus map[fleet.Status]int, err error) {
	if err != nil {
		s.ch <- prometheus.NewInvalidMetric(s.families["instances"].desc, err)
		return
	}
	for _, status := range []fleet.Status{fleet.StatusOK, fleet.StatusStale, fleet.StatusOffline, fleet.StatusRevoked, fleet.StatusNever} {
		s.send("instances", float64(byStatus[status]), string(status))
	}
}

// timestamp sends an instant, and nothing for one that has not been.
func (s scrape) timestamp(name string, t time.Time, labels ...string) {
	if !t.IsZero() {
		s.send(name, float64(t.UnixMilli())/1000, labels...)
	}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
