package querylogtest

import (
	"math"
	"slices"
	"sync"
	"testing"

	"dnsfleet/internal/fleet"
)

// tolerance is how far quantiles, means and unique counts may lie from the truth.
const tolerance = 0.02

// deviations are how far answers that may differ were off at most, as a part of the truth, and how many were looked at.
type deviations struct {
	mu                      sync.Mutex // guards the following
	count                   int
	quantile, mean, uniques float64
}

func (d *deviations) note(worst *float64, off float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count++
	if off > *worst { // not if it is of nothing, and so no number
		*worst = off
	}
}

func (d *deviations) log(t *testing.T) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	t.Logf("%d answers that may differ were off by at most %.2f %% (quantiles), %.2f %% (means), %.2f %% (unique clients); all others were exact",
		d.count, 100*d.quantile, 100*d.mean, 100*d.uniques)
}

func (d *deviations) compareMean(t *testing.T, what string, got *float64, sorted []float64) {
	t.Helper()
	if len(sorted) == 0 {
		if got != nil {
			t.Errorf("%s of nothing: got %g, want null", what, *got)
		}
		return
	}
	want := mean(sorted)
	if got == nil || math.Abs(*got-want) > tolerance*want+0.001 {
		t.Errorf("%s: got %s, want %g within %g", what, number(got), want, tolerance)
		return
	}
	d.note(&d.mean, math.Abs(*got-want)/want)
}

func (d *deviations) compareQuantile(t *testing.T, what string, got *float64, sorted []float64, q float64) {
	t.Helper()
	if len(sorted) == 0 {
		if got != nil {
			t.Errorf("%s of nothing: got %g, want null", what, *got)
		}
		return
	}
	low, high := around(sorted, q)
	if got == nil || *got < low*(1-tolerance)-0.001 || *got > high*(1+tolerance)+0.001 {
		t.Errorf("%s: got %s, want %g to %g within %g", what, number(got), low, high, tolerance)
		return
	}
	d.note(&d.quantile, max((low-*got)/low, (*got-high)/high))
}

func (d *deviations) compareQuantiles(t *testing.T, what string, got fleet.Quantiles, sorted []float64) {
	t.Helper()
	d.compareQuantile(t, what+": p50", got.P50, sorted, 0.50)
	d.compareQuantile(t, what+": p95", got.P95, sorted, 0.95)
	d.compareQuantile(t, what+": p99", got.P99, sorted, 0.99)
}

func number(f *float64) any {
	if f == nil {
		return "null"
	}
	return *f
}

func compareIDs(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got groups of %q, want %q", what, got, want)
	}
}

// groupIDs are the instances of groups, in their order.
func groupIDs[G any](groups []G, id func(G) string) []string {
	var ids []string
	for _, g := range groups {
		ids = append(ids, id(g))
	}
	return ids
}
