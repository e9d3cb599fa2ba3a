package clickhouse_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/batch"
	"dnsfleet/internal/querylog/clickhouse"
	"dnsfleet/internal/querylog/clickhouse/chtest"
)

// spread is a batch of n events, spread evenly over the first hours of yesterday.
func spread(seq uint64, n, hours int) querylog.Batch {
	b := someBatch(seq, n)
	start := time.Now().UTC().Truncate(24 * time.Hour).Add(-24 * time.Hour)
	for i := range b.Events {
		if b.Events[i].Outcome == fleet.Upstream {
			b.Events[i].Upstream = "udp://192.0.2.1:53"
		}
		b.Events[i].Time = start.Add(time.Duration(i) * time.Duration(hours) * time.Hour / time.Duration(n))
	}
	return b
}

func TestChartsReadAsManyRowsWhateverTheNumberOfQueries(t *testing.T) {
	t.Parallel()
	s := chtest.Start(t)
	l := open(t, s.NativeDSN())
	today := time.Now().UTC().Truncate(24 * time.Hour)
	window := fleet.QueryFilter{From: today.Add(-24 * time.Hour), To: today}
	filtered := window
	filtered.Domain = "example"
	charts := map[string]func() error{
		"series":    func() error { _, err := l.Series(t.Context(), window, time.Minute, true); return err },
		"summary":   func() error { _, err := l.Summary(t.Context(), window, true); return err },
		"latency":   func() error { _, err := l.Latency(t.Context(), window, true); return err },
		"upstreams": func() error { _, err := l.Upstreams(t.Context(), window, true); return err },
		"clients":   func() error { _, err := l.Clients(t.Context(), window); return err },
		"filtered":  func() error { _, err := l.Summary(t.Context(), filtered, true); return err },
	}
	read := func() map[string]int {
		s.Exec("OPTIMIZE TABLE dns_queries_1m FINAL") // what the server does by itself, in a while
		rows := map[string]int{}
		for name, chart := range charts {
			rows[name] = s.RowsRead(func() {
				if err := chart(); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			})
		}
		return rows
	}
	write(t, l, spread(1, 10_000, 12))
	few := read()
	s.Exec("INSERT INTO dns_queries SELECT old.* FROM dns_queries AS old CROSS JOIN numbers(9) AS times")
	many := read()
	t.Logf("rows read with 10,000 queries: %v; with 100,000 in the same minutes: %v", few, many)
	for name := range charts {
		switch {
		case name == "filtered" && (few[name] < 10_000 || many[name] < 100_000):
			t.Errorf("%s: got %d, then %d rows read, want all: the figures say nothing", name, few[name], many[name])
		case name != "filtered" && (few[name] == 0 || many[name] > few[name]*11/10):
			t.Errorf("%s: got %d, then %d rows read, want as many", name, few[name], many[name])
		}
	}
}

func TestAQuestionThatReadsTooMuchIsAskedToBeSmaller(t *testing.T) {
	t.Parallel()
	s := chtest.Start(t)
	l := open(t, s.DSN())
	write(t, l, spread(1, 10_000, 20))
	l.LimitRows(5000)
	f := fleet.QueryFilter{Domain: "example"}
	_, err := l.Summary(t.Context(), f, false)
	if !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(fmt.Sprint(err), "shorter window") {
		t.Errorf("Summary: got %v, want %v and what to do", err, fleet.ErrInvalid)
	}
	if _, err := l.TopDomains(t.Context(), fleet.QueryFilter{}, 10, false); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("TopDomains: got %v, want %v", err, fleet.ErrInvalid)
	}
	l.LimitRows(20_000)
	if got, err := l.Summary(t.Context(), f, false); err != nil || got.Total != 10_000 {
		t.Errorf("Summary: got %d, %v, want 10000", got.Total, err)
	}
}

func TestAQuestionThatTakesTooLongIsAskedToBeSmaller(t *testing.T) {
	t.Parallel()
	eachProtocol(t, func(t *testing.T, s *chtest.Server, url string) {
		l := open(t, url)
		write(t, l, someBatch(1, 10))
		s.Delay(3 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := l.Summary(ctx, fleet.QueryFilter{}, false)
		wantUnavailable(t, "Summary", err)
		if !strings.Contains(fmt.Sprint(err), "shorter window") {
			t.Errorf("Summary: got %v, want what to do", err)
		}
	})
}

// listener is an HTTP proxy that remembers what passed.
type listener struct {
	mu   sync.Mutex // guards sent
	sent []url.Values
}

func listenTo(t *testing.T, s *chtest.Server) (*listener, string) {
	t.Helper()
	l := &listener{}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: s.Addr()})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		l.sent = append(l.sent, r.URL.Query())
		l.mu.Unlock()
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return l, "clickhouse+http://" + server.Listener.Addr().String() + "/default"
}

func (l *listener) take() []url.Values {
	l.mu.Lock()
	defer l.mu.Unlock()
	sent := l.sent
	l.sent = nil
	return sent
}

