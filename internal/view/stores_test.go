package view_test

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store"
	"dnsfleet/internal/store/redis"
	"dnsfleet/internal/store/sqlite"
	"dnsfleet/internal/store/storetest/redistest"
	"dnsfleet/internal/view"
)

// counted counts the reads of instances.
type counted struct {
	store.Store

	reads atomic.Int64
}

func (c *counted) Instances(ctx context.Context, ids ...string) ([]fleet.Instance, error) {
	c.reads.Add(1)
	return c.Store.Instances(ctx, ids...)
}

// followReal runs a view on a real store until the test ends.
func followReal(t *testing.T, s view.Store) *view.View {
	t.Helper()
	v := view.New(view.Options{Store: s})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
	})
	return v
}

// eventually waits until the view shows it.
func eventually(t *testing.T, v *view.View, what string, within time.Duration, shown func(fleet.View) bool) {
	t.Helper()
	deadline := time.After(within)
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for !shown(stats(t, v, fleet.ViewQuery{})) {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("%s: not shown within %s: %+v", what, within, stats(t, v, fleet.ViewQuery{}))
		}
	}
}

func pushReal(t *testing.T, s store.Store, id string, seq uint64) {
	t.Helper()
	r := fleet.Report{
		Protocol: fleet.Protocol, InstanceID: id, Name: id, BootID: "b1", Seq: seq, StartedAt: time.Now(), SentAt: time.Now(), IntervalSeconds: 10,
		ResponseDistribution: fleet.Distribution{Outcomes: fleet.Outcomes{fleet.Cached: seq}},
	}
	if _, err := s.SaveReport(t.Context(), r, fleet.RoleReplica, "t1"); err != nil {
		t.Fatal(err)
	}
}

func counts(n uint64) func(fleet.View) bool {
	return func(v fleet.View) bool {
		return len(v.Replicas) == 1 && v.Replicas[0].Status == fleet.StatusOK && v.Replicas[0].ResponseDistribution.Total() == n
	}
}

func openRedis(t *testing.T, url string) store.Store {
	t.Helper()
	s, err := redis.Open(t.Context(), redis.Options{URL: url, Prefix: "view", StatsTTL: 15 * time.Minute, History: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestRealStoresAreFollowedAndNotReadInVain(t *testing.T) {
	for name, open := range map[string]func(*testing.T) store.Store{
		"Redis": func(t *testing.T) store.Store { return openRedis(t, redistest.Start(t).URL()) },
		"SQLite": func(t *testing.T) store.Store {
			s, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "store.db"), StatsTTL: 15 * time.Minute, History: 24 * time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &counted{Store: open(t)}
			v := followReal(t, s)
			for seq := range uint64(3) {
				pushReal(t, s, "a", seq+1)
				eventually(t, v, "a push", 5*time.Second, counts(seq+1))
			}
			before := s.reads.Load()
			quiet := time.After(2500 * time.Millisecond) // sweeps look back at the last push twice
			<-quiet
			if got := s.reads.Load() - before; got > 2 {
				t.Errorf("got %d reads of instances that did not change, want none for what was seen", got)
			}
		})
	}
}

func TestTwoViewsOnOneRedisAgreeAndOutliveIt(t *testing.T) {
	server := redistest.Start(t)
	one, two := openRedis(t, server.URL()), openRedis(t, server.URL())
	v1, v2 := followReal(t, one), followReal(t, two)
	pushReal(t, one, "a", 1)
	eventually(t, v1, "the own push", 5*time.Second, counts(1))
	eventually(t, v2, "the other's push", 5*time.Second, counts(1))

	server.Stop()
	for _, v := range []*view.View{v1, v2} {
		eventually(t, v, "the store's end", 15*time.Second, func(out fleet.View) bool { return len(parts(out)) == 1 && parts(out)[0] == "store" })
		if out := stats(t, v, fleet.ViewQuery{}); !counts(1)(out) {
			t.Errorf("got %+v, want the row that was known", out.Replicas)
		}
	}
	server.Restart()
	for _, v := range []*view.View{v1, v2} {
		eventually(t, v, "the store's return", 15*time.Second, func(out fleet.View) bool { return len(parts(out)) == 0 })
	}
	pushReal(t, two, "a", 2)
	eventually(t, v1, "a push after that", 5*time.Second, counts(2))
	eventually(t, v2, "a push after that", 5*time.Second, counts(2))
}
