package breakdown_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/breakdown"
)

// asks are all questions, by name. Each tells how many queries its answer is about, where it can be told.
var asks = map[string]func(context.Context, *breakdown.Breakdown, fleet.QueryFilter) (fleet.QueryAnswer, error){
	"summary": func(ctx context.Context, b *breakdown.Breakdown, f fleet.QueryFilter) (fleet.QueryAnswer, error) {
		_, about, err := b.Summary(ctx, f, true)
		return about, err
	},
	"latency": func(ctx context.Context, b *breakdown.Breakdown, f fleet.QueryFilter) (fleet.QueryAnswer, error) {
		_, about, err := b.Latency(ctx, f, true)
		return about, err
	},
	"series": func(ctx context.Context, b *breakdown.Breakdown, f fleet.QueryFilter) (fleet.QueryAnswer, error) {
		_, about, err := b.Series(ctx, f, time.Minute, true)
		return about, err
	},
	"upstreams": func(ctx context.Context, b *breakdown.Breakdown, f fleet.QueryFilter) (fleet.QueryAnswer, error) {
		_, about, err := b.Upstreams(ctx, f, true)
		return about, err
	},
	"top domains": func(ctx context.Context, b *breakdown.Breakdown, f fleet.QueryFilter) (fleet.QueryAnswer, error) {
		_, about, err := b.TopDomains(ctx, f, 10, true)
		return about, err
	},
	"top clients": func(ctx context.Context, b *breakdown.Breakdown, f fleet.QueryFilter) (fleet.QueryAnswer, error) {
		_, about, err := b.TopClients(ctx, f, 10, true)
		return about, err
	},
	"rows": func(ctx context.Context, b *breakdown.Breakdown, f fleet.QueryFilter) (fleet.QueryAnswer, error) {
		_, about, err := b.Rows(ctx, f, 10, "")
		return about, err
	},
	"export": func(ctx context.Context, b *breakdown.Breakdown, f fleet.QueryFilter) (fleet.QueryAnswer, error) {
		about, rows := b.Export(ctx, f)
		for _, err := range rows {
			if err != nil {
				return about, err
			}
		}
		return about, nil
	},
}

var rowAsks = map[string]bool{"rows": true, "export": true}

func gaps(about fleet.QueryAnswer) string {
	var all []string
	for _, g := range about.Missing {
		all = append(all, strings.TrimSpace(g.InstanceID+" "+g.Reason))
	}
	return strings.Join(all, "; ")
}

func TestWhereAnswersComeFrom(t *testing.T) {
	events := traffic()
	log := openLog(t, events, "a", "b")
	h := pushedHistory()
	const running = "reports reach to 2026-11-20T11:59:00Z: what runs is told when it is over"
	elsewhere, silent := members(ours, "", "sqlite:p2"), members(ours, ours, "off")
	for name, c := range map[string]struct {
		options      breakdown.Options
		filter       func(*fleet.QueryFilter)
		source, gaps string // of figures
		rowGaps      string // of rows; their source is that of the log
	}{
		"all instances are in the log, or not known to be elsewhere": {
			options(log, h, members(ours, "", ours)), nil, "sqlite", "", "",
		},
		"an instance that logs elsewhere sends all figures to reports": {
			options(log, h, elsewhere), nil, "reports", running, "c logs to sqlite:p2",
		},
		"an instance without a log does, too": {
			options(log, h, silent), nil, "reports", running, "c its log is off",
		},
		"unless it is not asked for": {
			options(log, h, elsewhere), func(f *fleet.QueryFilter) { f.Instances = []string{"a", "b"} }, "sqlite", "", "",
		},
		"who answers no DNS is missing nowhere": {
			options(log, h, members(ours, ours, ours)), func(f *fleet.QueryFilter) { f.Instances = []string{"web"} }, "sqlite", "", "",
		},
		"what reports do not know comes from the log, without those that are not in it": {
			options(log, h, elsewhere), func(f *fleet.QueryFilter) { f.Domain = "example" }, "sqlite", "c logs to sqlite:p2", "c logs to sqlite:p2",
		},
		"queries before the log's retention are gone": {
			options(log, h, members(ours, ours, ours)), func(f *fleet.QueryFilter) { f.From = f.From.Add(-8 * 24 * time.Hour) },
			"sqlite", "the query log keeps queries for 7d", "the query log keeps queries for 7d",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := breakdown.New(c.options)
			for ask, answer := range asks {
				f := last(90 * time.Minute)
				if c.filter != nil {
					c.filter(&f)
				}
				about, err := answer(t.Context(), b, f)
				if err != nil {
					t.Fatalf("%s: %v", ask, err)
				}
				source, want := c.source, c.gaps
				if rowAsks[ask] {
					source, want = "sqlite", c.rowGaps
				}
				got := gaps(about)
				if strings.HasPrefix(ask, "top") { // whose reports are of whole hours
					got = strings.ReplaceAll(got, "T11:00:00Z", "T11:59:00Z")
				}
				if !about.Enabled || about.Source != source || got != want {
					t.Errorf("%s: got enabled %t, source %q, missing %q; want true, %q, %q", ask, about.Enabled, about.Source, got, source, want)
				}
				if about.Missing == nil || about.From.Location() != time.UTC || about.To.Location() != time.UTC {
					t.Errorf("%s: got %+v, want a list and UTC", ask, about)
				}
			}
		})
	}
}

