package clickhouse_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog/clickhouse"
	"dnsfleet/internal/querylog/clickhouse/chtest"
)

func TestManyMayMigrateAtOnceAndAgain(t *testing.T) {
	t.Parallel()
	s := chtest.Start(t)
	url := s.DSN()
	makeLegacy(s)
	var wg sync.WaitGroup
	for range 4 {
		l := open(t, url)
		wg.Go(func() {
			if err := l.Migrate(t.Context()); err != nil {
				t.Errorf("Migrate: %v", err)
			}
		})
	}
	wg.Wait()
	write(t, open(t, url), someBatch(1, 10))
	wantCounts(t, s, 10)
	if got := s.Value("SELECT count() FROM dns_queries_legacy"); got != "3" {
		t.Errorf("older rows: got %s, want 3", got)
	}
	if got := s.Value("SELECT count() FROM system.tables WHERE name = 'dnsfleet_migrating'"); got != "0" {
		t.Errorf("locks left: got %s, want 0", got)
	}
}

func TestALockHoldsAMigrationUntilItIsGoneOrItsOwnerDead(t *testing.T) {
	t.Parallel()
	s := chtest.Start(t)
	lock := func(age time.Duration) {
		s.Exec(fmt.Sprintf("CREATE TABLE dnsfleet_migrating (at DateTime) ENGINE = MergeTree ORDER BY at COMMENT '%d'", time.Now().Add(-age).Unix()))
	}
	l := open(t, s.DSN())
	lock(time.Minute)
	errs := make(chan error)
	go func() { errs <- l.Migrate(t.Context()) }()
	select {
	case err := <-errs:
		t.Fatalf("Migrate did not wait for a fresh lock: %v", err)
	case <-time.After(time.Second):
	}
	s.Exec("DROP TABLE dnsfleet_migrating")
	if err := <-errs; err != nil {
		t.Errorf("Migrate after the lock went: %v", err)
	}
	lock(time.Hour)
	if err := l.Migrate(t.Context()); err != nil {
		t.Errorf("Migrate with the lock of a dead: %v", err)
	}
}

// makeLegacy makes the table of an older resolver, with three rows.
func makeLegacy(s *chtest.Server) {
	s.Exec(`CREATE TABLE dns_queries (ts DateTime, client_ip String, client_name String, protocol LowCardinality(String), qname String,
		qtype LowCardinality(String), qclass LowCardinality(String), outcome LowCardinality(String), rcode LowCardinality(String),
		duration_ms Float64, cache_lookup_ms Float64, network_write_ms Float64, upstream_address LowCardinality(String))
		ENGINE = MergeTree PARTITION BY toStartOfHour(ts) ORDER BY (ts, qname)`)
	at := yesterday().Unix()
	s.Exec(fmt.Sprintf(`INSERT INTO dns_queries VALUES
		(%d, '10.0.0.1', 'pc', 'udp', 'old.example.', 'A', 'IN', 'cached', 'NOERROR', 0.5, 0, 0, ''),
		(%d, '10.0.0.2', '', 'udp', 'old.example', 'A', 'IN', 'upstream', 'NOERROR', 20, 0, 0, 'udp://192.0.2.1:53'),
		(%d, '10.0.0.2', '', 'udp', 'other.example', 'A', 'IN', 'strange', 'NOERROR', 1, 0, 0, '')`, at, at+1, at+70))
}

func TestOlderQueriesAreReadBesideTheNewOnes(t *testing.T) {
	t.Parallel()
	s := chtest.Start(t)
	makeLegacy(s)
	l := open(t, s.DSN())
	write(t, l, someBatch(1, 13))
	want := fleet.Outcomes{1, 2, 1, 2, 1, 1, 1, 1, 1, 1, 1, 2, 1}
	for name, f := range map[string]fleet.QueryFilter{
		"without a window": {},
		"in a window":      {From: yesterday().Add(-time.Hour), To: yesterday().Add(time.Hour)},
		"filtered":         {Domain: "example"},
	} {
		got, err := l.Summary(t.Context(), f, true)
		if err != nil || got.Total != 16 || got.Outcomes != want {
			t.Errorf("Summary %s: got %d %v, %v, want 16 %v", name, got.Total, got.Outcomes, err, want)
		}
		if len(got.Groups) != 2 || got.Groups[1].InstanceID != "unattributed" || got.Groups[1].Total != 3 {
			t.Errorf("Summary %s: got groups %+v, want box1 and unattributed", name, got.Groups)
		}
	}
	top, err := l.TopDomains(t.Context(), fleet.QueryFilter{Instances: []string{"unattributed"}}, 2, false)
	if err != nil || len(top.Items) != 2 || top.Items[0].Name != "old.example" || top.Items[0].Count != 2 {
		t.Errorf("TopDomains: got %+v, %v, want old.example twice", top, err)
	}
	page, err := l.Rows(t.Context(), fleet.QueryFilter{}, 100, "")
	if err != nil || len(page.Rows) != 16 {
		t.Errorf("Rows: got %d, %v, want 16", len(page.Rows), err)
	}
	n := 0
	err = l.Export(t.Context(), fleet.QueryFilter{Instances: []string{"unattributed"}}, func(fleet.QueryRow) error { n++; return nil })
	if err != nil || n != 3 {
		t.Errorf("Export: got %d rows, %v, want 3", n, err)
	}
}

func TestAChangedRetentionReachesTheTables(t *testing.T) {
	t.Parallel()
	s := chtest.Start(t)
	write(t, open(t, s.DSN()), someBatch(1, 1))
	l, err := clickhouse.Open(t.Context(), clickhouse.Options{URL: s.DSN(), Retention: 48 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := l.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"dns_queries", "dns_queries_1m"} {
		if got := s.Value("SELECT engine_full FROM system.tables WHERE name = '" + table + "'"); !strings.Contains(got, "toIntervalSecond(172800)") {
			t.Errorf("%s: got %s, want a TTL of 172800 s", table, got)
		}
	}
}

func TestALogThatMayNotMigrateSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	eachProtocol(t, func(t *testing.T, s *chtest.Server, url string) {
		l := openWith(t, clickhouse.Options{URL: url, NoMigrate: true})
		_, reading := l.Summary(t.Context(), fleet.QueryFilter{}, false)
		for what, err := range map[string]error{"Write": l.Write(t.Context(), someBatch(1, 1)), "Summary": reading} {
			wantUnavailable(t, what, err)
			if !strings.Contains(fmt.Sprint(err), "run dnsfleet migrate") {
				t.Errorf("%s: got %v, want what to do", what, err)
			}
		}
		if err := l.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		write(t, l, someBatch(1, 10))
		wantCounts(t, s, 10)
	})
}
