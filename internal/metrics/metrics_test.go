package metrics_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/metrics"
)

func everything() metrics.Options {
	return metrics.Options{
		Release: "v1.2.3",
		Counters: func() fleet.Counters {
			c := fleet.Counters{Upstreams: []fleet.UpstreamStats{{Address: "udp://192.0.2.1:53", Count: 7, Errors: 2}}}
			c.Outcomes[fleet.Blocked], c.Outcomes[fleet.Cached] = 3, 4
			return c
		},
		Durations: func(bounds []time.Duration) ([]uint64, uint64, time.Duration) {
			within := make([]uint64, len(bounds))
			for i := range within {
				within[i] = min(uint64(i), 7)
			}
			return within, 7, 1500 * time.Millisecond
		},
		Cache: func() fleet.CacheStats {
			return fleet.CacheStats{Hits: 5, Misses: 2, LRU: fleet.LRUStats{MaxEntries: 100, Fresh: 4, Stale: 2, Expired: 1}}
		},
		Blocklist: func() fleet.BlocklistStats {
			return fleet.BlocklistStats{Blocked: 1000, Allow: 1, Deny: 2, Paused: true, Lists: []fleet.ListStats{
				{Name: "ads", Entries: 900, Ignored: 3, UpdatedAt: time.Unix(1700000000, 5e8)},
				{Name: "mine", Entries: 100, Error: "connection refused"},
				{Name: "mine", Entries: 5},
				{Name: "\xff"},
			}}
		},
		PolicyRevision: func() int64 { return 12 },
		Pushes: func() metrics.Pushes {
			return metrics.Pushes{Results: map[string]uint64{"ok": 9, "failed": 1}, LastSuccess: time.Unix(1700000001, 0)}
		},
		Slices:      func() metrics.Slices { return metrics.Slices{Pending: 3, Dropped: 1, Failures: 2} },
		Instances:   func() (map[fleet.Status]int, error) { return map[fleet.Status]int{fleet.StatusOK: 3}, nil },
		StoreErrors: func() uint64 { return 4 },
		QueryLog: func() metrics.QueryLog {
			return metrics.QueryLog{
				Recorded: 100, Dropped: 1, Lost: 2, Waiting: 3, Delivered: 80, Refused: 4, Failures: 5, Away: true,
				SpooledEvents: 10, SpooledBytes: 1234, SpoolDropped: 6,
			}
		},
		EventBatches: func() map[string]uint64 { return map[string]uint64{"stored": 7, "shed": 1} },
	}
}

func TestMetrics(t *testing.T) {
	m := metrics.New(everything())
	for name, want := range map[string]string{
		"dnsfleet_queries_total": `counter Client queries by what became of them.
			{outcome="blocked"} 3
			{outcome="cached"} 4
			{outcome="dropped"} 0
			{outcome="invalid"} 0
			{outcome="local"} 0
			{outcome="rate_limited"} 0
			{outcome="refused"} 0
			{outcome="rewritten"} 0
			{outcome="safe_search"} 0
			{outcome="servfail"} 0
			{outcome="stale"} 0
			{outcome="upstream"} 0
			{outcome="upstream_error"} 0`,
		"dnsfleet_upstream_exchanges_total": `counter Exchanges with an upstream, failed ones included.
			{upstream="udp://192.0.2.1:53"} 7`,
		"dnsfleet_upstream_errors_total": `counter Exchanges with an upstream that brought no answer.
			{upstream="udp://192.0.2.1:53"} 2`,
		"dnsfleet_cache_entries": `gauge Answers in the cache, by how they could be used.
			{state="expired"} 1
			{state="fresh"} 4
			{state="stale"} 2`,
		"dnsfleet_list_entries": `gauge Rules of a list.
			{list="ads"} 900
			{list="mine"} 100
			{list="` + "\uFFFD" + `"} 0`,
		"dnsfleet_list_failing": `gauge 1 while a list cannot be fetched and its last good copy is used.
			{list="ads"} 0
			{list="mine"} 1
			{list="` + "\uFFFD" + `"} 0`,
		"dnsfleet_list_updated_timestamp_seconds": `gauge When the copy of a list in use was fetched.
			{list="ads"} 1.7000000005e+09`,
		"dnsfleet_blocking_paused": `gauge 1 while blocking is paused.
			 1`,
		"dnsfleet_pushes_total": `counter Reports pushed, by how that ended.
			{result="failed"} 1
			{result="ok"} 9`,
		"dnsfleet_push_last_success_timestamp_seconds": `gauge When a report was last taken.
			 1.700000001e+09`,
		"dnsfleet_policy_revision": `gauge Revision of the policy in use, 0 for none.
			 12`,
		"dnsfleet_slices_pending": `gauge Slices of history that wait to be sent.
			 3`,
		"dnsfleet_instances": `gauge Members of the fleet by status.
			{status="never"} 0
			{status="offline"} 0
			{status="ok"} 3
			{status="revoked"} 0
			{status="stale"} 0`,
		"dnsfleet_querylog_events_total": `counter Query events by what became of them: recorded, dropped (no room in memory), lost (neither log nor spool took them), delivered, refused (by the log, for good), spool_dropped.
			{result="delivered"} 80
			{result="dropped"} 1
			{result="lost"} 2
			{result="recorded"} 100
			{result="refused"} 4
			{result="spool_dropped"} 6`,
		"dnsfleet_querylog_waiting_events": `gauge Query events in memory that wait for the log.
			 3`,
		"dnsfleet_querylog_failures_total": `counter Tries to reach the query log that failed.
			 5`,
		"dnsfleet_querylog_away": `gauge 1 while the query log cannot be reached.
			 1`,
		"dnsfleet_querylog_spooled_events": `gauge Query events on disk that wait for the log.
			 10`,
		"dnsfleet_querylog_spooled_bytes": `gauge Bytes on disk that wait for the log.
			 1234`,
		"dnsfleet_event_batches_total": `counter Batches of query events that replicas sent, by what became of them.
			{result="shed"} 1
			{result="stored"} 7`,
		"dnsfleet_store_errors_total": `counter Calls of the store that failed.
			 4`,
	} {
		t.Run(name, func(t *testing.T) {
			if err := testutil.GatherAndCompare(m, strings.NewReader(exposition(name, want)), name); err != nil {
				t.Error(err)
			}
		})
	}
}