func TestALogWhoseServerHasNotToldItsNameIsKnownByItsKind(t *testing.T) {
	events := traffic()
	o := options(openLog(t, events, "a"), pushedHistory(), members("sqlite:p9", "", "sqlite:p1"))
	o.LogID = func() string { return "" }
	if _, about, err := breakdown.New(o).Summary(t.Context(), last(time.Hour), false); err != nil || about.Source != "sqlite" {
		t.Errorf("got source %q, %v", about.Source, err)
	}
	o.Members = func() []breakdown.Member { return members("sqlite:p9", "", "clickhouse:12") }
	if _, about, err := breakdown.New(o).Summary(t.Context(), last(time.Hour), false); err != nil || about.Source != "reports" {
		t.Errorf("got source %q, %v", about.Source, err)
	}
}

func TestWithoutALog(t *testing.T) {
	b := breakdown.New(off(pushedHistory(), members("off", "clickhouse:12", "")))
	ctx := t.Context()
	for ask, answer := range asks {
		about, err := answer(ctx, b, last(3*time.Hour))
		if err != nil || about.Enabled || about.Source != "reports" {
			t.Errorf("%s: got %+v, %v", ask, about, err)
		}
		if want := "the query log is off; b logs to clickhouse:12"; rowAsks[ask] && gaps(about) != want {
			t.Errorf("%s: got missing %q, want %q", ask, gaps(about), want)
		}
	}
	page, _, err := b.Rows(ctx, last(time.Hour), 10, "x")
	if err != nil || page.Rows == nil || len(page.Rows) > 0 || page.Next != nil {
		t.Errorf("got rows %+v, %v, want an empty page", page, err)
	}
	blocked := last(3 * time.Hour)
	blocked.Outcomes = []fleet.Outcome{fleet.Blocked}
	s, _, err := b.Summary(ctx, blocked, false)
	if err != nil || s.Total == 0 || s.Total != s.Outcomes[fleet.Blocked] {
		t.Errorf("summary of what was blocked: got %+v, %v", s, err)
	}
	if top, _, err := b.TopDomains(ctx, blocked, 5, false); err != nil || len(top.Items) != 5 {
		t.Errorf("top of what was blocked: got %+v, %v", top, err)
	}
	for name, c := range map[string]struct {
		change func(*fleet.QueryFilter)
		asks   []string
	}{
		"domain":            {func(f *fleet.QueryFilter) { f.Domain = "x" }, []string{"summary", "latency", "series", "upstreams", "top domains", "top clients"}},
		"client":            {func(f *fleet.QueryFilter) { f.Client = "x" }, []string{"summary", "latency", "series", "upstreams", "top domains", "top clients"}},
		"qtype":             {func(f *fleet.QueryFilter) { f.QType = "A" }, []string{"summary", "latency", "series", "upstreams", "top domains", "top clients"}},
		"upstream":          {func(f *fleet.QueryFilter) { f.Upstream = "x" }, []string{"summary", "latency", "series", "upstreams", "top domains", "top clients"}},
		"outcome":           {func(f *fleet.QueryFilter) { f.Outcomes = []fleet.Outcome{fleet.Cached} }, []string{"latency", "series", "upstreams", "top domains", "top clients"}},
		"domain and client": {func(f *fleet.QueryFilter) { f.Domain, f.Client = "x", "y" }, []string{"summary"}},
	} {
		t.Run("cannot filter by "+name, func(t *testing.T) {
			for _, ask := range c.asks {
				f := last(time.Hour)
				c.change(&f)
				about, err := asks[ask](ctx, b, f)
				if !errors.Is(err, fleet.ErrInvalid) || about.Enabled || !strings.HasSuffix(err.Error(), " by "+name) {
					t.Errorf("%s: got enabled %t, %v", ask, about.Enabled, err)
				}
			}
		})
	}
}

