package querylogtest

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
)

// question is a filter, and what it finds in the events.
type question struct {
	fleet.QueryFilter
	found []event
	off   *deviations
}

func (l *log) filters() map[string]fleet.QueryFilter {
	at := func(d time.Duration) time.Time { return l.start.Add(d) }
	window := func(from, to time.Duration) fleet.QueryFilter { return fleet.QueryFilter{From: at(from), To: at(to)} }
	with := func(change func(f *fleet.QueryFilter)) fleet.QueryFilter {
		f := window(0, days*day)
		change(&f)
		return f
	}
	some := l.events[len(l.events)/3].ts()
	filters := map[string]fleet.QueryFilter{
		"everything, without a window":      {},
		"from an instant on":                {From: at(day)},
		"up to an instant":                  {To: at(day)},
		"all days":                          window(0, days*day),
		"an hour":                           window(5*time.Hour, 6*time.Hour),
		"the minute with the most events":   window(day+12*time.Hour, day+12*time.Hour+time.Minute),
		"edges inside of minutes":           window(day+11*time.Hour+59*time.Minute+30123*time.Millisecond, day+14*time.Hour+12*time.Second+7*time.Millisecond),
		"a window inside of one minute":     window(day+12*time.Hour+10001*time.Millisecond, day+12*time.Hour+20017*time.Millisecond),
		"one millisecond with an event":     {From: some, To: some.Add(time.Millisecond)},
		"up to the millisecond of an event": {From: some.Add(-time.Hour), To: some},
		"over midnight":                     window(day-90*time.Minute, day+90*time.Minute),
		"hours without queries":             window(2*time.Hour, 4*time.Hour),
		"before the first event":            window(-2*day, -day),
		"a window of nothing":               window(day, day),
		"a window turned round":             window(2*day, day),

		"an instance":                      with(func(f *fleet.QueryFilter) { f.Instances = []string{"box3"} }),
		"two instances, one unknown":       with(func(f *fleet.QueryFilter) { f.Instances = []string{"box5", "box2", "box9"} }),
		"an unknown instance":              with(func(f *fleet.QueryFilter) { f.Instances = []string{"nobody"} }),
		"an instance and a domain":         with(func(f *fleet.QueryFilter) { f.Instances = []string{"box1"}; f.Domain = "example.net" }),
		"a domain":                         with(func(f *fleet.QueryFilter) { f.Domain = "example.com" }),
		"a domain without a window":        {Domain: "cdn.example.com"},
		"a domain that ends another":       with(func(f *fleet.QueryFilter) { f.Domain = "badexample.com" }),
		"a domain of one label":            with(func(f *fleet.QueryFilter) { f.Domain = "com" }),
		"a domain that is no pattern":      with(func(f *fleet.QueryFilter) { f.Domain = "example_com" }),
		"a domain that nobody asked for":   with(func(f *fleet.QueryFilter) { f.Domain = "xample.com" }),
		"a client's address":               with(func(f *fleet.QueryFilter) { f.Client = "10.0.0.1" }),
		"a client's IPv6 address":          with(func(f *fleet.QueryFilter) { f.Client = "2001:db8::1" }),
		"a client's name":                  with(func(f *fleet.QueryFilter) { f.Client = "host1.lan" }),
		"a client that is a pattern":       with(func(f *fleet.QueryFilter) { f.Client = "host_.lan" }),
		"an outcome":                       with(func(f *fleet.QueryFilter) { f.Outcomes = []fleet.Outcome{fleet.Blocked} }),
		"several outcomes":                 with(func(f *fleet.QueryFilter) { f.Outcomes = []fleet.Outcome{fleet.Servfail, fleet.UpstreamError} }),
		"a type":                           with(func(f *fleet.QueryFilter) { f.QType = "AAAA" }),
		"a type without a name":            with(func(f *fleet.QueryFilter) { f.QType = "TYPE65280" }),
		"a type that nobody asked for":     with(func(f *fleet.QueryFilter) { f.QType = "MX" }),
		"an upstream":                      with(func(f *fleet.QueryFilter) { f.Upstream = "udp://192.0.2.1:53" }),
		"an upstream with odd characters":  with(func(f *fleet.QueryFilter) { f.Upstream = "https://dns.example/q?a='b'&c=%20_" }),
		"everything at once, in some hour": {},
	}
	filters["everything at once, in some hour"] = fleet.QueryFilter{
		From: at(day), To: at(day + 13*time.Hour), Instances: []string{"box1", "box2"}, Domain: "com", QType: "A",
		Outcomes: []fleet.Outcome{fleet.Upstream, fleet.Servfail}, Upstream: "udp://192.0.2.1:53",
	}
	return filters
}

