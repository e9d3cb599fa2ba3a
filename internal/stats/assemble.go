package stats

import (
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"dnsfleet/internal/fleet"
)

// slice is the slice of size that starts at start, without what tells how long it lasted.
func (t totals) slice(boot string, start time.Time) fleet.Slice {
	s := fleet.Slice{
		Size: fleet.Minute, Start: start, BootID: boot,
		Outcomes: t.outcomes, Latency: fleet.LatencyFromBins(t.bins), Upstreams: []fleet.UpstreamSlice{},
	}
	for _, address := range slices.Sorted(maps.Keys(t.upstreams)) {
		u := t.upstreams[address]
		if count := u.count(); count > 0 {
			s.Upstreams = append(s.Upstreams, fleet.UpstreamSlice{
				Address: address, Count: count, Errors: u.errors, Latency: fleet.LatencyFromBins(u.bins),
			})
		}
	}
	return s
}

func (e exchangeTotals) answered() (n uint64) {
	for _, b := range e.bins {
		n += b
	}
	return n
}

func (e exchangeTotals) count() uint64 { return e.errors + e.answered() }

// counters are the totals in the form in which they are reported.
func (t totals) counters() fleet.Counters {
	c := fleet.Counters{Outcomes: t.outcomes, Latency: fleet.LatencyFromBins(t.bins), Upstreams: []fleet.UpstreamStats{}}
	c.MeanMS = meanMS(t.nanos, c.Latency.Count())
	for address, u := range t.upstreams {
		c.Upstreams = append(c.Upstreams, fleet.UpstreamStats{
			Address: address, Count: u.count(), Errors: u.errors, Avg: meanMS(u.nanos, u.answered()),
		})
	}
	slices.SortFunc(c.Upstreams, func(a, b fleet.UpstreamStats) int { return strings.Compare(a.Address, b.Address) })
	return c
}

func meanMS(nanos int64, n uint64) *float64 {
	if n == 0 {
		return nil
	}
	return new(float64(nanos) / float64(n) / float64(time.Millisecond))
}

// lasted writes into a slice how much of it the boot lived through. A boot that ended in the instant in which the
// slice began has lived through a millisecond of it: 0 would say all of it.
func lasted(s fleet.Slice, d time.Duration) fleet.Slice {
	s.Seconds = 0
	if d < s.Size.Duration() {
		s.Seconds = math.Ceil(float64(max(d, time.Millisecond))/float64(time.Millisecond)) / 1000
	}
	return s
}

// assembler merges the minutes of one boot, which it is given in order, into slices of ten minutes and an hour.
type assembler struct {
	open map[fleet.Size]fleet.Slice
}

func newAssembler() *assembler { return &assembler{open: map[fleet.Size]fleet.Slice{}} }

// add takes the next minute and returns the longer slices that end with it.
func (a *assembler) add(minute fleet.Slice) (complete []fleet.Slice) {
	for _, size := range []fleet.Size{fleet.TenMinutes, fleet.Hour} {
		start := minute.Start.Truncate(size.Duration())
		s, begun := a.open[size]
		if begun && !s.Start.Equal(start) { // a minute is missing: the time before it ends here
			complete = append(complete, a.take(size))
			begun = false
		}
		if begun {
			s = fleet.MergeSlices(s, minute)
		} else {
			s = fleet.MergeSlices(minute)
			s.Size, s.Start = size, start
		}
		a.open[size] = s
		if !minute.End().Before(s.End()) {
			complete = append(complete, a.take(size))
		}
	}
	return complete
}

// end closes the slices that are running as they are.
func (a *assembler) end() (complete []fleet.Slice) {
	for _, size := range []fleet.Size{fleet.TenMinutes, fleet.Hour} {
		if _, begun := a.open[size]; begun {
			complete = append(complete, a.take(size))
		}
	}
	return complete
}

func (a *assembler) take(size fleet.Size) fleet.Slice {
	s := a.open[size]
	delete(a.open, size)
	return lasted(s, s.Covered())
}
