package fleet_test

import (
	"testing"
	"time"

	"dnsfleet/internal/fleet"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// seen is an instance that reported age ago, ten seconds after its report before.
func seen(id string, age time.Duration, counts fleet.Outcomes) fleet.Instance {
	at := now.Add(-age)
	return fleet.Instance{
		ID: id, Name: "name of " + id, Role: fleet.RoleReplica, DNS: true, TokenID: "t1", FirstSeen: at, LastSeen: at,
		ExpiresAt: at.Add(15 * time.Minute), BootID: "b1", Seq: 1, Current: counts,
		Report: &fleet.Report{
			InstanceID: id, IntervalSeconds: 10, SentAt: at, PolicyHash: "h",
			ResponseDistribution: fleet.Distribution{Outcomes: counts},
		},
	}
}

func rowOf(in fleet.Instance) fleet.Row { return fleet.NewRow(in, fleet.SourcePush, false, "h", now) }

func TestStatusFollowsTheAgeOfTheLastReport(t *testing.T) {
	expired := seen("x", time.Hour, fleet.Outcomes{})
	expired.Report = nil
	for name, c := range map[string]struct {
		in   fleet.Instance
		want fleet.Status
	}{
		"a fresh report":                                {seen("x", time.Second, fleet.Outcomes{}), fleet.StatusOK},
		"two intervals and five seconds":                {seen("x", 25*time.Second, fleet.Outcomes{}), fleet.StatusOK},
		"a moment more":                                 {seen("x", 25*time.Second+1, fleet.Outcomes{}), fleet.StatusStale},
		"the last moment of the TTL":                    {seen("x", 15*time.Minute-1, fleet.Outcomes{}), fleet.StatusStale},
		"the end of the TTL":                            {seen("x", 15*time.Minute, fleet.Outcomes{}), fleet.StatusOffline},
		"an expired report":                             {expired, fleet.StatusOffline},
		"a report from the future, the clock went back": {seen("x", -time.Hour, fleet.Outcomes{}), fleet.StatusStale},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.in.StatusAt(now); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestTotalsAreRecomputedFromSums(t *testing.T) {
	gone := seen("c", time.Hour, fleet.Outcomes{fleet.Cached: 1000})
	gone.Report, gone.Ended = nil, fleet.Outcomes{fleet.Cached: 7}
	rows := []fleet.Row{
		rowOf(seen("a", time.Second, fleet.Outcomes{fleet.Blocked: 1, fleet.Cached: 1})),
		rowOf(seen("b", time.Minute, fleet.Outcomes{fleet.Blocked: 9, fleet.Cached: 989})),
		rowOf(gone),
		fleet.NewRow(seen("d", time.Second, fleet.Outcomes{fleet.Blocked: 50}), fleet.SourcePush, true, "h", now),
	}
	totals := fleet.Sum(rows)
	if got, want := *totals.BlockedPercent, 1.0; got != want {
		t.Errorf("blocked percent: got %v, want 10 of 1000, %v, not the mean of 50 and 0.9", got, want)
	}
	if got, want := totals.ResponseDistribution.Total(), uint64(1000); got != want {
		t.Errorf("total: got %d, want %d from the ok and the stale row", got, want)
	}
	if got, want := totals.Lifetime.Total(), uint64(1000+1007+50); got != want {
		t.Errorf("lifetime: got %d, want %d over all rows", got, want)
	}
}

func TestCoverageNamesWhoIsMissing(t *testing.T) {
	frontend := seen("f", time.Second, fleet.Outcomes{})
	frontend.DNS = false
	gone := seen("c", time.Hour, fleet.Outcomes{})
	gone.Report = nil
	c := fleet.Cover([]fleet.Row{
		rowOf(seen("a", 3*time.Second, fleet.Outcomes{})), rowOf(seen("b", time.Minute, fleet.Outcomes{})), rowOf(gone), rowOf(frontend),
		fleet.NeverRow(fleet.Token{ID: "t9", Name: "new"}),
	})
	if c.Reporting != 1 || c.Total != 3 || *c.OldestAgeSeconds != 3 || len(c.Missing) != 2 || c.Missing[1].Status != fleet.StatusOffline {
		t.Errorf("got %+v, want 1 of 3 reporting, oldest 3 s, b and c missing", c)
	}
}

func TestAnOfflineInstanceKeepsItsLifetimeAndShowsNothingElse(t *testing.T) {
	gone := seen("c", time.Hour, fleet.Outcomes{fleet.Cached: 5})
	gone.Report = nil
	r := rowOf(gone)
	if r.Lifetime.Total() != 5 || r.ResponseDistribution != nil || r.Cache != nil || r.Recent != nil || r.Source != nil {
		t.Errorf("got %+v, want a lifetime of 5 and nothing that is not known", r)
	}
}

func TestRecentIsTheLastFiveCompleteMinutes(t *testing.T) {
	in := seen("a", time.Second, fleet.Outcomes{fleet.Cached: 1000})
	end := in.LastSeen.Truncate(time.Minute)
	for i := 1; i <= 8; i++ { // the three oldest lie outside
		in.Minutes = append(in.Minutes, fleet.Slice{
			Size: fleet.Minute, Start: end.Add(-time.Duration(i) * time.Minute), BootID: "b1",
			Outcomes: fleet.Outcomes{fleet.Blocked: 30, fleet.Cached: 30}, Latency: fleet.NewLatency(time.Millisecond),
		})
	}
	r := rowOf(in).Recent
	if r == nil || r.Seconds != 300 || *r.QueriesPerSecond != 1 || *r.BlockedPercent != 50 || r.ResponseDistribution.Total() != 300 {
		t.Fatalf("got %+v, want 300 queries in 300 s, half of them blocked", r)
	}
	if got := *r.P95; got < 0.99 || got > 1.01 {
		t.Errorf("p95: got %v ms, want 1 ms", got)
	}
	totals := fleet.Sum([]fleet.Row{rowOf(in), rowOf(in)})
	if got, want := *totals.Recent.QueriesPerSecond, 2.0; got != want {
		t.Errorf("fleet's queries per second: got %v, want %v", got, want)
	}
}

func TestRowsKeepTheirPlaces(t *testing.T) {
	rows := []fleet.Row{rowOf(seen("b", 0, fleet.Outcomes{})), rowOf(seen("a", 0, fleet.Outcomes{})), fleet.NeverRow(fleet.Token{ID: "t0", Name: "aaa"})}
	rows[0].Name, rows[1].Name = "same", "same"
	fleet.SortRows(rows)
	if got := []string{rows[0].Key(), rows[1].Key(), rows[2].Key()}; got[0] != "t0" || got[1] != "a" || got[2] != "b" {
		t.Errorf("got %q, want by name, then id", got)
	}
}
