package webapi

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/gorilla/mux"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/httpjson"
	"dnsfleet/internal/webapi/params"
)

const defaultWindow = 24 * time.Hour

// point is one slice of time of one instance, over all its boots.
type point struct {
	Start    time.Time          `json:"start"`
	Seconds  float64            `json:"seconds"` // how much of it is covered
	Outcomes fleet.Distribution `json:"outcomes"`
	fleet.Quantiles
	Upstreams []upstreamPoint `json:"upstreams"`
}

type upstreamPoint struct {
	Address string   `json:"address"`
	Count   uint64   `json:"count"`
	Errors  uint64   `json:"errors"`
	Avg     *float64 `json:"avg_ms"`
	P95     *float64 `json:"p95_ms"`
}

// history is GET /api/instances/{id}/history. A start that no slice tells of is absent: a hole, not a zero.
func (a *API) history(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	id := mux.Vars(r)["id"]
	size, from, to, err := a.window(r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	if _, _, err := a.View.Instance(id); err != nil {
		a.fail(w, r, err)
		return
	}
	slices, err := a.Store.Slices(ctx, id, size, from, to)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	httpjson.Write(w, http.StatusOK, struct {
		InstanceID string     `json:"instance_id"`
		Size       fleet.Size `json:"size"`
		From       time.Time  `json:"from"`
		To         time.Time  `json:"to"`
		Points     []point    `json:"points"`
	}{id, size, from, to, points(slices)})
}

// window reads size, from and to. from is moved back to a whole multiple of size.
func (a *API) window(r *http.Request) (size fleet.Size, from, to time.Time, err error) {
	values, err := params.Of(r)
	if err != nil {
		return 0, from, to, err
	}
	size = fleet.TenMinutes
	if values.Has("size") {
		if size, err = fleet.ParseSize(values.Get("size")); err != nil {
			return 0, from, to, err
		}
	}
	now := a.View.Now().UTC()
	to = now
	keep := a.keep(size)
	from = now.Add(-min(defaultWindow, keep))
	for name, at := range map[string]*time.Time{"from": &from, "to": &to} {
		if !values.Has(name) {
			continue
		}
		t, err := time.Parse(time.RFC3339, values.Get(name))
		if err != nil {
			return 0, from, to, params.Invalid(fmt.Sprintf("%s must be a time such as 2006-01-02T15:04:05Z", name))
		}
		*at = t.UTC()
	}
	switch {
	case !from.Before(to):
		return 0, from, to, params.Invalid("from must be before to")
	case from.Before(now.Add(-keep - size.Duration())): // as much grace as the oldest slice takes to leave
		return 0, from, to, params.Invalid(fmt.Sprintf("slices of %s are kept for %s: from is older than that", size, keep))
	}
	return size, from.Truncate(size.Duration()), to, nil
}

// keep is how far back slices of a size can be there.
func (a *API) keep(size fleet.Size) time.Duration {
	keep := min(a.History, size.Keep())
	if size == fleet.Minute {
		keep = max(keep, fleet.RecentWindow)
	}
	return keep
}

// points merges slices, which are sorted by start, over the boots of each start.
func points(slices []fleet.Slice) []point {
	out := []point{}
	for len(slices) > 0 {
		n := 1
		for n < len(slices) && slices[n].Start.Equal(slices[0].Start) {
			n++
		}
		out = append(out, newPoint(fleet.MergeSlices(slices[:n]...)))
		slices = slices[n:]
	}
	return out
}

func newPoint(s fleet.Slice) point {
	p := point{
		Start: s.Start.UTC(), Seconds: min(s.Seconds, s.Size.Duration().Seconds()), Outcomes: fleet.Distribution{Outcomes: s.Outcomes},
		Quantiles: s.Latency.Quantiles(), Upstreams: []upstreamPoint{},
	}
	for _, u := range s.Upstreams {
		p.Upstreams = append(p.Upstreams, upstreamPoint{u.Address, u.Count, u.Errors, u.Latency.MeanMS(), u.Latency.QuantileMS(0.95)})
	}
	return p
}
