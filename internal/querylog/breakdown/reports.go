package breakdown

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dnsfleet/internal/fleet"
)

// fetches is how many members' slices are read at once.
const fetches = 8

// behind is how far slices may lie behind the end of a window without being told as missing, beside the minute that runs:
// the time of a push.
const behind = 2 * time.Minute

// reports are the slices of some members in a window.
type reports struct {
	b        *Breakdown
	members  []Member
	now      time.Time
	asked    fleet.QueryFilter
	from, to time.Time  // what of it slices can cover
	size     fleet.Size // of the longest slices that cover it
	hourly   bool       // only slices of size can answer, none shorter for the end of the window
	clipped  time.Duration

	mu      sync.Mutex           // guards visited and until
	visited map[string]bool      // members whose slices were read
	until   map[string]time.Time // by member, the end of its last slice
	said    *fleet.QueryAnswer   // what to say instead of what slices tell
}

// newReports chooses slices as short as the age of the window lets them be.
func (b *Breakdown) newReports(f fleet.QueryFilter, members []Member) *reports {
	r := &reports{b: b, members: members, now: b.o.Now().UTC(), asked: f, from: f.From.UTC(), to: f.To.UTC()}
	r.visited, r.until = map[string]bool{}, map[string]time.Time{}
	longest := time.Duration(0)
	for _, size := range fleet.Sizes() {
		if keep := b.keep(size); keep > longest {
			r.size, longest = size, keep
		}
		if r.now.Sub(r.from) <= longest+r.size.Duration() { // as much grace as the oldest slice takes to leave
			break
		}
	}
	if oldest := r.now.Add(-longest); r.from.Before(oldest.Add(-r.size.Duration())) {
		r.from, r.clipped = oldest, longest
	}
	return r
}

// keep is how far back slices of a size can be there.
func (b *Breakdown) keep(size fleet.Size) time.Duration {
	keep := min(b.o.History, size.Keep())
	if size == fleet.Minute {
		keep = max(keep, fleet.RecentWindow)
	}
	return keep
}

// visit reads the slices of every member and hands them to each, which is called concurrently, once for each member.
func (r *reports) visit(ctx context.Context, each func(m Member, pieces []fleet.Slice)) error {
	if !r.from.Before(r.to) {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(fetches)
	for _, m := range r.members {
		g.Go(func() error {
			pieces, err := r.pieces(ctx, m.ID)
			if err != nil {
				return err
			}
			each(m, pieces)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.visited[m.ID] = true
			for _, p := range pieces {
				r.until[m.ID] = later(r.until[m.ID], p.End())
			}
			return nil
		})
	}
	return g.Wait()
}

// pieces are slices of one member that cover the window without an overlap. The end of it, for which the longer slices are
// not there yet, is covered by shorter ones.
func (r *reports) pieces(ctx context.Context, id string) ([]fleet.Slice, error) {
	var pieces []fleet.Slice
	ends := map[string]time.Time{} // by boot, where its slices that were found end
	from := r.from
	for _, size := range slices.Backward(fleet.Sizes()) {
		if size > r.size || (r.hourly && size != r.size) {
			continue
		}
		found, err := r.b.o.Slices(ctx, id, size, from, r.to)
		if err != nil {
			return nil, err
		}
		for _, s := range found {
			if s.Start.Before(ends[s.BootID]) {
				continue
			}
			pieces = append(pieces, s)
			ends[s.BootID] = s.End()
		}
		from = later(from, earlier(r.to, r.now).Truncate(size.Duration()).Add(-size.Duration()))
	}
	return pieces, nil
}

// sums merges the slices of each member, after strip took from them what nobody needs, and hands the sums on one at a time.
// Members without any are left out.
func (r *reports) sums(ctx context.Context, strip func(*fleet.Slice), each func(id string, sum fleet.Slice)) error {
	var mu sync.Mutex
	return r.visit(ctx, func(m Member, pieces []fleet.Slice) {
		if len(pieces) == 0 {
			return
		}
		for i := range pieces {
			pieces[i].Sketches = fleet.Sketches{}
			strip(&pieces[i])
		}
		sum := fleet.MergeSlices(pieces...)
		mu.Lock()
		defer mu.Unlock()
		each(m.ID, sum)
	})
}

// about is what an answer from these slices stands on, after they were visited.
func (r *reports) about() fleet.QueryAnswer {
	if r.said != nil {
		return *r.said
	}
	about := fleet.QueryAnswer{Enabled: r.b.o.Reader != nil, Source: sourceReports, From: r.asked.From.UTC(), To: r.asked.To.UTC(), Missing: []fleet.QueryGap{}}
	gap := func(id, reason string) {
		about.Missing = append(about.Missing, fleet.QueryGap{InstanceID: id, Reason: reason})
	}
	if r.clipped > 0 {
		gap("", "reports are kept for "+lasting(r.clipped))
	}
	if !r.from.Before(r.to) { // all of it lies before what is kept
		about.From = about.To
		return about
	}
	end := r.end()
	if first := roundUp(r.from, r.size.Duration()); !end.IsZero() && first.Before(end) {
		about.From, about.To = first, end
	}
	switch wanted := earlier(r.asked.To.UTC(), r.now); {
	case len(r.members) == 0:
		gap("", "no instance that was asked for is known")
	case end.IsZero():
		gap("", "there are no reports of this time")
		return about
	case end.Before(wanted):
		gap("", "reports reach to "+end.Format(time.RFC3339)+": what runs is told when it is over")
	}
	for _, m := range r.members {
		switch until := r.until[m.ID]; {
		case until.IsZero():
			gap(m.ID, "has no reports of this time")
		case until.Before(end.Add(-behind)):
			gap(m.ID, "its reports end at "+until.UTC().Format(time.RFC3339))
		}
	}
	return about
}

// end is where the last slice ends, zero when there are none.
func (r *reports) end() (end time.Time) {
	for _, until := range r.until {
		end = later(end, until)
	}
	return end
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// roundUp is the first whole multiple of d since the epoch that does not lie before t.
func roundUp(t time.Time, d time.Duration) time.Time {
	down := roundDown(t, d)
	if down.Before(t) {
		return down.Add(d)
	}
	return down
}

// roundDown is the last whole multiple of d since the epoch that does not lie after t.
func roundDown(t time.Time, d time.Duration) time.Time {
	ms, step := t.UnixMilli(), d.Milliseconds()
	return time.UnixMilli(ms - (ms%step+step)%step).UTC()
}
