package view_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/view"
)

// lastHour tells what it was set to, after a while.
type lastHour struct {
	mu    sync.Mutex // guards the following
	rows  map[string]fleet.QueryBreakdown
	err   error
	takes time.Duration
}

func (l *lastHour) Hour(ctx context.Context) (map[string]fleet.QueryBreakdown, error) {
	l.mu.Lock()
	rows, err, takes := l.rows, l.err, l.takes
	l.mu.Unlock()
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return rows, err
}

func (l *lastHour) set(rows map[string]fleet.QueryBreakdown, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows, l.err = rows, err
}

func queriesOf(total uint64) fleet.QueryBreakdown {
	return fleet.QueryBreakdown{
		Source: "sqlite", Window: "1h", Total: total, Quantiles: fleet.Quantiles{P50: new(1.5), P95: new(20.25)},
		Upstreams: []fleet.UpstreamStats{{Address: `udp://<script>&"`, Count: total, Errors: 1, Avg: new(3.0)}},
	}
}

// withQueries is a loaded view of a primary "p", replicas "a" and "b" and an unused token, whose queries q tells.
func withQueries(t *testing.T, q view.Queries) *view.View {
	t.Helper()
	m := newMemory()
	m.push(instance("a", fleet.Outcomes{fleet.Cached: 1}))
	m.push(instance("b", fleet.Outcomes{fleet.Cached: 2}))
	m.tokens = []fleet.Token{{ID: "unused", Name: "unused"}}
	v := view.New(view.Options{Store: m, Local: localPrimary("p", "boot", fleet.Outcomes{fleet.Cached: 3}), Queries: q})
	if err := v.Reload(t.Context(), fleet.Hint{}); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestRowsShowTheirLastHourOfQueries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &lastHour{rows: map[string]fleet.QueryBreakdown{"a": queriesOf(7), "p": queriesOf(9), "unused": queriesOf(1), "gone": queriesOf(1)}}
		v := withQueries(t, q)
		totals := func(out fleet.View) string {
			var short []string
			for _, r := range append(append([]fleet.Row{*out.Primary}, out.Primaries...), out.Replicas...) {
				if r.Queries == nil {
					short = append(short, r.Key()+" none")
					continue
				}
				short = append(short, fmt.Sprint(r.Key(), " ", r.Queries.Total))
			}
			return strings.Join(short, ", ")
		}
		out := stats(t, v, fleet.ViewQuery{})
		equal(t, "queries", totals(out), "p 9, p 9, a 7, b none, unused none")
		equal(t, "errors", out.Errors, []fleet.PartError{})
		check := func(what string) {
			t.Helper()
			for name, q := range map[string]fleet.ViewQuery{"everything": {}, "a page": {Limit: 1}} {
				_, body := statsJSON(t, v, q)
				want, err := json.Marshal(stats(t, v, q))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tree(t, want), tree(t, body)); diff != "" {
					t.Errorf("%s, %s (-encoding/json +view):\n%s", what, name, diff)
				}
			}
		}
		check("at first")
		if row, _, err := v.Instance("a"); err != nil || row.Queries == nil || row.Queries.Total != 7 {
			t.Errorf("one instance: got %+v, %v", row.Queries, err)
		}
		q.set(map[string]fleet.QueryBreakdown{"a": queriesOf(8), "b": queriesOf(2)}, nil)
		equal(t, "queries when they are told anew", totals(stats(t, v, fleet.ViewQuery{})), "p none, p none, a 8, b 2, unused none")
		check("told anew")
		_, body := statsJSON(t, v, fleet.ViewQuery{Fields: []string{"queries"}})
		var chosen struct{ Replicas []map[string]json.RawMessage }
		if err := json.Unmarshal(body, &chosen); err != nil || len(chosen.Replicas[0]) != 3 || string(chosen.Replicas[2]["queries"]) != "null" {
			t.Errorf("chosen fields: got %s, %v", body, err)
		}
	})
}

func TestQueriesThatCannotBeHadAreNamedAndEmptyNothing(t *testing.T) {
	gone := errors.New("query log unavailable: connection refused")
	q := &lastHour{rows: map[string]fleet.QueryBreakdown{"b": queriesOf(2)}, err: gone}
	v := withQueries(t, q)
	out := stats(t, v, fleet.ViewQuery{})
	equal(t, "errors", out.Errors, []fleet.PartError{{Part: "queries", Error: gone.Error()}})
	if out.Replicas[1].Queries == nil || out.Replicas[0].ResponseDistribution.Total() != 1 {
		t.Errorf("got %+v, want the rows that could be had", out.Replicas)
	}
	q.set(nil, gone)
	equal(t, "errors without rows", stats(t, v, fleet.ViewQuery{}).Errors, []fleet.PartError{{Part: "queries", Error: gone.Error()}})
	q.set(map[string]fleet.QueryBreakdown{}, nil)
	equal(t, "errors when it is back", stats(t, v, fleet.ViewQuery{}).Errors, []fleet.PartError{})
	out = stats(t, withQueries(t, nil), fleet.ViewQuery{})
	equal(t, "errors where there are none", out.Errors, []fleet.PartError{{Part: "queries", Error: "query log is not available"}})
}

func TestTheETagCoversQueries(t *testing.T) {
	rows := map[string]fleet.QueryBreakdown{"a": queriesOf(7)}
	q := &lastHour{rows: rows}
	v := withQueries(t, q)
	last, _ := statsJSON(t, v, fleet.ViewQuery{})
	for _, step := range []struct {
		what string
		rows map[string]fleet.QueryBreakdown
		err  error
		same bool
	}{
		{"the same", rows, nil, true},
		{"the same, read anew", maps.Clone(rows), nil, true},
		{"another count", map[string]fleet.QueryBreakdown{"a": queriesOf(8)}, nil, false},
		{"one instance more", map[string]fleet.QueryBreakdown{"a": queriesOf(8), "b": queriesOf(1)}, nil, false},
		{"an error", map[string]fleet.QueryBreakdown{"a": queriesOf(8), "b": queriesOf(1)}, errors.New("away"), false},
		{"another error", nil, errors.New("still away"), false},
		{"nothing", nil, nil, false},
	} {
		q.set(step.rows, step.err)
		now, _ := statsJSON(t, v, fleet.ViewQuery{})
		if same := now == last; same != step.same {
			t.Errorf("%s: same ETag %t, want %t", step.what, same, step.same)
		}
		last = now
	}
}

func TestOnlyWhatShowsQueriesWaitsForThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &lastHour{takes: time.Second, rows: map[string]fleet.QueryBreakdown{"a": queriesOf(7)}}
		v := withQueries(t, q)
		began := time.Now()
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if out := stats(t, v, fleet.ViewQuery{}); out.Replicas[0].Queries == nil {
					t.Error("got no queries although they came in time")
				}
				if took := time.Since(began); took != time.Second {
					t.Errorf("a view took %s, want no more than the queries", took)
				}
			})
		}
		synctest.Wait()
		v.Statuses()
		v.Refresh()
		if err := v.Reload(t.Context(), fleet.Hint{}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("what shows no queries took %s", took)
		}
		all.Wait()

		q.takes = time.Hour // which it has promised not to
		began = time.Now()
		if out := stats(t, v, fleet.ViewQuery{}); len(out.Replicas) != 3 || len(out.Errors) != 1 {
			t.Errorf("got %d rows, errors %v", len(out.Replicas), out.Errors)
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("a view took %s of queries that hang, want two seconds", took)
		}
	})
}