// oddFilters ask for texts that mean something to a database.
func (l *log) oddFilters() map[string]fleet.QueryFilter {
	filters := map[string]fleet.QueryFilter{}
	with := func(change func(f *fleet.QueryFilter)) fleet.QueryFilter {
		f := fleet.QueryFilter{From: l.start, To: l.start.Add(days * day)}
		change(&f)
		return f
	}
	for _, text := range odd {
		filters["domain "+text] = with(func(f *fleet.QueryFilter) { f.Domain = strings.ReplaceAll(text, ".", "") + ".odd.test" })
		filters["client "+text] = with(func(f *fleet.QueryFilter) { f.Client = text })
		filters["type "+text] = with(func(f *fleet.QueryFilter) { f.QType = text })
		filters["upstream "+text] = with(func(f *fleet.QueryFilter) { f.Upstream = text })
		filters["instance "+text] = with(func(f *fleet.QueryFilter) { f.Instances = []string{text} })
	}
	return filters
}

// testAnswers asks everything of every filter. Nothing is written meanwhile, so the questions are asked at the same time.
func testAnswers(t *testing.T, l *log, reader querylog.Reader, off *deviations, oneOf int) {
	for name, filter := range some(l.oddFilters(), oneOf) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := question{filter, matching(l.events, filter), off}
			testSummary(t, q, reader, true)
			testExport(t, q, reader)
		})
	}
	for name, filter := range some(l.filters(), oneOf) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := question{filter, matching(l.events, filter), off}
			for _, grouped := range []bool{true, false} {
				if q.Filtered() && !grouped {
					break // what is not filtered covers that; this suite is long enough
				}
				testSummary(t, q, reader, grouped)
				testLatency(t, q, reader, grouped)
				testUpstreams(t, q, reader, grouped)
				testTops(t, q, reader, 20, grouped)
				if !q.From.IsZero() && !q.To.IsZero() && q.To.Sub(q.From) <= days*day {
					testSeries(t, q, reader, grouped)
				}
			}
			testClients(t, q, reader)
			testExport(t, q, reader)
		})
	}
	t.Run("a top of one", func(t *testing.T) {
		t.Parallel()
		testTops(t, question{fleet.QueryFilter{}, l.events, off}, reader, 1, true)
	})
}

// some are one of so many filters, in the order of their names.
func some(filters map[string]fleet.QueryFilter, oneOf int) map[string]fleet.QueryFilter {
	chosen := map[string]fleet.QueryFilter{}
	for i, name := range slices.Sorted(maps.Keys(filters)) {
		if i%oneOf == 0 {
			chosen[name] = filters[name]
		}
	}
	return chosen
}

func testSummary(t *testing.T, q question, reader querylog.Reader, grouped bool) {
	t.Helper()
	got, err := reader.Summary(limited(t), q.QueryFilter, grouped)
	if err != nil {
		t.Errorf("Summary: %v", err)
		return
	}
	if want := outcomes(q.found); got.Total != uint64(len(q.found)) || got.Outcomes != want {
		t.Errorf("Summary: got %d, %v, want %d, %v", got.Total, got.Outcomes, len(q.found), want)
	}
	if !grouped {
		wantNoGroups(t, "Summary", len(got.Groups))
		return
	}
	ids, groups := byInstance(q.found)
	compareIDs(t, "Summary", groupIDs(got.Groups, func(g fleet.QuerySummaryGroup) string { return g.InstanceID }), ids)
	for _, g := range got.Groups {
		if want := outcomes(groups[g.InstanceID]); g.Outcomes != want || g.Total != want.Total() {
			t.Errorf("Summary of %s: got %d, %v, want %v", g.InstanceID, g.Total, g.Outcomes, want)
		}
	}
}

func wantNoGroups(t *testing.T, what string, n int) {
	t.Helper()
	if n != 0 {
		t.Errorf("%s: got %d groups that were not asked for", what, n)
	}
}

func testLatency(t *testing.T, q question, reader querylog.Reader, grouped bool) {
	t.Helper()
	got, err := reader.Latency(limited(t), q.QueryFilter, grouped)
	if err != nil {
		t.Errorf("Latency: %v", err)
		return
	}
	compareLatency := func(what string, count uint64, avg *float64, quantiles fleet.Quantiles, found []event) {
		t.Helper()
		sorted := durations(found)
		if count != uint64(len(sorted)) {
			t.Errorf("%s: got a count of %d, want %d", what, count, len(sorted))
		}
		q.off.compareMean(t, what, avg, sorted)
		q.off.compareQuantiles(t, what, quantiles, sorted)
	}
	compareLatency("Latency", got.Count, got.AvgMS, got.Quantiles, q.found)
	if !grouped {
		wantNoGroups(t, "Latency", len(got.Groups))
		return
	}
	ids, groups := byInstance(q.found)
	compareIDs(t, "Latency", groupIDs(got.Groups, func(g fleet.QueryLatencyGroup) string { return g.InstanceID }), ids)
	for _, g := range got.Groups {
		compareLatency("Latency of "+g.InstanceID, g.Count, g.AvgMS, g.Quantiles, groups[g.InstanceID])
	}
}

