package view_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/view"
)

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestStatusFollowsTheAgeOnTheStoresClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.skew = 1000 * time.Hour // the store's clock is not ours
		m.push(instance("a", fleet.Outcomes{fleet.Cached: 5}))
		v := follow(t, m, nil)
		began := time.Now().Add(-100 * time.Millisecond)
		for _, step := range []struct {
			age  time.Duration
			want fleet.Status
		}{
			{time.Second, fleet.StatusOK},
			{25*time.Second - time.Millisecond, fleet.StatusOK},
			{27 * time.Second, fleet.StatusStale},
			{ttl - time.Second, fleet.StatusStale},
			{ttl + 2*time.Second, fleet.StatusOffline},
			{24 * time.Hour, fleet.StatusOffline},
		} {
			time.Sleep(time.Until(began.Add(step.age)))
			synctest.Wait()
			r := stats(t, v, fleet.ViewQuery{}).Replicas
			if len(r) != 1 {
				t.Fatalf("after %s: got %d rows, want the one that was seen", step.age, len(r))
			}
			equal(t, fmt.Sprintf("status after %s", step.age), r[0].Status, step.want)
			if got := *r[0].AgeSeconds - step.age.Seconds(); got < -0.01 || got > 0.01 {
				t.Errorf("age after %s: got %v", step.age, *r[0].AgeSeconds)
			}
			equal(t, "lifetime", r[0].Lifetime.Total(), 5)
		}
	})
}

func TestTokensAreRowsUntilTheirInstanceIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.push(instance("a", fleet.Outcomes{}))
		m.push(instance("b", fleet.Outcomes{}))
		m.push(instance("c", fleet.Outcomes{}))
		when := time.Now()
		m.tokens = []fleet.Token{
			{ID: "token-a", Name: "a", FirstUsedAt: when},
			{ID: "token-b", Name: "b", FirstUsedAt: when, RevokedAt: when},
			{ID: "token-new", Name: "new"},
			{ID: "token-withdrawn", Name: "withdrawn", RevokedAt: when},
			{ID: "token-c", Name: "c, whose first use the list does not tell yet"},
			{ID: "token-forgotten", Name: "its instance was forgotten", FirstUsedAt: when},
		}
		v := follow(t, m, nil)
		out := stats(t, v, fleet.ViewQuery{})
		equal(t, "rows", rows(out), []string{"a ok", "b revoked", "c ok", "token-new never", "token-withdrawn revoked"})
		if never := out.Replicas[3]; never.InstanceID != nil || *never.TokenID != "token-new" || never.Lifetime != nil {
			t.Errorf("got %+v, want a row of a token and no instance", never)
		}
		equal(t, "coverage", fmt.Sprint(out.Coverage.Reporting, out.Coverage.Total), "2 2")
		equal(t, "statuses", v.Statuses(), map[fleet.Status]int{fleet.StatusOK: 2, fleet.StatusRevoked: 2, fleet.StatusNever: 1})

		m.change(fleet.Hint{Tokens: true}, func() { m.tokens[0].RevokedAt = when })
		time.Sleep(200 * time.Millisecond)
		equal(t, "a row whose token was revoked", rows(stats(t, v, fleet.ViewQuery{}))[0], "a revoked")
	})
}

func TestChangesShowSoon(t *testing.T) {
	for name, c := range map[string]struct {
		silent bool
		within time.Duration
	}{
		"by a hint":                 {false, 100 * time.Millisecond},
		"by the sweep, hints lost":  {true, 1100 * time.Millisecond},
		"two seconds are the limit": {true, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				m.push(instance("a", fleet.Outcomes{fleet.Cached: 1}))
				v := follow(t, m, nil)
				m.silent = c.silent
				for i := range 20 { // at any phase of the sweep
					time.Sleep(77 * time.Millisecond)
					want := uint64(10 + i)
					m.push(instance("a", fleet.Outcomes{fleet.Cached: want}))
					m.push(instance(fmt.Sprintf("new-%d", i), fleet.Outcomes{}))
					time.Sleep(c.within)
					synctest.Wait()
					out := stats(t, v, fleet.ViewQuery{})
					equal(t, "count", out.Replicas[0].ResponseDistribution.Total(), want)
					equal(t, "rows", len(out.Replicas), i+2)
				}
			})
		})
	}
}

func TestHintsAreReadTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		v := follow(t, m, nil)
		before := m.called("Instances")
		for i := range 400 {
			m.push(instance(fmt.Sprintf("i%d", i), fleet.Outcomes{}))
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		equal(t, "rows", len(stats(t, v, fleet.ViewQuery{}).Replicas), 400)
		if got := m.called("Instances") - before; got > 2 {
			t.Errorf("got %d reads for 400 pushes in 40 ms, want one or two", got)
		}
	})
}

func TestAForgottenInstanceIsGone(t *testing.T) {
	for name, c := range map[string]struct {
		silent bool
		within time.Duration
	}{
		"by a hint":                       {false, 100 * time.Millisecond},
		"by the full load, the hint lost": {true, 62 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				m.push(instance("a", fleet.Outcomes{}))
				v := follow(t, m, nil)
				m.silent = c.silent
				changed := v.Changed()
				m.change(fleet.Hint{InstanceID: "a"}, func() { delete(m.instances, "a") })
				time.Sleep(c.within)
				equal(t, "rows", len(stats(t, v, fleet.ViewQuery{}).Replicas), 0)
				select {
				case <-changed:
				default:
					t.Error("nobody was told")
				}
			})
		})
	}
}

func TestABrokenStoreEmptiesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.push(instance("a", fleet.Outcomes{fleet.Cached: 3}))
		v := follow(t, m, localPrimary("p", "boot", fleet.Outcomes{fleet.Cached: 4}))
		equal(t, "errors", parts(stats(t, v, fleet.ViewQuery{})), []string{})

		m.fail(fmt.Errorf("%w: connection refused", fleet.ErrUnavailable), "Instances", "Seen", "Tokens", "Policy")
		time.Sleep(20 * time.Second)
		out := stats(t, v, fleet.ViewQuery{})
		equal(t, "rows", rows(out), []string{"a ok"})
		equal(t, "errors", parts(out), []string{"store"})
		equal(t, "total", out.Totals.ResponseDistribution.Total(), 7)
		time.Sleep(20 * time.Second)
		equal(t, "rows later", rows(stats(t, v, fleet.ViewQuery{})), []string{"a stale"})
		time.Sleep(ttl)
		out = stats(t, v, fleet.ViewQuery{})
		equal(t, "rows past the TTL", rows(out), []string{"a offline"})
		equal(t, "lifetime past the TTL", out.Replicas[0].Lifetime.Total(), 3)

		m.push(instance("a", fleet.Outcomes{fleet.Cached: 9}))
		m.fail(nil, "Instances", "Seen", "Tokens", "Policy")
		time.Sleep(6 * time.Second)
		out = stats(t, v, fleet.ViewQuery{})
		equal(t, "rows when it is back", rows(out), []string{"a ok"})
		equal(t, "errors when it is back", parts(out), []string{})
	})
}

func TestTheFirstRetryComesWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.fail(fleet.ErrUnavailable, "Seen")
		v := follow(t, m, nil)
		m.fail(nil, "Seen")
		time.Sleep(time.Second)
		equal(t, "errors", parts(stats(t, v, fleet.ViewQuery{})), []string{})
	})
}

func TestOneBrokenPartIsNamed(t *testing.T) {
	for method, part := range map[string]string{"Tokens": "tokens", "Policy": "policy", "Instances": "store", "Seen": "store"} {
		t.Run(method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				m.push(instance("a", fleet.Outcomes{}))
				v := follow(t, m, nil)
				m.fail(fleet.ErrUnavailable, method)
				for range 70 { // sweeps read instances only when they differ
					m.push(instance("a", fleet.Outcomes{}))
					time.Sleep(100 * time.Millisecond)
				}
				out := stats(t, v, fleet.ViewQuery{})
				equal(t, "errors", parts(out), []string{part})
				equal(t, "rows", len(out.Replicas), 1)
				m.fail(nil, method)
				time.Sleep(7 * time.Second)
				equal(t, "errors afterwards", parts(stats(t, v, fleet.ViewQuery{})), []string{})
			})
		})
	}
}

