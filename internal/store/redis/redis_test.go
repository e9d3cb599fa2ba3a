package redis_test

import (
	"testing"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store"
	"dnsfleet/internal/store/redis"
	"dnsfleet/internal/store/storetest"
	"dnsfleet/internal/store/storetest/redistest"
)

func TestStoreOnOneServer(t *testing.T) { runSuite(t, redistest.Start(t).URL()) }

func TestStoreOnACluster(t *testing.T) { runSuite(t, redistest.StartCluster(t).URL()) }

func runSuite(t *testing.T, url string) {
	t.Helper()
	storetest.Run(t, func(t *testing.T) storetest.Backend {
		prefix := "fleet-" + fleet.RandomID()
		return storetest.Backend{Open: func(t *testing.T, o store.Options) store.Store {
			return open(t, redis.Options{URL: url, Prefix: prefix, StatsTTL: o.StatsTTL, History: o.History})
		}}
	})
}

func open(t testing.TB, o redis.Options) *redis.Store {
	t.Helper()
	s, err := redis.Open(t.Context(), o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}