func TestWhatReportsDoNotCoverIsTold(t *testing.T) {
	h := pushedHistory()
	var early []fleet.Slice
	for _, s := range h["b"] {
		if s.End().Before(noon.Add(-time.Hour)) {
			early = append(early, s)
		}
	}
	h["b"] = early
	delete(h, "c")
	const running = "reports reach to 2026-11-20T11:59:00Z: what runs is told when it is over"
	for name, c := range map[string]struct {
		filter  fleet.QueryFilter
		history time.Duration
		want    string
	}{
		"an instance that went away, and one that was never there": {last(2 * time.Hour), 90 * 24 * time.Hour, running + "; b its reports end at 2026-11-20T11:00:00Z; c has no reports of this time"},
		"what is not kept":                  {fleet.QueryFilter{From: noon.Add(-48 * time.Hour), To: noon, Instances: []string{"a"}}, 24 * time.Hour, "reports are kept for 24h; " + running},
		"a history of five minutes":         {fleet.QueryFilter{From: noon.Add(-time.Hour), To: noon, Instances: []string{"a"}}, 0, "reports are kept for 5m; " + running},
		"all of it is too old":              {fleet.QueryFilter{From: noon.Add(-48 * time.Hour), To: noon.Add(-47 * time.Hour)}, 24 * time.Hour, "reports are kept for 24h"},
		"the future":                        {fleet.QueryFilter{From: noon.Add(time.Hour), To: noon.Add(2 * time.Hour), Instances: []string{"a"}}, 24 * time.Hour, "there are no reports of this time"},
		"an instance that nobody knows":     {fleet.QueryFilter{From: noon.Add(-time.Hour), To: noon, Instances: []string{"z"}}, 24 * time.Hour, "no instance that was asked for is known"},
		"nothing is missing of whole hours": {fleet.QueryFilter{From: noon.Truncate(time.Hour).Add(-30 * time.Hour), To: noon.Truncate(time.Hour).Add(-26 * time.Hour), Instances: []string{"a", "b"}}, 90 * 24 * time.Hour, ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := off(h, members("off", "off", "off"))
			o.History = c.history
			s, about, err := breakdown.New(o).Summary(t.Context(), c.filter, true)
			if err != nil || gaps(about) != c.want {
				t.Errorf("got missing %q, %v\nwant %q", gaps(about), err, c.want)
			}
			if about.From.After(about.To) {
				t.Errorf("got a window from %s to %s", about.From, about.To)
			}
			series, about, err := breakdown.New(o).Series(t.Context(), c.filter, time.Minute, true)
			if err != nil || gaps(about) != c.want {
				t.Errorf("series: got missing %q, %v", gaps(about), err)
			}
			var n uint64
			for _, p := range series.Points {
				n += p.Total
				if !p.TS.Before(about.To) || p.TS.Before(about.From) {
					t.Errorf("got a point at %s, outside of %s to %s", p.TS, about.From, about.To)
				}
			}
			if n > s.Total {
				t.Errorf("series has %d queries, summary %d", n, s.Total)
			}
		})
	}
}

