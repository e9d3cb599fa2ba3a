package breakdown

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
)

// Summary counts queries by outcome. Groups are by instance id, of those that had queries.
func (b *Breakdown) Summary(ctx context.Context, f fleet.QueryFilter, byInstance bool) (fleet.QuerySummary, fleet.QueryAnswer, error) {
	q := question[fleet.QuerySummary]{
		filter: f,
		log: func(ctx context.Context, log querylog.Reader) (fleet.QuerySummary, error) {
			return log.Summary(ctx, f, byInstance)
		},
	}
	byOutcome := f
	byOutcome.Outcomes = nil
	if !byOutcome.Filtered() {
		q.reports = func(ctx context.Context, r *reports) (fleet.QuerySummary, error) {
			return r.summary(ctx, f.Outcomes, byInstance)
		}
	}
	return ask(ctx, b, q)
}

func (r *reports) summary(ctx context.Context, only []fleet.Outcome, byInstance bool) (s fleet.QuerySummary, err error) {
	err = r.sums(ctx, func(s *fleet.Slice) { s.Latency, s.Upstreams = fleet.Latency{}, nil }, func(id string, sum fleet.Slice) {
		counts := sum.Outcomes
		for o := range fleet.Outcome(fleet.NumOutcomes) {
			if len(only) > 0 && !slices.Contains(only, o) {
				counts[o] = 0
			}
		}
		s.Outcomes = s.Outcomes.Plus(counts)
		if byInstance && counts.Total() > 0 {
			s.Groups = append(s.Groups, fleet.QuerySummaryGroup{InstanceID: id, Total: counts.Total(), Outcomes: counts})
		}
	})
	s.Total = s.Outcomes.Total()
	slices.SortFunc(s.Groups, func(a, b fleet.QuerySummaryGroup) int { return cmp.Compare(a.InstanceID, b.InstanceID) })
	return s, err
}

// Latency tells how long answers took. Groups are by instance id, of those that had queries.
func (b *Breakdown) Latency(ctx context.Context, f fleet.QueryFilter, byInstance bool) (fleet.QueryLatency, fleet.QueryAnswer, error) {
	q := question[fleet.QueryLatency]{
		filter: f,
		log: func(ctx context.Context, log querylog.Reader) (fleet.QueryLatency, error) {
			return log.Latency(ctx, f, byInstance)
		},
	}
	if !f.Filtered() {
		q.reports = func(ctx context.Context, r *reports) (fleet.QueryLatency, error) { return r.latency(ctx, byInstance) }
	}
	return ask(ctx, b, q)
}

func (r *reports) latency(ctx context.Context, byInstance bool) (l fleet.QueryLatency, err error) {
	var total fleet.Latency
	err = r.sums(ctx, func(s *fleet.Slice) { s.Upstreams = nil }, func(id string, sum fleet.Slice) {
		total.Merge(sum.Latency)
		if n := sum.Outcomes.Total(); byInstance && n > 0 {
			l.Groups = append(l.Groups, fleet.QueryLatencyGroup{
				InstanceID: id, Count: n, AvgMS: sum.Latency.MeanMS(), Quantiles: sum.Latency.Quantiles(),
			})
		}
		l.Count += sum.Outcomes.Total()
	})
	l.AvgMS, l.Quantiles = total.MeanMS(), total.Quantiles()
	slices.SortFunc(l.Groups, func(a, b fleet.QueryLatencyGroup) int { return cmp.Compare(a.InstanceID, b.InstanceID) })
	return l, err
}

// Upstreams tells what each upstream did, the busiest first. From reports, Count is exchanges with it rather than queries.
// Groups are by instance id, of those that asked an upstream.
func (b *Breakdown) Upstreams(ctx context.Context, f fleet.QueryFilter, byInstance bool) (fleet.QueryUpstreams, fleet.QueryAnswer, error) {
	q := question[fleet.QueryUpstreams]{
		filter: f,
		log: func(ctx context.Context, log querylog.Reader) (fleet.QueryUpstreams, error) {
			return log.Upstreams(ctx, f, byInstance)
		},
	}
	if !f.Filtered() {
		q.reports = func(ctx context.Context, r *reports) (fleet.QueryUpstreams, error) {
			return r.upstreams(ctx, byInstance)
		}
	}
	answer, about, err := ask(ctx, b, q)
	answer.Upstreams = orEmpty(answer.Upstreams)
	return answer, about, err
}

func (r *reports) upstreams(ctx context.Context, byInstance bool) (u fleet.QueryUpstreams, err error) {
	total := fleet.MergeSlices()
	err = r.sums(ctx, func(s *fleet.Slice) { s.Latency = fleet.Latency{} }, func(id string, sum fleet.Slice) {
		if len(sum.Upstreams) == 0 {
			return
		}
		total = fleet.MergeSlices(total, sum)
		if byInstance {
			u.Groups = append(u.Groups, fleet.QueryUpstreamGroup{InstanceID: id, Upstreams: ranked(sum.Upstreams)})
		}
	})
	u.Upstreams = ranked(total.Upstreams)
	slices.SortFunc(u.Groups, func(a, b fleet.QueryUpstreamGroup) int { return cmp.Compare(a.InstanceID, b.InstanceID) })
	return u, err
}

// ranked are upstreams as answers tell them, the busiest first.
func ranked(sums []fleet.UpstreamSlice) []fleet.QueryUpstream {
	list := make([]fleet.QueryUpstream, 0, len(sums))
	for _, u := range sums {
		list = append(list, fleet.QueryUpstream{
			Address: u.Address, Count: u.Count, Errors: u.Errors, AvgMS: u.Latency.MeanMS(), P95MS: u.Latency.QuantileMS(0.95),
		})
	}
	slices.SortFunc(list, func(a, b fleet.QueryUpstream) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Address, b.Address))
	})
	return list
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
