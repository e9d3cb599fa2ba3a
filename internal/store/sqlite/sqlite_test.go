package sqlite_test

import (
	"path/filepath"
	"testing"

	"dnsfleet/internal/store"
	"dnsfleet/internal/store/sqlite"
	"dnsfleet/internal/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Backend {
		path := filepath.Join(t.TempDir(), "store.db")
		return storetest.Backend{Open: func(t *testing.T, o store.Options) store.Store { return open(t, path, o) }}
	})
}

func open(t testing.TB, path string, o store.Options) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Options{Path: path, StatsTTL: o.StatsTTL, History: o.History})
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}
