package webapi_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
)

type history struct {
	Size     string
	From, To time.Time
	Points   []struct {
		Start     time.Time
		Seconds   float64
		Outcomes  fleet.Distribution
		P50       *float64 `json:"p50_ms"`
		Upstreams []struct {
			Address       string
			Count, Errors uint64
			P95           *float64 `json:"p95_ms"`
		}
	}
}

func slice(size fleet.Size, start time.Time, boot string, n uint64, seconds float64) fleet.Slice {
	return fleet.Slice{
		Size: size, Start: start, BootID: boot, Seconds: seconds, Outcomes: fleet.Outcomes{fleet.Cached: n}, Latency: fleet.NewLatency(10 * time.Millisecond),
		Upstreams: []fleet.UpstreamSlice{{Address: "udp://192.0.2.1:53", Count: n, Errors: 1, Latency: fleet.NewLatency(20 * time.Millisecond)}},
	}
}

func TestHistoryMergesBootsAndKeepsHoles(t *testing.T) {
	s := newSite(t, openStore(t), nil)
	start := time.Now().UTC().Truncate(10 * time.Minute).Add(-time.Hour)
	r := report("cabin", "b1", 1, fleet.Outcomes{fleet.Cached: 12})
	r.Slices = []fleet.Slice{slice(fleet.TenMinutes, start, "b1", 5, 0), slice(fleet.TenMinutes, start.Add(20*time.Minute), "b1", 7, 200)}
	s.push(r)
	r = report("cabin", "b2", 1, fleet.Outcomes{fleet.Cached: 4})
	r.Slices = []fleet.Slice{slice(fleet.TenMinutes, start.Add(20*time.Minute), "b2", 4, 300)}
	s.push(r)

	h := into[history](t, s.get("/api/instances/cabin/history").want(t, http.StatusOK))
	if h.Size != "10m" || h.To.Sub(h.From) < 24*time.Hour || h.To.Sub(h.From) > 24*time.Hour+10*time.Minute {
		t.Errorf("got size %s from %s to %s, want 10m over 24 hours", h.Size, h.From, h.To)
	}
	if len(h.Points) != 2 {
		t.Fatalf("got %d points, want two and a hole between them", len(h.Points))
	}
	first, second := h.Points[0], h.Points[1]
	if !first.Start.Equal(start) || first.Seconds != 600 || first.Outcomes.Total() != 5 {
		t.Errorf("got %+v, want 5 in 600 s at %s", first, start)
	}
	if second.Seconds != 500 || second.Outcomes.Total() != 11 || second.Upstreams[0].Count != 11 || second.Upstreams[0].Errors != 2 {
		t.Errorf("got %+v, want both boots merged: 11 in 500 s", second)
	}
	if p50, p95 := *second.P50, *second.Upstreams[0].P95; p50 < 9.9 || p50 > 10.1 || p95 < 19.8 || p95 > 20.2 {
		t.Errorf("got p50 %v and upstream p95 %v, want 10 and 20 within 1 %%", p50, p95)
	}

	q := url.Values{"from": {start.Add(25 * time.Minute).Format(time.RFC3339)}, "to": {start.Add(time.Hour).Format(time.RFC3339)}}
	h = into[history](t, s.get("/api/instances/cabin/history?"+q.Encode()).want(t, http.StatusOK))
	if len(h.Points) != 1 || !h.From.Equal(start.Add(20*time.Minute)) {
		t.Errorf("got %d points from %s, want the one that covers from", len(h.Points), h.From)
	}
	for _, size := range []string{"1m", "10m", "1h"} {
		h := into[history](t, s.get("/api/instances/cabin/history?size="+size).want(t, http.StatusOK))
		if h.Points == nil || h.Size != size {
			t.Errorf("size %s: got %+v", size, h)
		}
	}
	if h := into[history](t, s.get("/api/instances/home-1/history").want(t, http.StatusOK)); len(h.Points) != 0 {
		t.Errorf("got %d points of one without slices", len(h.Points))
	}
}

func TestHistoryRefusesWindowsThatMakeNoSense(t *testing.T) {
	s := newSite(t, openStore(t), nil)
	now := time.Now().UTC()
	at := func(d time.Duration) string { return url.QueryEscape(now.Add(d).Format(time.RFC3339)) }
	for name, c := range map[string]struct{ query, says string }{
		"an unknown size":             {"size=5m", "5m"},
		"an empty size":               {"size=", "none of"},
		"from that is no time":        {"from=yesterday", "from"},
		"to that is no time":          {"to=12:00", "to"},
		"a reversed window":           {"from=" + at(-time.Hour) + "&to=" + at(-2*time.Hour), "before"},
		"an empty window":             {"from=" + at(-time.Hour) + "&to=" + at(-time.Hour), "before"},
		"a window of the future":      {"from=" + at(time.Hour), "before"},
		"ten minutes from last week":  {"from=" + at(-7*24*time.Hour), "24h"},
		"minutes from this morning":   {"size=1m&from=" + at(-3*time.Hour), "2h"},
		"hours past what is kept":     {"size=1h&from=" + at(-26*time.Hour), "24h"},
		"a year before the first one": {"from=0000-01-01T00:00:00Z", "24h"},
		"a broken query":              {"size=%", "query string"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.do(ask{path: "/api/instances/home-1/history?" + c.query, bad: true}).want(t, http.StatusBadRequest)
			if got := a.sentence(t); !strings.Contains(got, c.says) {
				t.Errorf("got %q, want it to say %q", got, c.says)
			}
		})
	}
	s.get("/api/instances/nobody/history").want(t, http.StatusNotFound).sentence(t)
}
