package clickhouse_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog/clickhouse"
)

// plainTable is the log's table as a server of 2018 can have it: without milliseconds, rollup and deduplication.
const plainTable = `CREATE TABLE plain (ts DateTime, instance_id LowCardinality(String), client_ip LowCardinality(String),
	client_name LowCardinality(String), protocol LowCardinality(String), qname String, qtype LowCardinality(String), qclass LowCardinality(String),
	outcome LowCardinality(String), rcode LowCardinality(String), duration_ms Float32, upstream_address LowCardinality(String),
	list LowCardinality(String), day Date DEFAULT toDate(ts)) ENGINE = MergeTree PARTITION BY day ORDER BY (instance_id, ts)`

// plainRows is what is told of the table: rows, different names, outcomes, the sum of durations.
const plainRows = "SELECT toString(count()) || '/' || toString(uniqExact(qname)) || '/' || toString(uniqExact(outcome)) || '/' || toString(round(sum(duration_ms) * 1000)) FROM plain"

func openWith(t *testing.T, o clickhouse.Options) *clickhouse.Log {
	t.Helper()
	l, err := clickhouse.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestAServerTakesBatchesOverItsNativeProtocolAlsoAfterItWasKilled(t *testing.T) {
	t.Parallel()
	s := startInstalled(t)
	l := openWith(t, clickhouse.Options{URL: s.url("clickhouse", s.TCP, serverPassword), NoMigrate: true})
	if err := l.Exec(t.Context(), plainTable); err != nil {
		t.Fatal(err)
	}
	put := func(seq uint64, n int) error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		return l.WriteTo(ctx, "plain", someBatch(seq, n))
	}
	want := func(what, want string) {
		t.Helper()
		if got, err := l.Value(t.Context(), plainRows); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", what, got, err, want)
		}
	}
	if err := put(1, 1000); err != nil {
		t.Fatal(err)
	}
	want("a batch", "1000/1000/13/499500")
	if err := put(2, 10_000); err != nil {
		t.Fatal(err)
	}
	s.kill()
	if err := put(3, 1000); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("WriteTo of a killed server: got %v, want %v", err, fleet.ErrUnavailable)
	}
	s.restart()
	if err := put(3, 1000); err != nil {
		t.Errorf("WriteTo after the server came back: %v", err)
	}
	want("after a kill and a retry", "12000/10000/13/50994000")
	version, err := l.Value(t.Context(), "SELECT version()")
	t.Logf("ClickHouse %s, %v: 12000 rows in 3 batches over the native protocol, one of them again after a kill", version, err)
}

func TestAServerOfAnotherAgeIsNamedAsSuch(t *testing.T) {
	t.Parallel()
	s := startInstalled(t)
	l := openWith(t, clickhouse.Options{URL: s.url("clickhouse", s.TCP, serverPassword)})
	version, err := l.Value(t.Context(), "SELECT version()")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(version, "18.") {
		return // what is installed here has all that the log needs
	}
	for what, err := range map[string]error{"Migrate": l.Migrate(t.Context()), "Write": l.Write(t.Context(), someBatch(1, 1))} {
		if err == nil || !strings.Contains(err.Error(), "ClickHouse "+version+" is too old") {
			t.Errorf("%s: got %v, want an error that the server is too old", what, err)
		}
		wantUnavailable(t, what, err)
	}
}

func TestAServerThatRefusesTheUserIsUnavailable(t *testing.T) {
	t.Parallel()
	s := startInstalled(t)
	for name, url := range map[string]string{
		"a wrong password":            s.url("clickhouse", s.TCP, "falsch"),
		"a wrong password over HTTP":  s.url("clickhouse+http", s.HTTP, "falsch"),
		"an unknown user":             strings.Replace(s.url("clickhouse", s.TCP, "falsch"), serverUser, "nobody", 1),
		"an unknown user over HTTP":   strings.Replace(s.url("clickhouse+http", s.HTTP, "falsch"), serverUser, "nobody", 1),
		"an unknown database":         strings.Replace(s.url("clickhouse", s.TCP, serverPassword), "/default", "/nowhere", 1),
		"TLS to a port without it":    s.url("clickhouse", s.TCP, serverPassword) + "?secure=true",
		"no TLS to a port that wants": s.url("clickhouse", s.TLS, serverPassword),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			err := openWith(t, clickhouse.Options{URL: url}).Migrate(ctx)
			wantUnavailable(t, "Migrate", err)
			if err == nil || strings.Contains(err.Error(), "falsch") || strings.Contains(err.Error(), serverPassword) {
				t.Errorf("got %v, want an error without the password", err)
			}
			if user := strings.HasPrefix(name, "a wrong") || strings.HasPrefix(name, "an unknown user"); user && !strings.Contains(err.Error(), "does not let user") {
				t.Errorf("got %v, want one that names the user", err)
			}
			t.Log(err)
		})
	}
}

func TestTLSOfTheNativeProtocolTrustsWhomTheOperatorTrusts(t *testing.T) {
	t.Parallel()
	s := startInstalled(t)
	url := s.url("clickhouse", s.TLS, serverPassword) + "?secure=true"
	dialed := 0
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		dialed++
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	for name, test := range map[string]struct {
		options clickhouse.Options
		works   bool
	}{
		"its own authority":               {clickhouse.Options{URL: url, RootCAs: s.RootCAs}, true},
		"its own authority, and a dialer": {clickhouse.Options{URL: url, RootCAs: s.RootCAs, DialContext: dial}, true},
		"the system's":                    {clickhouse.Options{URL: url}, false},
		"the system's, and a dialer":      {clickhouse.Options{URL: url, DialContext: dial}, false},
		"anybody":                         {clickhouse.Options{URL: url + "&skip_verify=true"}, true},
		"another name":                    {clickhouse.Options{URL: strings.Replace(url, "127.0.0.1", "localhost", 1), RootCAs: s.RootCAs}, false},
	} {
		t.Run(name, func(t *testing.T) {
			test.options.NoMigrate = true
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			got, err := openWith(t, test.options).Value(ctx, "SELECT toString(1 + 1)")
			switch {
			case test.works && (err != nil || got != "2"):
				t.Errorf("got %s, %v, want 2", got, err)
			case !test.works && (err == nil || !strings.Contains(fmt.Sprint(err), "certificate")):
				t.Errorf("got %v, want an error about the certificate", err)
			}
		})
	}
	if dialed < 2 {
		t.Errorf("connections by the dialer: got %d, want at least 2", dialed)
	}
}