func testSeries(t *testing.T, q question, reader querylog.Reader, grouped bool) {
	t.Helper()
	lengths := []time.Duration{time.Minute, time.Hour, day}
	switch window := q.To.Sub(q.From); {
	case window <= time.Minute:
		lengths = append(lengths, time.Second, 10*time.Second)
	case q.Filtered():
		lengths = []time.Duration{7 * time.Hour}
	case window > day:
		lengths = []time.Duration{7 * time.Minute, time.Hour, day}
	}
	for _, step := range lengths {
		got, err := reader.Series(limited(t), q.QueryFilter, step, grouped)
		if err != nil {
			t.Errorf("Series in steps of %s: %v", step, err)
			continue
		}
		if got.StepSeconds != int(step/time.Second) || got.Points == nil {
			t.Errorf("Series: got steps of %d s, points nil: %t, want %s and a list", got.StepSeconds, got.Points == nil, step)
		}
		starts := steps(q.From, q.To, step)
		q.off.comparePoints(t, fmt.Sprintf("Series in steps of %s", step), got.Points, starts, step, q.found)
		if !grouped {
			wantNoGroups(t, "Series", len(got.Groups))
			continue
		}
		var inSteps []event // what lies before the first step is in none
		if len(starts) > 0 {
			inSteps = matching(q.found, fleet.QueryFilter{From: starts[0]})
		}
		ids, groups := byInstance(inSteps)
		compareIDs(t, "Series", groupIDs(got.Groups, func(g fleet.QuerySeriesGroup) string { return g.InstanceID }), ids)
		for _, g := range got.Groups {
			q.off.comparePoints(t, fmt.Sprintf("Series of %s in steps of %s", g.InstanceID, step), g.Points, starts, step, groups[g.InstanceID])
		}
	}
}

func (d *deviations) comparePoints(t *testing.T, what string, got []fleet.QueryPoint, starts []time.Time, step time.Duration, found []event) {
	t.Helper()
	if len(got) != len(starts) {
		t.Errorf("%s: got %d points, want %d", what, len(got), len(starts))
		return
	}
	byStart := map[int64][]event{}
	for _, e := range found {
		at := stepOf(e.ts(), step).UnixMilli()
		byStart[at] = append(byStart[at], e)
	}
	for i, p := range got {
		events := byStart[starts[i].UnixMilli()]
		if want := outcomes(events); !p.TS.Equal(starts[i]) || p.Outcomes != want || p.Total != want.Total() {
			t.Errorf("%s: point %d: got %s %d %v, want %s %v", what, i, p.TS, p.Total, p.Outcomes, starts[i], want)
			return
		}
		d.compareQuantiles(t, fmt.Sprintf("%s: point %d", what, i), p.Quantiles, durations(events))
	}
}

func testUpstreams(t *testing.T, q question, reader querylog.Reader, grouped bool) {
	t.Helper()
	got, err := reader.Upstreams(limited(t), q.QueryFilter, grouped)
	if err != nil {
		t.Errorf("Upstreams: %v", err)
		return
	}
	q.off.compareUpstreams(t, "Upstreams", got.Upstreams, q.found)
	if !grouped {
		wantNoGroups(t, "Upstreams", len(got.Groups))
		return
	}
	ids, groups := byInstance(matchingUpstream(q.found))
	compareIDs(t, "Upstreams", groupIDs(got.Groups, func(g fleet.QueryUpstreamGroup) string { return g.InstanceID }), ids)
	for _, g := range got.Groups {
		q.off.compareUpstreams(t, "Upstreams of "+g.InstanceID, g.Upstreams, groups[g.InstanceID])
	}
}

func matchingUpstream(events []event) []event {
	return slices.DeleteFunc(slices.Clone(events), func(e event) bool { return e.Upstream == "" })
}

func (d *deviations) compareUpstreams(t *testing.T, what string, got []fleet.QueryUpstream, found []event) {
	t.Helper()
	if got == nil {
		t.Errorf("%s: got nil, want a list", what)
	}
	want := top(found, func(e event) string { return e.Upstream }, math.MaxInt)
	if len(got) != len(want) {
		t.Errorf("%s: got %d, want %d", what, len(got), len(want))
		return
	}
	for i, u := range got {
		errs, answered := uint64(0), []event{}
		for _, e := range found {
			switch {
			case e.Upstream != want[i].Name:
			case e.failed():
				errs++
			default:
				answered = append(answered, e)
			}
		}
		if u.Address != want[i].Name || u.Count != want[i].Count || u.Errors != errs {
			t.Errorf("%s: got %s with %d and %d errors, want %s with %d and %d", what, u.Address, u.Count, u.Errors, want[i].Name, want[i].Count, errs)
		}
		sorted := durations(answered)
		d.compareMean(t, what+": "+u.Address, u.AvgMS, sorted)
		d.compareQuantile(t, what+": p95 of "+u.Address, u.P95MS, sorted, 0.95)
	}
}

