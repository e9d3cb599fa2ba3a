// Package metrics shows what an instance knows of itself to Prometheus. It keeps no counters: every scrape asks those
// who count. A member of the fleet is the label "resolver", because "instance" is Prometheus' own; no domain and no
// client is ever a label.
package metrics

import (
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"dnsfleet/internal/fleet"
)

// Options are the sources, each of which may be nil: an instance that has no such thing shows none of its metrics. They
// are called at each scrape, concurrently if scrapes are.
type Options struct {
	// Release is the version of the program.
	Release string
	// Counters are what was counted since boot.
	Counters func() fleet.Counters
	// Durations tells how many queries took no longer than each of the ascending bounds, how many there were, and the
	// time that all of them took.
	Durations func(bounds []time.Duration) (within []uint64, count uint64, sum time.Duration)
	Cache     func() fleet.CacheStats
	Blocklist func() fleet.BlocklistStats
	// PolicyRevision is the revision of the policy in use, 0 for none.
	PolicyRevision func() int64
	Pushes         func() Pushes
	Slices         func() Slices
	// QueryLog is the way of events to the query log.
	QueryLog func() QueryLog
	// EventBatches are the batches of events that replicas sent, by what became of them, for a primary.
	EventBatches func() map[string]uint64
	// Instances are the fleet's members by status, for a primary.
	Instances func() (map[fleet.Status]int, error)
	// StoreErrors is how many calls of the store have failed.
	StoreErrors func() uint64
	// Log may be nil.
	Log *slog.Logger
}

// Pushes tells how the pushes of a replica, or of a primary to its own store, have ended.
type Pushes struct {
	Results     map[string]uint64 // by result, of which there are few: ok, failed, refused
	LastSuccess time.Time         // zero before the first
}

// Slices tells how much history waits for the fleet.
type Slices struct {
	Pending  int
	Dropped  uint64 // never sent, for age or room
	Failures uint64 // writes to disk that failed
}

// QueryLog tells what became of query events. All but Waiting, Away and the Spooled figures count since boot.
type QueryLog struct {
	Recorded, Dropped, Lost      uint64 // own events: taken, without room in memory, taken by neither log nor spool
	Waiting                      uint64 // in memory
	Delivered, Refused, Failures uint64 // events in the log, events that it refused for good, tries that failed
	Away                         bool   // the last try failed
	SpooledEvents                uint64 // on disk
	SpooledBytes                 int64
	SpoolDropped                 uint64 // events that the spool gave up
}

// Metrics is a registry, and GET /metrics.
type Metrics struct {
	*prometheus.Registry
	handler http.Handler
}

// ServeHTTP answers a scrape. A source that fails costs its own metrics only.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.handler.ServeHTTP(w, r) }

// New makes a registry of its own with the given sources, the Go runtime and the process.
func New(o Options) *Metrics {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newCollector(o),
	)
	return &Metrics{registry, promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
		Timeout:             10 * time.Second,
	})}
}

// family is one metric: its name, what it says, and its labels.
type family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

type families map[string]family

func (f families) add(kind prometheus.ValueType, name, help string, labels ...string) {
	f[name] = family{prometheus.NewDesc("dnsfleet_"+name, help, labels, nil), kind}
}

func newFamilies() families {
	f := families{}
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	f.add(gauge, "build_info", "The program that runs; always 1.", "version", "goversion")
	f.add(counter, "queries_total", "Client queries by what became of them.", "outcome")
	f.add(counter, "query_duration_seconds", "Time from the arrival of a query to its answer.")
	f.add(counter, "upstream_exchanges_total", "Exchanges with an upstream, failed ones included.", "upstream")
	f.add(counter, "upstream_errors_total", "Exchanges with an upstream that brought no answer.", "upstream")
	f.add(counter, "cache_hits_total", "Look-ups that the cache could answer.")
	f.add(counter, "cache_misses_total", "Look-ups that the cache could not answer.")
	f.add(gauge, "cache_entries", "Answers in the cache, by how they could be used.", "state")
	f.add(gauge, "cache_max_entries", "Answers that the cache can hold.")
	f.add(gauge, "blocklist_entries", "Names that lists block.")
	f.add(gauge, "policy_rules", "Rules of the policy itself.", "kind")
	f.add(gauge, "blocking_paused", "1 while blocking is paused.")
	f.add(gauge, "list_entries", "Rules of a list.", "list")
	f.add(gauge, "list_ignored_lines", "Lines of a list that no parser understood.", "list")
	f.add(gauge, "list_updated_timestamp_seconds", "When the copy of a list in use was fetched.", "list")
	f.add(gauge, "list_failing", "1 while a list cannot be fetched and its last good copy is used.", "list")
	f.add(gauge, "policy_revision", "Revision of the policy in use, 0 for none.")
	f.add(counter, "pushes_total", "Reports pushed, by how that ended.", "result")
	f.add(gauge, "push_last_success_timestamp_seconds", "When a report was last taken.")
	f.add(gauge, "slices_pending", "Slices of history that wait to be sent.")
	f.add(counter, "slices_dropped_total", "Slices of history that were given up before they could be sent.")
	f.add(counter, "history_write_failures_total", "Writes of history to disk that failed.")
	f.add(counter, "querylog_events_total", "Query events by what became of them: recorded, dropped (no room in memory), lost (neither log nor spool took them), delivered, refused (by the log, for good), spool_dropped.", "result")
	f.add(gauge, "querylog_waiting_events", "Query events in memory that wait for the log.")
	f.add(counter, "querylog_failures_total", "Tries to reach the query log that failed.")
	f.add(gauge, "querylog_away", "1 while the query log cannot be reached.")
	f.add(gauge, "querylog_spooled_events", "Query events on disk that wait for the log.")
	f.add(gauge, "querylog_spooled_bytes", "Bytes on disk that wait for the log.")
	f.add(counter, "event_batches_total", "Batches of query events that replicas sent, by what became of them.", "result")
	f.add(gauge, "instances", "Members of the fleet by status.", "status")
	f.add(counter, "store_errors_total", "Calls of the store that failed.")
	return f
}

func goVersion() string { return runtime.Version() }
