package clickhouse_test

import (
	"net/netip"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/clickhouse"
	"dnsfleet/internal/querylog/clickhouse/chtest"
	"dnsfleet/internal/querylog/querylogtest"
)

func open(t *testing.T, url string) *clickhouse.Log {
	t.Helper()
	l, err := clickhouse.Open(t.Context(), clickhouse.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return l
}

func TestClickHouseIsAQueryLogOverTheNativeProtocol(t *testing.T) {
	t.Parallel()
	server := chtest.Start(t)
	querylogtest.Run(t, func(*testing.T) querylogtest.Opener {
		_, _, url := server.Database()
		return opener(url)
	})
}

func TestClickHouseIsAQueryLogOverHTTP(t *testing.T) {
	t.Parallel()
	server := chtest.Start(t)
	querylogtest.RunBrief(t, func(*testing.T) querylogtest.Opener {
		_, url, _ := server.Database()
		return opener(url)
	})
}

func opener(url string) querylogtest.Opener {
	return func(t *testing.T) (querylog.Sink, querylog.Reader) {
		l := open(t, url)
		l.LimitTime(time.Minute) // a million events on a busy machine
		l.LimitPieces(1000)      // several pieces of a small log too
		return l, l
	}
}

func TestAClientMayChangeItsNameAndHaveNone(t *testing.T) {
	t.Parallel()
	s := chtest.Start(t)
	l := open(t, s.NativeDSN())
	b := someBatch(1, 6)
	names := []string{"pc", "", "phone", "pc", "pc", ""}
	for i := range b.Events {
		b.Events[i].ClientName = names[i]
		if i < 4 {
			b.Events[i].Client = netip.MustParseAddr("10.0.0.1")
		}
	}
	write(t, l, b)
	page, err := l.Rows(t.Context(), fleet.QueryFilter{}, 10, "")
	if err != nil || len(page.Rows) != len(names) {
		t.Fatalf("Rows: got %d, %v, want %d", len(page.Rows), err, len(names))
	}
	for i, want := range names {
		row, address := page.Rows[len(names)-1-i], ""
		if i < 4 {
			address = "10.0.0.1"
		}
		if row.ClientName != want || row.ClientIP != address {
			t.Errorf("row %d: got %q of %q, want %q of %q", i, row.ClientName, row.ClientIP, want, address)
		}
	}
}
