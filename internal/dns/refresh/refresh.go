// Package refresh remembers what sweeps over the cache have done within a day.
package refresh

import (
	"math"
	"sync"
	"time"

	"dnsfleet/internal/fleet"
)

// Window is how far back the statistics go.
const Window = 24 * time.Hour

// History is the sweeps of the last day. The zero value is ready; it is safe for concurrent use.
type History struct {
	mu     sync.Mutex // guards the following
	sweeps []sweep    // oldest first
}

type sweep struct {
	at                 time.Time
	refreshed, removed int
}

// maxSweeps bounds the history, whatever the clock does. It is room for one sweep in 15 seconds.
const maxSweeps = int(Window / (15 * time.Second))

// Add takes a sweep in that asked for so many answers anew and removed so many that were of no use any more.
func (h *History) Add(now time.Time, refreshed, removed int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sweeps = append(h.sweeps, sweep{now, refreshed, removed})
	h.expire(now)
}

func (h *History) expire(now time.Time) {
	drop := max(len(h.sweeps)-maxSweeps, 0)
	for drop < len(h.sweeps) && now.Sub(h.sweeps[drop].at) > Window {
		drop++
	}
	if drop > 0 {
		h.sweeps = append(h.sweeps[:0], h.sweeps[drop:]...)
	}
}

// Stats sums the last day up; batchSize is the most that one sweep asks for.
func (h *History) Stats(now time.Time, batchSize int) fleet.RefreshStats {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expire(now)
	s := fleet.RefreshStats{Sweeps24h: len(h.sweeps), BatchSize: batchSize, StatsWindowSec: int(Window / time.Second)}
	if len(h.sweeps) == 0 {
		return s
	}
	last := h.sweeps[len(h.sweeps)-1]
	s.LastSweepTime = new(last.at.UTC())
	s.LastSweepCount, s.LastSweepRemovedCount = last.refreshed, last.removed
	for _, one := range h.sweeps {
		s.Refreshed24h += one.refreshed
		s.Removed24h += one.removed
	}
	n := float64(len(h.sweeps))
	s.AveragePerSweep24h = float64(s.Refreshed24h) / n
	squares := 0.0
	for _, one := range h.sweeps {
		off := float64(one.refreshed) - s.AveragePerSweep24h
		squares += off * off
	}
	s.StdDevPerSweep24h = math.Sqrt(squares / n)
	return s
}
