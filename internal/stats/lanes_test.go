package stats_test

import (
	"bytes"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/stats"
)

func TestWhatLanesCountAddsUp(t *testing.T) {
	c := open(t, stats.Options{})
	const each = 50_000
	lanes := []int{0, 0, 1, 2, 3, 1000, -1, math.MaxInt, math.MinInt}
	var counting sync.WaitGroup
	for _, lane := range lanes {
		counting.Go(func() {
			for i := range each {
				c.Record(lane, fleet.Outcome(i%fleet.NumOutcomes), time.Duration(i%100)*time.Millisecond)
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		counting.Wait()
	}()
	var before fleet.Counters
	for counted := false; !counted; {
		select {
		case <-done:
			counted = true
		default:
		}
		now := c.Counters()
		for o := range now.Outcomes {
			if now.Outcomes[o] < before.Outcomes[o] {
				t.Fatalf("%v: got %d after %d, want it never to go back", fleet.Outcome(o), now.Outcomes[o], before.Outcomes[o])
			}
		}
		if now.Latency.Count() < before.Latency.Count() {
			t.Fatalf("got %d durations after %d, want no fewer", now.Latency.Count(), before.Latency.Count())
		}
		before = now
	}
	want := uint64(each * len(lanes))
	if before.Outcomes.Total() != want || before.Latency.Count() != want {
		t.Errorf("got %d queries and %d durations, want %d of both", before.Outcomes.Total(), before.Latency.Count(), want)
	}
	_, count, sum := c.Durations(nil)
	if mean := 49500 * time.Microsecond; count != want || sum != time.Duration(want)*mean {
		t.Errorf("got %d durations of %v in all, want %d of %v", count, sum, want, time.Duration(want)*mean)
	}
}

// A duration counts where fleet.LatencyBin says, on both sides of the borders of all bins too.
func TestDurationsCountIntoTheirBins(t *testing.T) {
	durations := []time.Duration{math.MinInt64, -1, 0, 1, math.MaxInt64, math.MaxInt64 - 1}
	for low := time.Duration(1); low < 200*time.Second; {
		bin, high := fleet.LatencyBin(low), 400*time.Second
		border := low
		for border < high { // the first duration of another bin
			if mid := border + (high-border)/2; fleet.LatencyBin(mid) > bin {
				high = mid
			} else {
				border = mid + 1
			}
		}
		durations = append(durations, border-1, border, border+1)
		low = border
	}
	if len(durations) < 3*fleet.LatencyBins {
		t.Fatalf("got %d durations, want three for each of %d bins", len(durations), fleet.LatencyBins)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50_000 {
		durations = append(durations, time.Duration(rng.Uint64()>>(1+rng.IntN(63))))
	}
	for power := range 63 {
		durations = append(durations, 1<<power-1, 1<<power, 1<<power+1)
	}
	c := open(t, stats.Options{})
	var want []time.Duration
	for i, d := range durations { // of each another number, so that no two errors can make up for each other
		for range i%11 + 1 {
			c.Record(i%3, fleet.Cached, d)
			want = append(want, d)
		}
	}
	a, errA := c.Counters().Latency.AppendBinary(nil)
	b, errB := fleet.NewLatency(want...).AppendBinary(nil)
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Errorf("got other bins than those of fleet.LatencyBin (%v, %v)", errA, errB)
	}
}
