package e2e_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"testing"
	"time"
)

var outage = flag.Duration("outage", 70*time.Second, "how long all primaries are down in TestHistoryHasNoHoleAfterAnOutage")

// history is GET /api/instances/{id}/history, as far as this test reads it.
type history struct {
	Points []struct {
		Start    time.Time `json:"start"`
		Seconds  float64   `json:"seconds"`
		Outcomes counts    `json:"outcomes"`
		P95      *float64  `json:"p95_ms"`
	} `json:"points"`
}

func TestHistoryHasNoHoleAfterAnOutage(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	first := time.Now().UTC().Truncate(time.Minute)
	sent := load(t, f.dns("r1"), "before", 5, 5, 5)
	f.viewsAgree(10*time.Second, "the first queries arrive", primaries, func(v view) error {
		r, err := v.find("r1")
		return errors.Join(err, same("r1", r.Lifetime, sent))
	})

	for _, p := range primaries {
		f.procs[p].kill()
	}
	over := time.After(*outage)
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for i, down := 0, true; down; i++ {
		select {
		case <-over:
			down = false
		case <-tick.C:
			sent = sent.add(load(t, f.dns("r1"), fmt.Sprintf("down%d", i), 3, 2, 1)) // DNS goes on
		}
	}
	for _, p := range primaries {
		f.start(p)
	}
	last := time.Now().UTC().Truncate(time.Minute).Add(time.Minute) // the first minute that no query of ours is in
	f.viewsAgree(45*time.Second, "the counters catch up", primaries, func(v view) error {
		r, err := v.find("r1")
		return errors.Join(err, same("r1", r.Lifetime, sent))
	})

	// The running minute ends within a minute; then the store has every slice.
	eventually(t, 90*time.Second, "the history of r1 has no hole", func() error {
		query := url.Values{"size": {"1m"}, "from": {first.Format(time.RFC3339)}, "to": {last.Format(time.RFC3339)}}
		body, err := get(t.Context(), "http://"+f.web("p1")+"/api/instances/r1/history?"+query.Encode(), "")
		if err != nil {
			return err
		}
		var h history
		if err := json.Unmarshal(body, &h); err != nil {
			return err
		}
		sum, at := counts{}, first
		for _, p := range h.Points {
			if !p.Start.Equal(at) {
				return fmt.Errorf("got a slice at %s, want one at %s", p.Start, at)
			}
			at = at.Add(time.Minute)
			delete(p.Outcomes, "total")
			sum = sum.add(p.Outcomes)
		}
		if at.Before(last) {
			return fmt.Errorf("the history ends at %s, want %s", at, last)
		}
		var total int64
		for _, n := range sum {
			total += n
		}
		sum["total"] = total
		return same("sum of the history", sum, sent)
	})
	f.viewsAgree(5*time.Second, "recent knows at least a minute of r1", primaries, func(v view) error {
		r, err := v.find("r1")
		if err == nil && (r.Recent == nil || r.Recent.Seconds < 60 || r.Recent.P95 == nil) {
			err = fmt.Errorf("got %+v, want at least 60 s with a p95", r.Recent)
		}
		return err
	})
}