// exposition is a metric in the text format, from its kind, its help and one line for each value.
func exposition(name, text string) string {
	head, values, _ := strings.Cut(text, "\n")
	kind, help, _ := strings.Cut(head, " ")
	lines := []string{fmt.Sprintf("# HELP %s %s", name, help), fmt.Sprintf("# TYPE %s %s", name, kind)}
	for line := range strings.SplitSeq(values, "\n") {
		lines = append(lines, name+strings.TrimLeft(line, "\t"))
	}
	return strings.Join(lines, "\n") + "\n"
}

func TestNamesFollowTheConventions(t *testing.T) {
	m := metrics.New(everything())
	problems, err := testutil.GatherAndLint(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	families, err := m.Gather()
	if err != nil {
		t.Fatal(err)
	}
	ours := regexp.MustCompile(`^(dnsfleet|go|process)_`)
	for _, f := range families {
		if !ours.MatchString(f.GetName()) {
			t.Errorf("%s: want a name of ours, of Go or of the process", f.GetName())
		}
		for _, metric := range f.GetMetric() {
			for _, l := range metric.GetLabel() {
				switch l.GetName() {
				case "instance", "job", "domain", "qname", "client", "client_ip":
					t.Errorf("%s: must not have the label %s", f.GetName(), l.GetName())
				}
			}
		}
	}
}

func TestDurationsAreAHistogram(t *testing.T) {
	text := scrape(t, metrics.New(everything()))
	for _, want := range []string{
		"# TYPE dnsfleet_query_duration_seconds histogram",
		`dnsfleet_query_duration_seconds_bucket{le="0.0001"} 0`,
		`dnsfleet_query_duration_seconds_bucket{le="0.001"} 3`,
		`dnsfleet_query_duration_seconds_bucket{le="5"} 7`,
		`dnsfleet_query_duration_seconds_bucket{le="+Inf"} 7`,
		"dnsfleet_query_duration_seconds_sum 1.5",
		"dnsfleet_query_duration_seconds_count 7",
		`dnsfleet_build_info{goversion="go`,
		"go_goroutines ",
		"process_start_time_seconds ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("scrape: want %q in\n%s", want, text)
		}
	}
}

func scrape(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	defer s.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("scrape: got %d and %v, want 200: %s", answer.StatusCode, err, b)
	}
	return string(b)
}

func TestAMissingSourceShowsNothing(t *testing.T) {
	text := scrape(t, metrics.New(metrics.Options{}))
	if n := strings.Count(text, "\ndnsfleet_"); n != 1 || !strings.Contains(text, "dnsfleet_build_info") {
		t.Errorf("scrape: got %d values of ours, want build_info only:\n%s", n, text)
	}
}

func TestABrokenSourceCostsOnlyItsOwn(t *testing.T) {
	o := everything()
	o.Instances = func() (map[fleet.Status]int, error) { return nil, errors.New("store unavailable") }
	text := scrape(t, metrics.New(o))
	if strings.Contains(text, "dnsfleet_instances{") || !strings.Contains(text, "dnsfleet_store_errors_total 4") {
		t.Errorf("scrape: want all but instances:\n%s", text)
	}
}

func TestWhatHasNotBeenHasNoTimestamp(t *testing.T) {
	o := everything()
	o.Pushes = func() metrics.Pushes { return metrics.Pushes{} }
	if text := scrape(t, metrics.New(o)); strings.Contains(text, "push_last_success_timestamp_seconds") {
		t.Errorf("scrape: want no time of a push before the first:\n%s", text)
	}
}
