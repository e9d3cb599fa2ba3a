package sqlite

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"dnsfleet/internal/fleet"
)

// tallies counts by instance, or all under "" when nobody asks for instances.
type tallies struct {
	byInstance bool
	latency    bool
	of         map[string]*tally
}

func (t *tallies) get(instance string) *tally {
	if !t.byInstance {
		instance = ""
	}
	one := t.of[instance]
	if one == nil {
		one = new(tally)
		t.of[instance] = one
	}
	return one
}

func (t *tallies) event(_ int64, k *kind, us int64) {
	one := t.get(k.instance)
	if !t.latency {
		one.outcomes[k.outcome]++
		return
	}
	one.add(k.outcome, us, fleet.LatencyBin(time.Duration(us)*time.Microsecond))
}

func (t *tallies) period(_ int64, instance string, p *period) { t.get(instance).merge(&p.tally) }

// total is the sum of all, and those that are in it by instance.
func (t *tallies) total() (total tally, instances []string) {
	for _, one := range t.of {
		total.merge(one)
	}
	if t.byInstance {
		instances = slices.Sorted(maps.Keys(t.of))
	}
	return total, instances
}

func (l *Log) tally(ctx context.Context, operation string, f fleet.QueryFilter, n need, byInstance bool) (*tallies, error) {
	t := &tallies{byInstance: byInstance, latency: n == needLatency, of: map[string]*tally{}}
	err := l.read(ctx, operation, func(c *conn) error {
		q, err := l.ask(ctx, c, f)
		if err != nil {
			return err
		}
		return q.visit(ctx, c, hour, n, t)
	})
	return t, err
}

// Summary counts queries by outcome; see querylog.Reader.
func (l *Log) Summary(ctx context.Context, f fleet.QueryFilter, byInstance bool) (fleet.QuerySummary, error) {
	t, err := l.tally(ctx, "summary", f, needOutcomes, byInstance)
	if err != nil {
		return fleet.QuerySummary{}, err
	}
	total, instances := t.total()
	s := fleet.QuerySummary{Total: total.outcomes.Total(), Outcomes: total.outcomes}
	for _, id := range instances {
		o := t.of[id].outcomes
		s.Groups = append(s.Groups, fleet.QuerySummaryGroup{InstanceID: id, Total: o.Total(), Outcomes: o})
	}
	return s, nil
}

// Latency tells how long answers took; see querylog.Reader. Means are exact.
func (l *Log) Latency(ctx context.Context, f fleet.QueryFilter, byInstance bool) (fleet.QueryLatency, error) {
	t, err := l.tally(ctx, "latency", f, needLatency, byInstance)
	if err != nil {
		return fleet.QueryLatency{}, err
	}
	total, instances := t.total()
	n := total.outcomes.Total()
	answer := fleet.QueryLatency{Count: n, AvgMS: meanMS(total.us, n), Quantiles: total.latency.Quantiles()}
	for _, id := range instances {
		one := t.of[id]
		n := one.outcomes.Total()
		answer.Groups = append(answer.Groups, fleet.QueryLatencyGroup{
			InstanceID: id, Count: n, AvgMS: meanMS(one.us, n), Quantiles: one.latency.Quantiles(),
		})
	}
	return answer, nil
}

// meanMS is nil when there is nothing.
func meanMS(us int64, n uint64) *float64 {
	if n == 0 {
		return nil
	}
	return new(float64(us) / float64(n) / 1000)
}

// upstreams counts by instance and upstream.
type upstreams map[string]upstreamTallies

func (u upstreams) of(instance string) upstreamTallies {
	one := u[instance]
	if one == nil {
		one = upstreamTallies{}
		u[instance] = one
	}
	return one
}

func (u upstreams) event(_ int64, k *kind, us int64) {
	if k.upstream != "" {
		u.of(k.instance).of(k.upstream).addEvent(k.outcome, us, fleet.LatencyBin(time.Duration(us)*time.Microsecond))
	}
}

func (u upstreams) period(_ int64, instance string, p *period) {
	for address, other := range p.upstreams {
		u.of(instance).of(address).mergeUpstream(other)
	}
}

// Upstreams tells what upstreams did; see querylog.Reader. Latencies cover queries that did not end as errors.
func (l *Log) Upstreams(ctx context.Context, f fleet.QueryFilter, byInstance bool) (fleet.QueryUpstreams, error) {
	found := upstreams{}
	err := l.read(ctx, "upstreams", func(c *conn) error {
		q, err := l.ask(ctx, c, f)
		if err != nil {
			return err
		}
		return q.visit(ctx, c, hour, needUpstreams, found)
	})
	if err != nil {
		return fleet.QueryUpstreams{}, err
	}
	total := upstreamTallies{}
	var answer fleet.QueryUpstreams
	for _, id := range slices.Sorted(maps.Keys(found)) {
		for address, u := range found[id] {
			total.of(address).mergeUpstream(u)
		}
		if byInstance {
			answer.Groups = append(answer.Groups, fleet.QueryUpstreamGroup{InstanceID: id, Upstreams: found[id].ranked()})
		}
	}
	answer.Upstreams = total.ranked()
	return answer, nil
}

// ranked are the upstreams, the busiest first.
func (m upstreamTallies) ranked() []fleet.QueryUpstream {
	list := make([]fleet.QueryUpstream, 0, len(m))
	for address, u := range m {
		u.settle()
		list = append(list, fleet.QueryUpstream{
			Address: address, Count: u.count, Errors: u.errors,
			AvgMS: meanMS(u.us, u.count-u.errors), P95MS: u.latency.QuantileMS(0.95),
		})
	}
	slices.SortFunc(list, func(a, b fleet.QueryUpstream) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Address, b.Address))
	})
	return list
}
