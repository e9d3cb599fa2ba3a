package sqlite

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"dnsfleet/internal/fleet"
)

// maxPoints bounds a series: 30 days in minutes.
const maxPoints = 43_200

// Series tells queries over time; see querylog.Reader. Steps start at multiples of step since the epoch. It answers
// fleet.ErrInvalid for an open window, a step that is no whole number of seconds, and more than 43,200 points.
func (l *Log) Series(ctx context.Context, f fleet.QueryFilter, step time.Duration, byInstance bool) (fleet.QuerySeries, error) {
	s := &series{step: step.Milliseconds(), byInstance: byInstance, open: map[string]*tally{}, groups: map[string][]fleet.QueryPoint{}}
	switch {
	case step < time.Second || step%time.Second != 0:
		return fleet.QuerySeries{}, fmt.Errorf("series: %w: the step must be a whole number of seconds", fleet.ErrInvalid)
	case f.From.IsZero() || f.To.IsZero():
		return fleet.QuerySeries{}, fmt.Errorf("series: %w: a series needs a window with both ends", fleet.ErrInvalid)
	case f.To.Sub(f.From)/step > maxPoints:
		return fleet.QuerySeries{}, fmt.Errorf("series: %w: a series has at most %d points", fleet.ErrInvalid, maxPoints)
	}
	s.first = floor(ceilMS(f.From)+s.step-1, s.step)
	s.count = max(floor(ceilMS(f.To)+s.step-1, s.step)-s.first, 0) / s.step
	s.points = s.empty()
	err := l.read(ctx, "series", func(c *conn) error {
		q, err := l.ask(ctx, c, f)
		if err != nil {
			return err
		}
		q.from = max(q.from, s.first)
		return q.visit(ctx, c, coarsest(s.step), needLatency, s)
	})
	if err != nil {
		return fleet.QuerySeries{}, err
	}
	s.close()
	answer := fleet.QuerySeries{StepSeconds: int(step / time.Second), Points: s.points}
	for _, id := range slices.Sorted(maps.Keys(s.groups)) {
		answer.Groups = append(answer.Groups, fleet.QuerySeriesGroup{InstanceID: id, Points: s.groups[id]})
	}
	return answer, nil
}

// floor is the last multiple of step that does not lie behind ms, which may lie before the epoch.
func floor(ms, step int64) int64 { return ms - (ms%step+step)%step }

// coarsest is the longest rollup of which steps are made.
func coarsest(stepMS int64) int64 {
	for _, size := range []int64{hour, minute} {
		if stepMS%(size*1000) == 0 {
			return size
		}
	}
	return 0
}

// series collects one step after the other: only the sketches of the step that is open are in memory.
type series struct {
	step, first, count int64 // in milliseconds; how many
	byInstance         bool
	points             []fleet.QueryPoint
	groups             map[string][]fleet.QueryPoint
	at                 int64             // index of the step that is open
	open               map[string]*tally // its sums by instance, or under ""
}

func (s *series) empty() []fleet.QueryPoint {
	points := make([]fleet.QueryPoint, s.count)
	for i := range points {
		points[i].TS = time.UnixMilli(s.first + int64(i)*s.step).UTC()
	}
	return points
}

func (s *series) get(ms int64, instance string) *tally {
	if at := (ms - s.first) / s.step; at != s.at {
		s.close()
		s.at = at
	}
	if !s.byInstance {
		instance = ""
	}
	t := s.open[instance]
	if t == nil {
		t = new(tally)
		s.open[instance] = t
	}
	return t
}

func (s *series) event(ms int64, k *kind, us int64) {
	s.get(ms, k.instance).add(k.outcome, us, fleet.LatencyBin(time.Duration(us)*time.Microsecond))
}

func (s *series) period(ms int64, instance string, p *period) {
	s.get(ms, instance).merge(&p.tally)
}

// close writes the points of the open step.
func (s *series) close() {
	var total tally
	for instance, t := range s.open {
		total.merge(t)
		if s.byInstance {
			if s.groups[instance] == nil {
				s.groups[instance] = s.empty()
			}
			fill(&s.groups[instance][s.at], t)
		}
	}
	if len(s.open) > 0 {
		fill(&s.points[s.at], &total)
	}
	clear(s.open)
}

func fill(p *fleet.QueryPoint, t *tally) {
	p.Outcomes, p.Total, p.Quantiles = t.outcomes, t.outcomes.Total(), t.latency.Quantiles()
}