func TestTopsOfTheLastHourAreTheMergeOfWhatInstancesSay(t *testing.T) {
	list := members("off", "", "off")
	hour := func(from time.Time, n uint64) *fleet.LastHour {
		return &fleet.LastHour{From: from, Sketches: fleet.Sketches{
			TopDomains: []fleet.TopItem{{Name: "x.example", Count: n}}, TopBlocked: []fleet.TopItem{{Name: "ads.example", Count: n}},
			TopClients: []fleet.TopItem{{Name: "laptop", Count: n}},
		}}
	}
	list[0].LastHour, list[2].LastHour = hour(noon.Add(-58*time.Minute), 7), hour(noon.Add(-50*time.Minute), 5)
	b := breakdown.New(off(history{}, list))
	f := last(15 * time.Minute)
	top, about, err := b.TopDomains(t.Context(), f, 10, true)
	if err != nil || fmt.Sprint(top) != "{[{x.example 12 0}] [{a [{x.example 7 0}]} {c [{x.example 5 0}]}]}" {
		t.Errorf("domains: got %v, %v", top, err)
	}
	if want := "b does not tell its last hour; reports tell tops by the hour: these are of the last one"; gaps(about) != want || !about.From.Equal(noon.Add(-58*time.Minute)) {
		t.Errorf("got missing %q from %s, want %q", gaps(about), about.From, want)
	}
	f.Outcomes = []fleet.Outcome{fleet.Blocked}
	if top, _, err := b.TopDomains(t.Context(), f, 10, false); err != nil || fmt.Sprint(top) != "{[{ads.example 12 0}] []}" {
		t.Errorf("blocked: got %v, %v", top, err)
	}
	f.Outcomes = nil
	if top, _, err := b.TopClients(t.Context(), f, 10, false); err != nil || fmt.Sprint(top) != "{[{laptop 12 0}] []}" {
		t.Errorf("clients: got %v, %v", top, err)
	}
	list[2].LastHour = hour(noon.Add(-3*time.Hour), 5) // said before it went away
	if top, about, err := b.TopClients(t.Context(), f, 10, false); err != nil || fmt.Sprint(top) != "{[{laptop 7 0}] []}" || !strings.Contains(gaps(about), "c has not reported of late") {
		t.Errorf("one that went away: got %v, missing %q, %v", top, gaps(about), err)
	}
}

// silentLog never answers, or fails at once.
type silentLog struct {
	querylog.Reader // nil: what is not faked must not be called

	err error // nil: waits for its context
}

func (s silentLog) wait(ctx context.Context) error {
	if s.err != nil {
		return s.err
	}
	<-ctx.Done()
	return ctx.Err()
}

func (silentLog) Source() string { return "clickhouse" }

func (s silentLog) Summary(ctx context.Context, _ fleet.QueryFilter, _ bool) (fleet.QuerySummary, error) {
	return fleet.QuerySummary{}, s.wait(ctx)
}

func (s silentLog) Latency(ctx context.Context, _ fleet.QueryFilter, _ bool) (fleet.QueryLatency, error) {
	return fleet.QueryLatency{}, s.wait(ctx)
}

func (s silentLog) Series(ctx context.Context, _ fleet.QueryFilter, _ time.Duration, _ bool) (fleet.QuerySeries, error) {
	return fleet.QuerySeries{}, s.wait(ctx)
}

func (s silentLog) Upstreams(ctx context.Context, _ fleet.QueryFilter, _ bool) (fleet.QueryUpstreams, error) {
	return fleet.QueryUpstreams{}, s.wait(ctx)
}

func (s silentLog) TopDomains(ctx context.Context, _ fleet.QueryFilter, _ int, _ bool) (fleet.QueryTop, error) {
	return fleet.QueryTop{}, s.wait(ctx)
}

func (s silentLog) TopClients(ctx context.Context, _ fleet.QueryFilter, _ int, _ bool) (fleet.QueryTop, error) {
	return fleet.QueryTop{}, s.wait(ctx)
}

func (s silentLog) Rows(ctx context.Context, _ fleet.QueryFilter, _ int, _ string) (fleet.QueryPage, error) {
	return fleet.QueryPage{}, s.wait(ctx)
}

func (s silentLog) Export(ctx context.Context, _ fleet.QueryFilter, _ func(fleet.QueryRow) error) error {
	return s.wait(ctx)
}

func TestReportsStandInForALogThatIsAway(t *testing.T) {
	h := pushedHistory()
	refused := fmt.Errorf("read queries: %w: dial tcp 192.0.2.1:9000: connection\nrefused", fleet.ErrUnavailable)
	for name, c := range map[string]struct {
		err     error
		takes   time.Duration
		because string
	}{
		"hangs":                 {nil, 7 * time.Second, "query log unavailable: store unavailable: no answer within 7s"},
		"refuses":               {refused, 0, "query log unavailable: read queries: dial tcp 192.0.2.1:9000: connection refused"},
		"says what is not said": {errors.New("exception 4711"), 0, "query log unavailable: exception 4711"},
	} {
		t.Run("that "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := breakdown.New(options(silentLog{err: c.err}, h, members(ours, ours, ours)))
				for ask, answer := range asks {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					began := time.Now()
					about, err := answer(ctx, b, last(2*time.Hour))
					if took := time.Since(began); took != c.takes && ask != "export" {
						t.Errorf("%s: took %s, want %s", ask, took, c.takes)
					}
					if rowAsks[ask] {
						if !errors.Is(err, fleet.ErrUnavailable) {
							t.Errorf("%s: got %v, want %v", ask, err, fleet.ErrUnavailable)
						}
						cancel()
						continue
					}
					if err != nil || !about.Enabled || about.Source != "reports" || !strings.HasPrefix(gaps(about), strings.Replace(c.because, "store unavailable: ", "", 1)+"; reports reach to") {
						t.Errorf("%s: got %+v, %v", ask, about, err)
					}
					f := last(2 * time.Hour)
					f.Domain = "example"
					if about, err := answer(ctx, b, f); !errors.Is(err, fleet.ErrUnavailable) || !about.Enabled {
						t.Errorf("%s with a filter: got %+v, %v, want %v", ask, about, err, fleet.ErrUnavailable)
					}
					cancel()
				}
			})
		})
	}
}