func TestEveryQuestionIsBoundedAndHasNoValueInItsText(t *testing.T) {
	t.Parallel()
	s := chtest.Start(t)
	heard, url := listenTo(t, s)
	l := open(t, url)
	write(t, l, someBatch(1, 10))
	heard.take()
	const odd = "zz'); DROP"
	f := fleet.QueryFilter{
		From: yesterday().Add(-time.Hour), To: yesterday().Add(time.Hour), Instances: []string{odd}, Domain: odd, Client: odd, QType: odd, Upstream: odd,
		Outcomes: []fleet.Outcome{fleet.Cached},
	}
	for name, ask := range map[string]func(f fleet.QueryFilter) error{
		"Summary":    func(f fleet.QueryFilter) error { _, err := l.Summary(t.Context(), f, true); return err },
		"Latency":    func(f fleet.QueryFilter) error { _, err := l.Latency(t.Context(), f, true); return err },
		"Series":     func(f fleet.QueryFilter) error { _, err := l.Series(t.Context(), f, time.Minute, true); return err },
		"Upstreams":  func(f fleet.QueryFilter) error { _, err := l.Upstreams(t.Context(), f, true); return err },
		"TopDomains": func(f fleet.QueryFilter) error { _, err := l.TopDomains(t.Context(), f, 5, true); return err },
		"TopClients": func(f fleet.QueryFilter) error { _, err := l.TopClients(t.Context(), f, 5, true); return err },
		"Clients":    func(f fleet.QueryFilter) error { _, err := l.Clients(t.Context(), f); return err },
		"Rows":       func(f fleet.QueryFilter) error { _, err := l.Rows(t.Context(), f, 5, ""); return err },
		"Export": func(f fleet.QueryFilter) error {
			return l.Export(t.Context(), f, func(fleet.QueryRow) error { return nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, f := range []fleet.QueryFilter{f, {From: f.From, To: f.To}} {
				if err := ask(f); err != nil {
					t.Fatal(err)
				}
			}
			sent := heard.take()
			if len(sent) < 2 {
				t.Fatalf("statements: got %d, want at least 2", len(sent))
			}
			for _, values := range sent {
				text := values.Get("query")
				if strings.Contains(text, "zz") || strings.Contains(text, "DROP") {
					t.Errorf("got a value in the text of\n%s", text)
				}
				if seconds, err := strconv.Atoi(values.Get("max_execution_time")); err != nil || seconds < 1 || seconds > 305 || (name != "Export" && seconds > 15) {
					t.Errorf("max_execution_time: got %q, want one in seconds, for\n%s", values.Get("max_execution_time"), text)
				}
				if values.Get("max_rows_to_read") != "200000000" || values.Get("read_overflow_mode") != "throw" {
					t.Errorf("rows to read: got %q, %q, want a limit that throws, for\n%s", values.Get("max_rows_to_read"), values.Get("read_overflow_mode"), text)
				}
			}
		})
	}
	write(t, l, someBatch(7, 10))
	for _, values := range heard.take() {
		if values.Get("insert_deduplication_token") != "box1/boot1/7" || values.Get("deduplicate_blocks_in_dependent_materialized_views") != "1" || values.Get("async_insert") != "0" {
			t.Errorf("insert: got %v, want its token and no asynchronous insert", values)
		}
	}
}

func TestALogIsNamedByItsHostsAndDatabase(t *testing.T) {
	id := func(url string) string {
		t.Helper()
		return openWith(t, clickhouse.Options{URL: url}).ID()
	}
	first := id("clickhouse://a,b:9000/log")
	if !strings.HasPrefix(first, "clickhouse:") || len(first) != len("clickhouse:")+12 {
		t.Errorf("got %s, want clickhouse: and 12 digits", first)
	}
	for what, url := range map[string]string{
		"another order":   "clickhouse://b:9000,a/log",
		"another user":    "clickhouse://me:geheim@a,b/log",
		"another setting": "clickhouse://a,b/log?dial_timeout=2s",
	} {
		if got := id(url); got != first {
			t.Errorf("%s: got %s, want %s", what, got, first)
		}
	}
	for what, url := range map[string]string{
		"another host": "clickhouse://a,c/log", "another port": "clickhouse://a:9001,b/log", "another database": "clickhouse://a,b/other", "one host less": "clickhouse://a/log",
		"hosts of IPv6": "clickhouse://[::1]:9000,[::2]/log",
	} {
		if got := id(url); got == first {
			t.Errorf("%s: got %s as before, want another", what, got)
		}
	}
	if one, same := id("clickhouse://a"), id("clickhouse://a/default"); one != same {
		t.Errorf("no database: got %s, want that of default, %s", one, same)
	}
}

func TestEventsOfAClockGoneWildAreStored(t *testing.T) {
	t.Parallel()
	s := chtest.Start(t)
	l := open(t, s.NativeDSN())
	for seq, year := range []int{1, 1969, 1970, 2106, 2500} {
		b := someBatch(uint64(seq+1), 1)
		b.Events[0].Time = time.Date(year, 12, 31, 23, 59, 59, 0, time.UTC)
		batch.Clean(&b.Events[0])
		write(t, l, b)
	}
}
