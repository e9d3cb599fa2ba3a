package breakdown_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog/breakdown"
)

// near compares quantiles and means within the error of two sketches.
var near = cmp.Options{
	cmp.Comparer(func(a, b *float64) bool {
		if a == nil || b == nil {
			return a == b
		}
		return math.Abs(*a-*b) <= 0.021*max(*a, *b)
	}),
	cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }),
}

// Reports say which window they cover; over that, they must say what the log says, which knows every query: a slice that is
// counted twice or left out between sizes, boots and hours would show.
func TestReportsSayWhatTheLogSaysOfTheWindowTheyCover(t *testing.T) {
	events := traffic()
	log := openLog(t, events, "a", "b", "c")
	b := breakdown.New(off(pushedHistory(), members("off", "off", "off")))
	ctx := t.Context()
	for name, c := range map[string]struct {
		filter fleet.QueryFilter
		lag    time.Duration // how far the end may be from that of the window
	}{
		"fifteen minutes":         {last(15 * time.Minute), 2 * time.Minute},
		"an hour":                 {last(time.Hour), 2 * time.Minute},
		"two hours":               {last(2 * time.Hour), 2 * time.Minute},
		"three hours":             {last(3 * time.Hour), 2 * time.Minute},
		"a day":                   {last(24 * time.Hour), 2 * time.Minute},
		"two days":                {last(48 * time.Hour), 2 * time.Minute},
		"one instance":            {fleet.QueryFilter{From: noon.Add(-3 * time.Hour), To: noon, Instances: []string{"b"}}, 2 * time.Minute},
		"two hours of this day":   {fleet.QueryFilter{From: noon.Add(-8 * time.Hour), To: noon.Add(-6 * time.Hour)}, 10 * time.Minute},
		"three hours of last day": {fleet.QueryFilter{From: noon.Add(-40 * time.Hour), To: noon.Add(-37 * time.Hour)}, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			got, about, err := b.Summary(ctx, c.filter, true)
			if err != nil {
				t.Fatal(err)
			}
			if about.Enabled || about.Source != "reports" {
				t.Errorf("got enabled %t, source %s", about.Enabled, about.Source)
			}
			if ahead := about.From.Sub(c.filter.From); ahead < 0 || ahead >= time.Hour {
				t.Errorf("window begins at %s, asked for %s", about.From, c.filter.From)
			}
			if lag := c.filter.To.Sub(about.To).Abs(); lag > c.lag {
				t.Errorf("window ends at %s, asked for %s", about.To, c.filter.To)
			}
			covered := c.filter
			covered.From, covered.To = about.From, about.To
			want, err := log.Summary(ctx, covered, true)
			compare(t, "summary", got, want, err)

			latency, _, err := b.Latency(ctx, c.filter, true)
			if err != nil {
				t.Fatal(err)
			}
			wantLatency, err := log.Latency(ctx, covered, true)
			compare(t, "latency", latency, wantLatency, err)

			upstreams, _, err := b.Upstreams(ctx, c.filter, true)
			if err != nil {
				t.Fatal(err)
			}
			wantUpstreams, err := log.Upstreams(ctx, covered, true)
			compare(t, "upstreams", upstreams, wantUpstreams, err)

			for _, step := range []time.Duration{time.Minute, 7 * time.Minute, 10 * time.Minute, time.Hour} {
				series, _, err := b.Series(ctx, c.filter, step, true)
				if err != nil {
					t.Fatal(err)
				}
				taken := time.Duration(series.StepSeconds) * time.Second
				if taken < step || taken > step+time.Hour {
					t.Errorf("step %s: got one of %s", step, taken)
				}
				wantSeries, err := log.Series(ctx, covered, taken, true)
				compare(t, fmt.Sprintf("series of %s", step), series, wantSeries, err)
			}
		})
	}
}

func TestTopsOfReportsAreThoseOfTheHoursTheyCover(t *testing.T) {
	events := traffic()
	log := openLog(t, events, "a", "b", "c")
	b := breakdown.New(off(pushedHistory(), members("off", "off", "off")))
	ctx := t.Context()
	for name, f := range map[string]fleet.QueryFilter{
		"two hours": last(2 * time.Hour), "a day": last(24 * time.Hour), "an hour of this morning": {From: noon.Add(-5 * time.Hour), To: noon.Add(-4 * time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			got, about, err := b.TopDomains(ctx, f, 20, true)
			if err != nil {
				t.Fatal(err)
			}
			if about.From.Sub(f.From).Abs() >= time.Hour || about.To.Sub(f.To).Abs() >= 62*time.Minute || about.To.Sub(about.From)%time.Hour != 0 {
				t.Errorf("got the hours from %s to %s, asked for %s to %s", about.From, about.To, f.From, f.To)
			}
			covered := f
			covered.From, covered.To = about.From, about.To
			want, err := log.TopDomains(ctx, covered, 20, true)
			compare(t, "domains", got, want, err)

			f.Outcomes, covered.Outcomes = []fleet.Outcome{fleet.Blocked}, []fleet.Outcome{fleet.Blocked}
			if got, _, err = b.TopDomains(ctx, f, 20, true); err != nil {
				t.Fatal(err)
			}
			want, err = log.TopDomains(ctx, covered, 20, true)
			compare(t, "blocked", got, want, err)

			f.Outcomes, covered.Outcomes = nil, nil
			if got, _, err = b.TopClients(ctx, f, 20, true); err != nil {
				t.Fatal(err)
			}
			want, err = log.TopClients(ctx, covered, 20, true)
			compare(t, "clients", got, want, err)
		})
	}
}

func compare[T any](t *testing.T, what string, got, want T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: ask the log: %v", what, err)
	}
	if diff := cmp.Diff(want, got, near); diff != "" {
		t.Errorf("%s (-log +reports):\n%.2000s", what, diff)
	}
}
