package sqlite_test

import (
	"path/filepath"
	"testing"
	"time"

	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/querylogtest"
	"dnsfleet/internal/querylog/sqlite"
)

func TestQueryLog(t *testing.T) {
	querylogtest.Run(t, func(t *testing.T) querylogtest.Opener {
		path := filepath.Join(t.TempDir(), "querylog.db")
		return func(t *testing.T) (querylog.Sink, querylog.Reader) {
			l := open(t, sqlite.Options{Path: path, Retention: 168 * time.Hour})
			return l, l
		}
	})
}

func open(t testing.TB, o sqlite.Options) *sqlite.Log {
	t.Helper()
	l, err := sqlite.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return l
}
