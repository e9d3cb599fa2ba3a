package breakdown

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
)

// maxTop is how many names of one member are carried from hour to hour, so that names which are never at the top of an hour
// can be at the top of a week.
const maxTop = 1000

// lastHourAge is how long ago a last hour may have begun that is still told for this one.
const lastHourAge = 75 * time.Minute

// pick chooses one of the top lists.
type pick func(fleet.Sketches) []fleet.TopItem

// TopDomains are the names that were asked for most. Groups are by instance id, of those that had any.
func (b *Breakdown) TopDomains(ctx context.Context, f fleet.QueryFilter, limit int, byInstance bool) (fleet.QueryTop, fleet.QueryAnswer, error) {
	ask := func(ctx context.Context, log querylog.Reader) (fleet.QueryTop, error) {
		return log.TopDomains(ctx, f, limit, byInstance)
	}
	lists := pick(func(s fleet.Sketches) []fleet.TopItem { return s.TopDomains })
	plain := f
	if slices.Equal(f.Outcomes, []fleet.Outcome{fleet.Blocked}) {
		plain.Outcomes = nil
		lists = func(s fleet.Sketches) []fleet.TopItem { return s.TopBlocked }
	}
	if plain.Filtered() {
		lists = nil
	}
	return b.top(ctx, f, ask, lists, limit, byInstance)
}

// TopClients are the clients that asked most. Groups are by instance id, of those that had any.
func (b *Breakdown) TopClients(ctx context.Context, f fleet.QueryFilter, limit int, byInstance bool) (fleet.QueryTop, fleet.QueryAnswer, error) {
	ask := func(ctx context.Context, log querylog.Reader) (fleet.QueryTop, error) {
		return log.TopClients(ctx, f, limit, byInstance)
	}
	lists := pick(func(s fleet.Sketches) []fleet.TopItem { return s.TopClients })
	if f.Filtered() {
		lists = nil
	}
	return b.top(ctx, f, ask, lists, limit, byInstance)
}

// top asks for a top list. lists is nil where slices have none.
func (b *Breakdown) top(ctx context.Context, f fleet.QueryFilter, log func(context.Context, querylog.Reader) (fleet.QueryTop, error), lists pick, limit int, byInstance bool) (fleet.QueryTop, fleet.QueryAnswer, error) {
	q := question[fleet.QueryTop]{filter: f, log: log}
	if lists != nil {
		q.reports = func(ctx context.Context, r *reports) (fleet.QueryTop, error) {
			if r.isLastHour() {
				return r.topOfLastHour(lists, limit, byInstance), nil
			}
			return r.topOfHours(ctx, lists, limit, byInstance)
		}
	}
	answer, about, err := ask(ctx, b, q)
	answer.Items = orEmpty(answer.Items)
	return answer, about, err
}

// isLastHour reports whether a window is so short and so new that no slice with tops may lie in it.
func (r *reports) isLastHour() bool {
	return r.asked.To.Sub(r.asked.From) <= time.Hour && r.asked.To.After(r.now.Add(-time.Minute))
}

// topOfLastHour merges what members said of their last hour when they last reported.
func (r *reports) topOfLastHour(lists pick, limit int, byInstance bool) (top fleet.QueryTop) {
	about := fleet.QueryAnswer{Enabled: r.b.o.Reader != nil, Source: sourceReports, From: r.now, To: r.asked.To.UTC(), Missing: []fleet.QueryGap{}}
	var all [][]fleet.TopItem
	gap := func(id, reason string) {
		about.Missing = append(about.Missing, fleet.QueryGap{InstanceID: id, Reason: reason})
	}
	for _, m := range r.members {
		switch {
		case m.LastHour == nil && m.QueryLog == "":
			gap(m.ID, "does not tell its last hour")
			continue
		case m.LastHour == nil: // no query yet
			continue
		case m.LastHour.From.Before(r.now.Add(-lastHourAge)):
			gap(m.ID, "has not reported of late")
			continue
		}
		about.From = earlier(about.From, m.LastHour.From.UTC())
		list := lists(m.LastHour.Sketches)
		if all = append(all, list); byInstance && len(list) > 0 {
			top.Groups = append(top.Groups, fleet.QueryTopGroup{InstanceID: m.ID, Items: cut(list, limit)})
		}
	}
	if len(all) == 0 {
		about.From = r.asked.From.UTC()
	}
	if about.From.Before(r.asked.From.Add(-time.Minute)) {
		gap("", "reports tell tops by the hour: these are of the last one")
	}
	top.Items = fleet.MergeTops(limit, fleet.TopOfNow, all...)
	r.said = &about
	return top
}

// topOfHours merges the tops of hour slices, each member's first, so that no more than maxTop names of each are held. The
// window becomes whole hours: from that in which it begins to the full hour that is nearest to its end.
func (r *reports) topOfHours(ctx context.Context, lists pick, limit int, byInstance bool) (top fleet.QueryTop, err error) {
	r.size, r.hourly, r.clipped = fleet.Hour, true, 0
	r.from, r.to = roundDown(r.asked.From, time.Hour), roundDown(r.asked.To.Add(time.Hour/2), time.Hour)
	if keep := r.b.keep(fleet.Hour); r.from.Before(r.now.Add(-keep - time.Hour)) {
		r.from, r.clipped = r.now.Add(-keep), keep
	}
	var mu sync.Mutex // guards all and groups
	var all [][]fleet.TopItem
	err = r.visit(ctx, func(m Member, pieces []fleet.Slice) {
		var hours [][]fleet.TopItem
		for _, p := range pieces {
			hours = append(hours, lists(p.Sketches))
		}
		sum := fleet.MergeTops(maxTop, fleet.TopOfHour, hours...)
		mu.Lock()
		defer mu.Unlock()
		if all = append(all, sum); byInstance && len(sum) > 0 {
			top.Groups = append(top.Groups, fleet.QueryTopGroup{InstanceID: m.ID, Items: cut(sum, limit)})
		}
	})
	top.Items = fleet.MergeTops(limit, maxTop, all...)
	slices.SortFunc(top.Groups, func(a, b fleet.QueryTopGroup) int { return cmp.Compare(a.InstanceID, b.InstanceID) })
	return top, err
}

func cut(list []fleet.TopItem, limit int) []fleet.TopItem {
	return slices.Clone(list[:min(limit, len(list))])
}