func TestAWrongQuestionIsNotPutToReports(t *testing.T) {
	wrong := fmt.Errorf("read queries: %w: that is more than 200 million rows", fleet.ErrInvalid)
	b := breakdown.New(options(silentLog{err: wrong}, history{}, members(ours, ours, ours)))
	if _, about, err := b.Summary(t.Context(), last(time.Hour), false); !errors.Is(err, fleet.ErrInvalid) || !about.Enabled {
		t.Errorf("got %+v, %v", about, err)
	}
}

func TestWhoLeavesIsNotAnsweredByReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := options(silentLog{}, history{}, members(ours, ours, ours))
		o.Slices = func(context.Context, string, fleet.Size, time.Time, time.Time) ([]fleet.Slice, error) {
			t.Error("slices were read for nobody")
			return nil, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, _, err := breakdown.New(o).Summary(ctx, last(time.Hour), false); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	})
}

func TestAStoreThatIsAwayIsNoEmptyAnswer(t *testing.T) {
	away := fmt.Errorf("%w: redis", fleet.ErrUnavailable)
	o := off(history{}, members("off", "off", "off"))
	o.Slices = func(context.Context, string, fleet.Size, time.Time, time.Time) ([]fleet.Slice, error) {
		return nil, away
	}
	b := breakdown.New(o)
	for ask, answer := range asks {
		if about, err := answer(t.Context(), b, last(3*time.Hour)); !rowAsks[ask] && (!errors.Is(err, fleet.ErrUnavailable) || about.Source != "reports") {
			t.Errorf("%s: got %+v, %v", ask, about, err)
		}
	}
}

func TestExportsEndWhenNobodyWantsMore(t *testing.T) {
	events := traffic()
	b := breakdown.New(options(openLog(t, events, "a", "b", "c"), history{}, members(ours, ours, ours)))
	_, rows := b.Export(t.Context(), fleet.QueryFilter{From: noon.Add(-50 * time.Hour), To: noon})
	n := 0
	for _, err := range rows {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 10 {
			break
		}
	}
	n = 0
	var before time.Time
	for row, err := range rows {
		if err != nil || row.TS.Before(before) {
			t.Fatalf("row %d: got %+v after %s, %v", n, row, before, err)
		}
		before = row.TS
		n++
	}
	if n != len(events) {
		t.Errorf("got %d rows, want %d", n, len(events))
	}
}

func TestSeriesAreBounded(t *testing.T) {
	var many []breakdown.Member
	for i := range 3000 {
		many = append(many, breakdown.Member{ID: fmt.Sprint(i), DNS: true, QueryLog: "off"})
	}
	b := breakdown.New(off(history{}, many))
	for name, c := range map[string]struct {
		window, step time.Duration
		by           bool
		ok           bool
	}{
		"a day in minutes":                 {24 * time.Hour, time.Minute, false, true},
		"a day in minutes of each of many": {24 * time.Hour, time.Minute, true, false},
		"a day in hours of each of many":   {24 * time.Hour, time.Hour, true, true},
		"a step of nothing":                {time.Hour, 0, false, false},
		"a step of less than a second":     {time.Hour, 1500 * time.Millisecond, false, false},
		"more than any chart":              {400 * 24 * time.Hour, time.Second, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, about, err := b.Series(t.Context(), last(c.window), c.step, c.by)
			if ok := err == nil; ok != c.ok || (!ok && (!errors.Is(err, fleet.ErrInvalid) || !about.Enabled)) {
				t.Errorf("got %+v, %v", about, err)
			}
		})
	}
}
