package querylogtest

import (
	"math"
	"slices"
	"testing"

	"dnsfleet/internal/fleet"
)

// tolerance is how far quantiles, means and unique counts may lie from the truth.
const tolerance = 0.02

func compareMean(t *testing.T, what string, got *float64, sorted []float64) {
	t.Helper()
	if len(sorted) == 0 {
		if got != nil {
			t.Errorf("%s of nothing: got %g, want null", what, *got)
		}
		return
	}
	if want := mean(sorted); got == nil || math.Abs(*got-want) > tolerance*want+0.001 {
		t.Errorf("%s: got %s, want %g within %g", what, number(got), want, tolerance)
	}
}

func compareQuantile(t *testing.T, what string, got *float64, sorted []float64, q float64) {
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
	}
}

func compareQuantiles(t *testing.T, what string, got fleet.Quantiles, sorted []float64) {
	t.Helper()
	compareQuantile(t, what+": p50", got.P50, sorted, 0.50)
	compareQuantile(t, what+": p95", got.P95, sorted, 0.95)
	compareQuantile(t, what+": p99", got.P99, sorted, 0.99)
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
