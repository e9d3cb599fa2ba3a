package clickhouse_test

import (
	"testing"

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
	server := chtest.Start(t)
	querylogtest.Run(t, func(*testing.T) querylogtest.Opener {
		_, _, url := server.Database()
		return opener(url)
	})
}

func TestClickHouseIsAQueryLogOverHTTP(t *testing.T) {
	server := chtest.Start(t)
	querylogtest.Run(t, func(*testing.T) querylogtest.Opener {
		_, url, _ := server.Database()
		return opener(url)
	})
}

func opener(url string) querylogtest.Opener {
	return func(t *testing.T) (querylog.Sink, querylog.Reader) {
		l := open(t, url)
		return l, l
	}
}
