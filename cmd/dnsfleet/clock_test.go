package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/demo"
	"dnsfleet/internal/fleet"
)

// wallClock is a wall clock that can be stepped.
type wallClock struct{ step atomic.Int64 }

func (c *wallClock) now() time.Time { return time.Now().Add(time.Duration(c.step.Load())) }

// years10 is about ten years; a time.Duration holds 292.
const years10 = 10 * 365 * 24 * time.Hour

// TestASteppedClockChangesNoCountAndNoStatus steps the clock of a running replica, starts one on a wrong clock, and does
// both to a primary. The injected clock stands for the system's, which no library can move under a Go program.
func TestASteppedClockChangesNoCountAndNoStatus(t *testing.T) {
	t.Parallel()
	for name, offset := range map[string]time.Duration{
		"an hour ahead": time.Hour, "an hour behind": -time.Hour, "ten years ahead": years10, "ten years behind": -years10,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newClockFleet(t)
			running, wrongFromTheStart := new(wallClock), new(wallClock)
			wrongFromTheStart.step.Store(int64(offset))
			f.startReplica(t, "running", running)
			f.startReplica(t, "wrong", wrongFromTheStart)
			f.ask(t, "primary", 3)
			f.ask(t, "running", 5)
			f.ask(t, "wrong", 7)
			f.await(t, "before the step", map[string]float64{"primary": 0, "running": 0, "wrong": offset.Seconds()})

			running.step.Store(int64(offset))
			f.clock.step.Store(int64(offset))
			for _, id := range []string{"primary", "running", "wrong"} {
				f.ask(t, id, 4)
			}
			f.await(t, "after the step", map[string]float64{"primary": offset.Seconds(), "running": offset.Seconds(), "wrong": offset.Seconds()})
		})
	}
}

// clockFleet is a primary and replicas in this process, on SQLite, with clocks that can be stepped.
type clockFleet struct {
	dir     string
	clock   *wallClock // the primary's
	primary *primary
	addrs   map[string]string // of DNS, by instance
	sent    map[string]uint64
}

const quickInterval = 200 * time.Millisecond

func newClockFleet(t *testing.T) *clockFleet {
	t.Helper()
	f := &clockFleet{dir: t.TempDir(), clock: new(wallClock), addrs: map[string]string{}, sent: map[string]uint64{}}
	upstream, err := demo.NewUpstream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	background(t, upstream.Run)
	policy := filepath.Join(f.dir, "policy.yaml")
	if err := os.WriteFile(policy, fmt.Appendf(nil, "upstreams: [{address: \"udp://%s\"}]\nupstream_strategy: failover\n", upstream.Addr()), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := primaryConfig{instanceConfig: f.config("primary"), StorePrefix: "dnsfleet", StatsTTL: 10 * time.Second, History: "24h", PolicyFile: policy}
	f.primary, err = newPrimary(t.Context(), cfg, f.clock.now, slog.New(slog.NewTextHandler(t.Output(), nil)), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	background(t, f.primary.run)
	f.await(t, "the primary alone", map[string]float64{"primary": 0})
	f.addrs["primary"] = f.primary.engine.Addrs()[0]
	awaitReadyWithin(t, f.primary.ready)
	return f
}

func (f *clockFleet) config(id string) instanceConfig {
	c := demoInstance(f.dir, id, id)
	c.StatsEvery = quickInterval
	return c
}

func (f *clockFleet) startReplica(t *testing.T, id string, clock *wallClock) {
	t.Helper()
	token, secretText := fleet.NewToken(id, nil, false, time.Now())
	if err := f.primary.store.CreateToken(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	r, err := newFollowing(t.Context(), replicaConfig{
		instanceConfig: f.config(id), PrimaryURLs: urlList{f.primary.servers[0].URL()}, SyncToken: secret(secretText), SyncEvery: time.Second,
	}, clock.now, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	background(t, r.run)
	f.addrs[id] = r.engine.Addrs()[0]
	awaitReadyWithin(t, r.ready)
}

// background runs a task until the test ends.
func background(t *testing.T, run task) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func awaitReadyWithin(t *testing.T, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if !awaitReady(ctx, []func() error{check}) {
		t.Fatalf("not ready: %v", check())
	}
}

func (f *clockFleet) ask(t *testing.T, id string, n int) {
	t.Helper()
	for range n {
		q := new(dns.Msg)
		q.SetQuestion("www.lemon-0.example.", dns.TypeA)
		if _, _, err := new(dns.Client).ExchangeContext(t.Context(), q, f.addrs[id]); err != nil {
			t.Fatal(err)
		}
		f.sent[id]++
	}
}

// await waits until every instance has reported what was asked, is ok, and shows the given clock skew in seconds, and then
// holds that for three intervals.
func (f *clockFleet) await(t *testing.T, when string, skews map[string]float64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	check := func() error {
		v, err := f.primary.view.Stats(fleet.ViewQuery{})
		if err != nil {
			return err
		}
		rows := append(v.Primaries, v.Replicas...)
		if len(rows) != len(skews) {
			return fmt.Errorf("%s: got %d rows, want %d", when, len(rows), len(skews))
		}
		for _, r := range rows {
			id := *r.InstanceID
			switch {
			case r.Status != fleet.StatusOK || r.ResponseDistribution == nil || r.Lifetime == nil || r.ClockSkewSeconds == nil:
				return fmt.Errorf("%s: %s: got status %s, want ok and all figures", when, id, r.Status)
			case r.ResponseDistribution.Total() != f.sent[id] || r.Lifetime.Total() != f.sent[id]:
				return fmt.Errorf("%s: %s: got %d queries, lifetime %d, want %d", when, id, r.ResponseDistribution.Total(), r.Lifetime.Total(), f.sent[id])
			case math.Abs(*r.ClockSkewSeconds-skews[id]) > 2:
				return fmt.Errorf("%s: %s: got a skew of %v s, want %v s", when, id, *r.ClockSkewSeconds, skews[id])
			}
		}
		return nil
	}
	if !awaitReady(ctx, []func() error{check}) {
		t.Fatal(check())
	}
	hold := time.NewTimer(3 * quickInterval)
	defer hold.Stop()
	for {
		if err := check(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-hold.C:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}