func TestAViewThatNeverLoadedShowsItsPrimary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.fail(fleet.ErrUnavailable, "Instances", "Seen", "Watch", "Tokens", "Policy")
		v := follow(t, m, localPrimary("p", "boot", fleet.Outcomes{fleet.Blocked: 4}))
		out := stats(t, v, fleet.ViewQuery{})
		if out.Primary == nil || out.Primary.Status != fleet.StatusOK || out.Primary.ResponseDistribution.Total() != 4 {
			t.Fatalf("got primary %+v, want it with what it counted", out.Primary)
		}
		equal(t, "errors", parts(out), []string{"store"})
		if out.Primary.Lifetime != nil || out.Totals.Lifetime != nil {
			t.Errorf("lifetime: got %v and %v, want null: what earlier boots counted is not known", out.Primary.Lifetime, out.Totals.Lifetime)
		}
		if out.Primaries == nil || out.Replicas == nil || out.Coverage.Missing == nil {
			t.Errorf("got a null list")
		}
	})
}

func localPrimary(id, boot string, counts fleet.Outcomes) view.LocalSource {
	return func() fleet.Instance {
		in := instance(id, counts)
		in.Role, in.BootID, in.TokenID = fleet.RolePrimary, boot, ""
		return in
	}
}

func TestTheAnsweringPrimaryIsLive(t *testing.T) {
	for name, c := range map[string]struct {
		boot string
		want uint64
	}{
		"the store has this boot":            {"now", 1000 + 70},
		"the store has only the boot before": {"before", 1000 + 50 + 70},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				stored := instance("p", fleet.Outcomes{fleet.Cached: 50})
				stored.Role, stored.BootID, stored.Ended = fleet.RolePrimary, c.boot, fleet.Outcomes{fleet.Cached: 1000}
				m.push(stored)
				other := instance("q", fleet.Outcomes{fleet.Cached: 1})
				other.Role = fleet.RolePrimary
				m.push(other)
				v := follow(t, m, localPrimary("p", "now", fleet.Outcomes{fleet.Cached: 70}))
				time.Sleep(time.Hour)
				out := stats(t, v, fleet.ViewQuery{})
				equal(t, "source", *out.Primary.Source, fleet.SourceLocal)
				equal(t, "age", *out.Primary.AgeSeconds, 0.0)
				equal(t, "counters", out.Primary.ResponseDistribution.Total(), 70)
				equal(t, "lifetime", out.Primary.Lifetime.Total(), c.want)
				equal(t, "primaries", len(out.Primaries), 2)
				equal(t, "the other one", out.Primaries[1].Status, fleet.StatusOffline)
				equal(t, "replicas", len(out.Replicas), 0)
				equal(t, "lifetime of all", out.Totals.Lifetime.Total(), c.want+1)
			})
		})
	}
}

func TestTotalsComeFromSumsAndCoverageFromThoseThatAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.push(instance("small", fleet.Outcomes{fleet.Blocked: 1, fleet.Upstream: 1}))
		m.push(instance("large", fleet.Outcomes{fleet.Blocked: 9, fleet.Upstream: 989}))
		frontend := instance("frontend", fleet.Outcomes{})
		frontend.DNS, frontend.Role = false, fleet.RolePrimary
		m.push(frontend)
		v := follow(t, m, nil)
		out := stats(t, v, fleet.ViewQuery{Limit: 1, Status: []fleet.Status{fleet.StatusOffline}})
		equal(t, "blocked percent", *out.Totals.BlockedPercent, 1.0)
		equal(t, "coverage, whatever was asked for", fmt.Sprint(out.Coverage.Reporting, out.Coverage.Total), "2 2")
		if out.Totals.CachedPercent == nil || *out.Totals.CachedPercent != 0 {
			t.Errorf("cached percent: got %v, want 0", out.Totals.CachedPercent)
		}
	})
}

func TestPolicyDriftFollowsThePolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.push(instance("a", fleet.Outcomes{}))
		v := follow(t, m, nil)
		equal(t, "without a policy", *stats(t, v, fleet.ViewQuery{}).Replicas[0].PolicyDrift, false)
		m.change(fleet.Hint{Policy: true}, func() { m.policy = fleet.PolicyDoc{Revision: 2, Hash: "h2"} })
		time.Sleep(100 * time.Millisecond)
		equal(t, "with another policy", *stats(t, v, fleet.ViewQuery{}).Replicas[0].PolicyDrift, true)
		m.silent = true
		m.change(fleet.Hint{Policy: true}, func() { m.policy = fleet.PolicyDoc{Revision: 3, Hash: "h"} })
		time.Sleep(3 * time.Second)
		equal(t, "with its own again, the hint lost", *stats(t, v, fleet.ViewQuery{}).Replicas[0].PolicyDrift, false)
	})
}

