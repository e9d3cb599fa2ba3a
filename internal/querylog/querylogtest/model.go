package querylogtest

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/fleet"
)

// The model answers in the plainest way: by looking at every event.

func (e event) ts() time.Time { return e.Time.UTC().Truncate(time.Millisecond) }

func (e event) name() string {
	if e.QName == "." {
		return "."
	}
	return strings.TrimSuffix(e.QName, ".")
}

func (e event) address() string {
	if !e.Client.IsValid() {
		return ""
	}
	return e.Client.String()
}

func (e event) client() string { return cmp.Or(e.ClientName, e.address()) }

func (e event) failed() bool { return e.Outcome == fleet.Servfail || e.Outcome == fleet.UpstreamError }

func (e event) qtype() string { return dns.Type(e.QType).String() }

func (e event) row() fleet.QueryRow {
	return fleet.QueryRow{
		TS: e.ts(), InstanceID: e.instance, ClientIP: e.address(), ClientName: e.ClientName, Protocol: e.Protocol, QName: e.name(),
		QType: e.qtype(), Outcome: e.Outcome.String(), RCode: dns.RcodeToString[e.RCode],
		DurationMS: float64(e.Duration) / float64(time.Millisecond), UpstreamAddress: e.Upstream, List: e.List,
	}
}

func (e event) matches(f fleet.QueryFilter) bool {
	in := func(list []string, s string) bool { return len(list) == 0 || slices.Contains(list, s) }
	switch {
	case !f.From.IsZero() && e.ts().Before(f.From), !f.To.IsZero() && !e.ts().Before(f.To):
		return false
	case !in(f.Instances, e.instance):
		return false
	case f.Domain != "" && e.name() != f.Domain && !strings.HasSuffix(e.name(), "."+f.Domain):
		return false
	case f.Client != "" && e.address() != f.Client && e.ClientName != f.Client:
		return false
	case len(f.Outcomes) > 0 && !slices.Contains(f.Outcomes, e.Outcome):
		return false
	case f.QType != "" && e.qtype() != f.QType, f.Upstream != "" && e.Upstream != f.Upstream:
		return false
	}
	return true
}

func matching(events []event, f fleet.QueryFilter) []event {
	var found []event
	for _, e := range events {
		if e.matches(f) {
			found = append(found, e)
		}
	}
	return found
}

// byInstance splits events, in the order of the instances' ids.
func byInstance(events []event) (ids []string, groups map[string][]event) {
	groups = map[string][]event{}
	for _, e := range events {
		groups[e.instance] = append(groups[e.instance], e)
	}
	return slices.Sorted(maps.Keys(groups)), groups
}

func outcomes(events []event) fleet.Outcomes {
	var o fleet.Outcomes
	for _, e := range events {
		o[e.Outcome]++
	}
	return o
}

// durations are those of the events in milliseconds, sorted.
func durations(events []event) []float64 {
	var all []float64
	for _, e := range events {
		all = append(all, float64(e.Duration)/float64(time.Millisecond))
	}
	slices.Sort(all)
	return all
}

func mean(sorted []float64) float64 {
	sum := 0.0
	for _, d := range sorted {
		sum += d
	}
	return sum / float64(len(sorted))
}

// around are the values between which a quantile lies, whichever way its rank is rounded.
func around(sorted []float64, q float64) (low, high float64) {
	rank := q * float64(len(sorted)-1)
	low = sorted[max(int(math.Floor(rank)), 0)]
	return low, sorted[min(int(math.Ceil(q*float64(len(sorted)))), len(sorted)-1)]
}

// top counts keys, the most frequent first, then by key. The empty key is nobody.
func top(events []event, key func(event) string, limit int) []fleet.TopItem {
	counts := map[string]uint64{}
	for _, e := range events {
		if k := key(e); k != "" {
			counts[k]++
		}
	}
	items := []fleet.TopItem{}
	for name, n := range counts {
		items = append(items, fleet.TopItem{Name: name, Count: n})
	}
	slices.SortFunc(items, func(a, b fleet.TopItem) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Name, b.Name))
	})
	return items[:min(limit, len(items))]
}

// steps are the starts of the steps in [from, to).
func steps(from, to time.Time, step time.Duration) []time.Time {
	var starts []time.Time
	first := stepOf(from, step)
	if first.Before(from) {
		first = first.Add(step)
	}
	for at := first; at.Before(to); at = at.Add(step) {
		starts = append(starts, at)
	}
	return starts
}

// stepOf is the start of the step that an instant is in.
func stepOf(at time.Time, step time.Duration) time.Time {
	ms := step.Milliseconds()
	return time.UnixMilli(at.UnixMilli() / ms * ms).UTC()
}
