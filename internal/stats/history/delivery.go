package history

import (
	"cmp"
	"slices"
	"time"

	"dnsfleet/internal/fleet"
)

// A store that crashes forgets what it answered last: Redis syncs its log once a second, a fail-over costs some more. So
// what it was sent is asked for once more when askAgain has passed. Of pushes that follow each other within sameTime, as
// after an outage, only the first takes a witness along.
const (
	askAgain = 15 * time.Second
	sameTime = 5 * time.Second
)

// maxDoubts is how often a series is sent again only because the store seems not to remember it.
const maxDoubts = 1

// standing is how far a store has a series: the slices of one size of one boot.
//
// A store answers with an until for what a push carried and for the boot that runs. It keeps an until that only moves on,
// from the first slice it was sent; for a size that it does not keep, it makes one up each time from what the push
// carried. So an until that went back tells of slices lost only if the store is known to keep that size.
type standing struct {
	until   time.Time // as the store told last; zero = not yet
	proven  bool      // the store told an until that it must have remembered
	asked   time.Time // when a push that carried the series was answered last
	confirm bool      // to be asked once more
	doubts  int
}

func (l *ledger) standing(s series) *standing {
	st := l.standings[s]
	if st == nil {
		st = &standing{}
		l.standings[s] = st
	}
	return st
}

// kept reports whether the store certainly keeps such slices: minutes of the boot that runs are needed for the view.
func (st *standing) kept(s series, own string) bool {
	return st.proven || (s.boot == own && s.size == fleet.Minute)
}

// toSend are the slices that wait, oldest first, and with them a witness for each series that needs one: its oldest slice
// that the store was sent. A store that forgot the series, and takes the witness for the first it ever saw, answers with an
// until just behind it. Slices of the boot that runs are left out if it is held.
func (l *ledger) toSend(now time.Time, own string, held bool) []*entry {
	var out []*entry
	waiting := map[series]bool{}
	witness := map[series]*entry{}
	for _, e := range l.entries {
		switch {
		case held && e.boot == own:
		case e.sentAt.IsZero():
			out = append(out, e)
			waiting[e.series] = true
		case now.Sub(time.Unix(e.start, 0)) < e.size.Keep(): // a store would have removed an older one
			if w := witness[e.series]; w == nil || e.start < w.start {
				witness[e.series] = e
			}
		}
	}
	// The boot that runs shows in every answer what a store forgot, once it has a minute to lose behind its witness. Until
	// then the boots before it have to.
	mine := series{own, fleet.Minute}
	unknown := witness[mine] == nil || !time.Unix(witness[mine].end(), 0).Before(l.standing(mine).until)
	for s, e := range witness {
		st := l.standing(s)
		since := now.Sub(st.asked)
		if (st.confirm || unknown && s.boot != own && st.proven) && since >= askAgain || waiting[s] && st.kept(s, own) && since >= sameTime {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, byAge)
	return out
}

// carriage is what one push carried of a series.
type carriage struct {
	fresh bool  // slices that had not been sent
	floor int64 // end of its first unbroken run: the until of a store that knows nothing else
}

// answered is what an answer changed.
type answered struct {
	done   []key    // slices that no longer wait
	moved  []series // whose standing changed
	forgot bool     // the store lost slices, which wait again
}

// sent notes what a store answered to a push of the boot own that carried the slices pushed.
//
// A push that was answered was stored whole, so its slices are done, whatever until says: a hole that nobody can
// fill any more must not make the slices behind it go for ever. When the store forgot some, all that is still here goes
// again, of every boot and size: what it forgot beyond what shows cannot be known, and sending twice changes nothing.
func (l *ledger) sent(now time.Time, own string, pushed []key, until []fleet.SlicesUntil) answered {
	var out answered
	carried := l.carry(now, pushed, &out)
	answers := map[series]time.Time{}
	for _, u := range until {
		answers[series{u.BootID, u.Size}] = u.Until
	}
	for _, size := range fleet.Sizes() {
		s := series{own, size}
		st, known := l.standings[s]
		if carried[s] != nil || (!known && answers[s].IsZero()) {
			continue
		}
		if !known {
			st = l.standing(s)
		}
		told, there := answers[s]
		if told.Before(st.until) && (there || st.kept(s, own)) {
			out.forgot = true
			st.proven = false
		}
		if there {
			out.note(s, st, told, true)
		}
	}
	for s, c := range carried {
		st := l.standing(s)
		told, there := answers[s]
		if told.Before(st.until) {
			switch {
			case st.kept(s, own):
				out.forgot = true
				st.proven = false // or it keeps that size no more
			case st.doubts < maxDoubts:
				out.forgot = true
				st.doubts++
			}
		}
		if there {
			out.note(s, st, told, told.Unix() > c.floor)
		}
		st.asked = now
		st.confirm = c.fresh && s.boot != own // of that one every answer tells
	}
	if out.forgot {
		l.startAgain(answers)
	}
	return out
}

func (a *answered) note(s series, st *standing, until time.Time, proof bool) {
	if !until.Equal(st.until) || proof && !st.proven {
		a.moved = append(a.moved, s)
	}
	st.until = until
	st.proven = st.proven || proof
}

// carry marks pushed slices as sent and sums them up by series.
func (l *ledger) carry(now time.Time, pushed []key, out *answered) map[series]*carriage {
	carried := map[series]*carriage{}
	sorted := slices.SortedFunc(slices.Values(pushed), func(a, b key) int { return cmp.Compare(a.start, b.start) })
	for _, k := range sorted {
		c := carried[k.series]
		if c == nil {
			c = &carriage{floor: k.start}
			carried[k.series] = c
		}
		if k.start == c.floor {
			c.floor = k.end()
		}
		if e, here := l.entries[k]; here && e.sentAt.IsZero() {
			c.fresh = true
			e.sentAt = now
			out.done = append(out.done, k)
		}
	}
	return carried
}

// startAgain makes all slices wait, also those that were pushed just now, so that they arrive in order and until speaks of
// them all. What stores said before no longer counts.
func (l *ledger) startAgain(answers map[series]time.Time) {
	for _, e := range l.entries {
		e.sentAt = time.Time{}
	}
	for s, st := range l.standings {
		st.until, st.confirm = answers[s], false
	}
}