func TestAStepOfTheStoresClockChangesNoStatusForLong(t *testing.T) {
	for name, step := range map[string]time.Duration{"an hour back": -time.Hour, "ten years on": 87600 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				v := follow(t, m, nil)
				push := func(n uint64) { m.push(instance("a", fleet.Outcomes{fleet.Cached: n})) }
				push(1)
				time.Sleep(5 * time.Second)
				m.change(fleet.Hint{}, func() { m.skew += step })
				time.Sleep(5 * time.Second)
				push(2)
				time.Sleep(2 * time.Second)
				out := stats(t, v, fleet.ViewQuery{})
				equal(t, "row", rows(out), []string{"a ok"})
				equal(t, "count", out.Replicas[0].ResponseDistribution.Total(), 2)

				m.silent = true
				m.change(fleet.Hint{}, func() { m.skew += step })
				push(3)
				time.Sleep(2 * time.Second)
				out = stats(t, v, fleet.ViewQuery{})
				equal(t, "row right after another step, the hint lost", rows(out), []string{"a ok"})
				equal(t, "count", out.Replicas[0].ResponseDistribution.Total(), 3)
			})
		})
	}
}

func TestReloadShowsAChangeAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		v := follow(t, m, nil)
		m.silent = true
		m.push(instance("a", fleet.Outcomes{}))
		m.change(fleet.Hint{}, func() { m.tokens = append(m.tokens, fleet.Token{ID: "t9", Name: "new"}) })
		equal(t, "rows before", rows(stats(t, v, fleet.ViewQuery{})), []string{})
		for _, h := range []fleet.Hint{{InstanceID: "a"}, {Tokens: true}} {
			if err := v.Reload(t.Context(), h); err != nil {
				t.Fatal(err)
			}
		}
		equal(t, "rows", rows(stats(t, v, fleet.ViewQuery{})), []string{"a ok", "t9 never"})
		m.fail(fleet.ErrUnavailable, "Instances")
		if err := v.Reload(t.Context(), fleet.Hint{InstanceID: "a"}); err == nil {
			t.Error("got no error from a store that is away")
		}
	})
}

func TestChangedTellsOfChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.push(instance("a", fleet.Outcomes{}))
		v := follow(t, m, nil)
		changed := v.Changed()
		time.Sleep(3 * time.Minute)
		select {
		case <-changed:
			t.Error("time that passes is no change")
		default:
		}
		m.push(instance("a", fleet.Outcomes{}))
		time.Sleep(100 * time.Millisecond)
		select {
		case <-changed:
		default:
			t.Error("a push is a change")
		}
	})
}

func TestInstanceTellsTheReportBehindTheRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		in := instance("a", fleet.Outcomes{})
		in.Report.ControlURL = "https://a.example:8081"
		m.push(in)
		v := follow(t, m, localPrimary("p", "boot", fleet.Outcomes{}))
		row, report, err := v.Instance("a")
		if err != nil || row.Name != "name of a" || report.ControlURL != in.Report.ControlURL {
			t.Errorf("got %+v, %+v, %v", row, report, err)
		}
		m.fail(fleet.ErrUnavailable, "Instances", "Seen") // so that the report expires in memory
		time.Sleep(ttl + time.Second)
		if row, report, err := v.Instance("a"); err != nil || row.Status != fleet.StatusOffline || report != nil {
			t.Errorf("got %s, %+v, %v; want no report once it has expired", row.Status, report, err)
		}
		if row, _, err := v.Instance("p"); err != nil || *row.Source != fleet.SourceLocal {
			t.Errorf("got %+v, %v, want the local row", row, err)
		}
		if _, _, err := v.Instance("nobody"); !isNotFound(err) {
			t.Errorf("got %v, want not found", err)
		}
	})
}

func TestRowsKeepTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		for _, id := range []string{"c", "a", "d", "b"} {
			in := instance(id, fleet.Outcomes{})
			in.Name = "same"
			m.push(in)
		}
		first := instance("z", fleet.Outcomes{})
		first.Name = "earlier"
		m.push(first)
		v := follow(t, m, nil)
		want := []string{"z ok", "a ok", "b ok", "c ok", "d ok"}
		for range 10 {
			m.push(m.instances["d"])
			time.Sleep(100 * time.Millisecond)
			if got := rows(stats(t, v, fleet.ViewQuery{})); !slices.Equal(got, want) {
				t.Fatalf("got %v, want %v", got, want)
			}
		}
	})
}
