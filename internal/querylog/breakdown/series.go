package breakdown

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
)

// maxPoints bounds the points of an answer over all its groups, and by that its memory.
const maxPoints = 500_000

// Series tells queries over time, with a point for each step that begins in the window, at multiples of the step since the
// epoch. From reports, a step that is no multiple of the slices' size is made one: StepSeconds tells. Groups are by instance
// id, of those that had queries. It answers fleet.ErrInvalid when there would be more than 500,000 points.
func (b *Breakdown) Series(ctx context.Context, f fleet.QueryFilter, step time.Duration, byInstance bool) (fleet.QuerySeries, fleet.QueryAnswer, error) {
	if err := b.checkSeries(f, step, byInstance); err != nil {
		return fleet.QuerySeries{Points: []fleet.QueryPoint{}}, fleet.QueryAnswer{Enabled: true, From: f.From, To: f.To, Missing: []fleet.QueryGap{}}, err
	}
	q := question[fleet.QuerySeries]{
		filter: f,
		log: func(ctx context.Context, log querylog.Reader) (fleet.QuerySeries, error) {
			return log.Series(ctx, f, step, byInstance)
		},
	}
	if !f.Filtered() {
		q.reports = func(ctx context.Context, r *reports) (fleet.QuerySeries, error) {
			return r.series(ctx, step, byInstance)
		}
	}
	answer, about, err := ask(ctx, b, q)
	answer.Points = orEmpty(answer.Points)
	return answer, about, err
}

func (b *Breakdown) checkSeries(f fleet.QueryFilter, step time.Duration, byInstance bool) error {
	if step < time.Second || step%time.Second != 0 {
		return fmt.Errorf("%w: step must be a whole number of seconds", fleet.ErrInvalid)
	}
	groups := 1
	if byInstance {
		all, _ := b.wanted(f)
		groups += len(all)
	}
	if n := f.To.Sub(f.From) / step; n > maxPoints || int(n)*groups > maxPoints {
		return fmt.Errorf("%w: that is more than %d points, ask for a longer step, a shorter window or fewer instances", fleet.ErrInvalid, maxPoints)
	}
	return nil
}

func (r *reports) series(ctx context.Context, step time.Duration, byInstance bool) (s fleet.QuerySeries, err error) {
	if size := r.size.Duration(); step%size != 0 {
		step += size - step%size
	}
	first, end := roundUp(r.from, step), r.to
	s = fleet.QuerySeries{StepSeconds: int(step / time.Second)}
	empty := func() []fleet.QueryPoint {
		points := []fleet.QueryPoint{}
		for at := first; at.Before(end); at = at.Add(step) {
			points = append(points, fleet.QueryPoint{TS: at})
		}
		return points
	}
	s.Points = empty()
	totals := make([]fleet.Slice, len(s.Points))
	var mu sync.Mutex // guards totals and groups
	err = r.visit(ctx, func(m Member, pieces []fleet.Slice) {
		steps := map[int][]fleet.Slice{}
		for _, p := range pieces {
			p.Upstreams, p.Sketches = nil, fleet.Sketches{}
			if at := p.Start.Sub(first); at >= 0 && p.Start.Before(end) {
				steps[int(at/step)] = append(steps[int(at/step)], p)
			}
		}
		var points []fleet.QueryPoint
		mu.Lock()
		defer mu.Unlock()
		for i, parts := range steps {
			sum := fleet.MergeSlices(parts...)
			if n := sum.Outcomes.Total(); n == 0 {
				continue
			}
			totals[i].Outcomes = totals[i].Outcomes.Plus(sum.Outcomes)
			totals[i].Latency.Merge(sum.Latency)
			if byInstance {
				if points == nil {
					points = empty()
				}
				fill(&points[i], sum)
			}
		}
		if points != nil {
			s.Groups = append(s.Groups, fleet.QuerySeriesGroup{InstanceID: m.ID, Points: points})
		}
	})
	for i, sum := range totals {
		fill(&s.Points[i], sum)
	}
	// What no report covers yet is not nothing.
	known := int(max(roundUp(r.end(), step).Sub(first), 0) / step)
	s.Points = s.Points[:min(known, len(s.Points))]
	for i := range s.Groups {
		s.Groups[i].Points = s.Groups[i].Points[:len(s.Points)]
	}
	slices.SortFunc(s.Groups, func(a, b fleet.QuerySeriesGroup) int { return cmp.Compare(a.InstanceID, b.InstanceID) })
	return s, err
}

func fill(p *fleet.QueryPoint, sum fleet.Slice) {
	p.Total, p.Outcomes, p.Quantiles = sum.Outcomes.Total(), sum.Outcomes, sum.Latency.Quantiles()
}