func testTops(t *testing.T, q question, reader querylog.Reader, limit int, grouped bool) {
	t.Helper()
	got, err := reader.TopDomains(limited(t), q.QueryFilter, limit, grouped)
	compareTop(t, "TopDomains", got, err, q.found, event.name, limit, grouped)
	got, err = reader.TopClients(limited(t), q.QueryFilter, limit, grouped)
	compareTop(t, "TopClients", got, err, q.found, event.client, limit, grouped)
}

func compareTop(t *testing.T, what string, got fleet.QueryTop, err error, found []event, key func(event) string, limit int, grouped bool) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if want := top(found, key, limit); !slices.Equal(got.Items, want) || got.Items == nil {
		t.Errorf("%s: got %v, want %v", what, got.Items, want)
	}
	if !grouped {
		wantNoGroups(t, what, len(got.Groups))
		return
	}
	ids, groups := byInstance(slices.DeleteFunc(slices.Clone(found), func(e event) bool { return key(e) == "" }))
	compareIDs(t, what, groupIDs(got.Groups, func(g fleet.QueryTopGroup) string { return g.InstanceID }), ids)
	for _, g := range got.Groups {
		if want := top(groups[g.InstanceID], key, limit); !slices.Equal(g.Items, want) {
			t.Errorf("%s of %s: got %v, want %v", what, g.InstanceID, g.Items, want)
		}
	}
}

func testClients(t *testing.T, q question, reader querylog.Reader) {
	t.Helper()
	got, err := reader.Clients(limited(t), q.QueryFilter)
	if err != nil {
		t.Errorf("Clients: %v", err)
		return
	}
	want := len(top(q.found, event.client, math.MaxInt))
	if math.Abs(float64(got)-float64(want)) > tolerance*float64(want) {
		t.Errorf("Clients: got %d, want %d within %g", got, want, tolerance)
		return
	}
	if want > 0 {
		q.off.note(&q.off.uniques, math.Abs(float64(got)-float64(want))/float64(want))
	}
}

func testExport(t *testing.T, q question, reader querylog.Reader) {
	t.Helper()
	var got []fleet.QueryRow
	err := reader.Export(limited(t), q.QueryFilter, func(r fleet.QueryRow) error {
		got = append(got, r)
		return nil
	})
	if err != nil {
		t.Errorf("Export: %v", err)
		return
	}
	if !slices.IsSortedFunc(got, func(a, b fleet.QueryRow) int { return a.TS.Compare(b.TS) }) {
		t.Error("Export: rows are not in the order of time")
	}
	compareRows(t, "Export", got, q.found)
}

// compareRows holds rows, in any order, to the events.
func compareRows(t *testing.T, what string, got []fleet.QueryRow, found []event) {
	t.Helper()
	var want []fleet.QueryRow
	for _, e := range found {
		want = append(want, e.row())
	}
	if len(got) != len(want) {
		t.Errorf("%s: got %d rows, want %d", what, len(got), len(want))
		return
	}
	got = slices.Clone(got)
	slices.SortFunc(got, compareRow)
	slices.SortFunc(want, compareRow)
	for i := range want {
		g, w := got[i], want[i]
		if math.Abs(g.DurationMS-w.DurationMS) > 1e-6*w.DurationMS+0.0001 {
			t.Errorf("%s: got %g ms, want %g in %+v", what, g.DurationMS, w.DurationMS, w)
			return
		}
		if g.DurationMS = w.DurationMS; !g.TS.Equal(w.TS) {
			t.Errorf("%s: got %s, want %s", what, g.TS, w.TS)
			return
		}
		if g.TS = w.TS; g != w {
			t.Errorf("%s: got  %+v\nwant %+v", what, g, w)
			return
		}
	}
}

// compareRow is an order in which equal rows meet. Durations may differ in the last digits, so they come last.
func compareRow(a, b fleet.QueryRow) int {
	return cmp.Or(a.TS.Compare(b.TS), strings.Compare(a.InstanceID, b.InstanceID), strings.Compare(a.QName, b.QName),
		strings.Compare(a.ClientIP, b.ClientIP), strings.Compare(a.QType, b.QType), strings.Compare(a.Outcome, b.Outcome),
		strings.Compare(a.Protocol, b.Protocol), strings.Compare(a.UpstreamAddress, b.UpstreamAddress), strings.Compare(a.List, b.List),
		strings.Compare(a.RCode, b.RCode), cmp.Compare(a.DurationMS, b.DurationMS))
}
