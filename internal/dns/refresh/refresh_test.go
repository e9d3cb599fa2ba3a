package refresh_test

import (
	"math"
	"testing"
	"time"

	"dnsfleet/internal/dns/refresh"
)

func TestStatsCoverTheLastDay(t *testing.T) {
	var h refresh.History
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	if s := h.Stats(noon, 50); s.LastSweepTime != nil || s.Sweeps24h != 0 || s.BatchSize != 50 || s.StatsWindowSec != 86400 {
		t.Errorf("before the first sweep: got %+v, want nothing but the sizes", s)
	}
	h.Add(noon.Add(-25*time.Hour), 1000, 1000)
	for i, n := range []int{2, 4, 4, 4, 5, 5, 7, 9} {
		h.Add(noon.Add(time.Duration(i)*time.Minute), n, 1)
	}
	s := h.Stats(noon.Add(10*time.Minute), 50)
	if s.Sweeps24h != 8 || s.Refreshed24h != 40 || s.Removed24h != 8 || s.AveragePerSweep24h != 5 || math.Abs(s.StdDevPerSweep24h-2) > 1e-9 ||
		s.LastSweepCount != 9 || s.LastSweepRemovedCount != 1 || !s.LastSweepTime.Equal(noon.Add(7*time.Minute)) {
		t.Errorf("got %+v, want 8 sweeps, 40 in all, 5 on average with a deviation of 2, 9 the last time", s)
	}
	if s := h.Stats(noon.Add(48*time.Hour), 50); s.Sweeps24h != 0 || s.Refreshed24h != 0 {
		t.Errorf("two days later: got %+v, want nothing left", s)
	}
}

func TestTheHistoryIsBoundedWhenTheClockStandsStill(t *testing.T) {
	var h refresh.History
	now := time.Unix(1_800_000_000, 0)
	for range 20_000 {
		h.Add(now, 1, 0)
	}
	if s := h.Stats(now, 1); s.Sweeps24h != 5760 {
		t.Errorf("got %d sweeps, want no more than one in 15 s", s.Sweeps24h)
	}
}
