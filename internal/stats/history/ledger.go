package history

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"dnsfleet/internal/fleet"
)

// resendFor is how long a slice stays after it was sent, so that it can go again to a store that forgot it.
const resendFor = 2 * time.Hour

// keepUnsent is how long a slice waits for a store at most: as long as a store would keep it, and at least a day, so
// that the longest outage that people sleep through leaves no hole in any size.
func keepUnsent(s fleet.Size) time.Duration { return max(s.Keep(), 24*time.Hour) }

// key names a slice; series is what a store's until speaks of.
type (
	key struct {
		series
		start int64 // Unix seconds
	}
	series struct {
		boot string
		size fleet.Size
	}
)

func keyOf(s fleet.Slice) key { return key{series{s.BootID, s.Size}, s.Start.Unix()} }

func (k key) end() int64 { return k.start + int64(k.size.Duration()/time.Second) }

// byAge orders slices as they became complete; at the same instant the shortest first.
func byAge(a, b *entry) int {
	return cmp.Or(cmp.Compare(a.end(), b.end()), cmp.Compare(a.size, b.size), strings.Compare(a.boot, b.boot))
}

// entry is one slice. encoded never changes.
type entry struct {
	key
	encoded []byte
	sentAt  time.Time // zero = waits to be sent
}

// ledger knows which slices exist and which of them the fleet has. It does no input or output and reads no clock.
type ledger struct {
	entries map[key]*entry
	until   map[series]time.Time // as the store told last
	ended   map[string]bool      // boots whose last slices were closed
	bytes   int
	limit   int // of bytes
	dropped uint64
}

func newLedger(limit int) *ledger {
	return &ledger{entries: map[key]*entry{}, until: map[series]time.Time{}, ended: map[string]bool{}, limit: limit}
}

// put adds a slice, or replaces it.
func (l *ledger) put(k key, encoded []byte, sentAt time.Time) {
	l.remove(k)
	l.entries[k] = &entry{k, encoded, sentAt}
	l.bytes += len(encoded)
}

func (l *ledger) remove(k key) {
	if e, ok := l.entries[k]; ok {
		l.bytes -= len(e.encoded)
		delete(l.entries, k)
	}
}

// waiting are the slices to be sent, oldest first, without those of the boot skip.
func (l *ledger) waiting(skip string) []*entry {
	var out []*entry
	for _, e := range l.entries {
		if e.sentAt.IsZero() && e.boot != skip {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, byAge)
	return out
}

// sent notes what a store answered to a push of the boot own that carried the slices pushed. It reports what
// changed: slices that no longer wait, untils, and whether slices wait again because the store forgot some.
//
// A push that was answered was stored whole, so its slices are done, whatever until says: a hole that nobody can
// fill any more must not make the slices behind it go for ever. Only an until that went back, or that is gone, tells of
// slices lost. Then all that is still here goes again, of every boot and size: what a store forgot beyond the one until
// that shows it cannot be known, and sending twice changes nothing.
func (l *ledger) sent(now time.Time, own string, pushed []key, until []fleet.SlicesUntil) (done []key, moved []fleet.SlicesUntil, again bool) {
	named := map[series]bool{}
	for _, size := range fleet.Sizes() {
		named[series{own, size}] = true
	}
	for _, k := range pushed {
		named[k.series] = true
		if e, ok := l.entries[k]; ok {
			e.sentAt = now
			done = append(done, k)
		}
	}
	for _, u := range until {
		s := series{u.BootID, u.Size}
		before, known := l.until[s]
		again = again || u.Until.Before(before)
		if !known || !u.Until.Equal(before) {
			moved = append(moved, u)
		}
		l.until[s] = u.Until
		delete(named, s)
	}
	for s := range named {
		if _, known := l.until[s]; known {
			again = true
			delete(l.until, s)
		}
	}
	if again {
		for k, e := range l.entries {
			if !slices.Contains(pushed, k) {
				e.sentAt = time.Time{}
			}
		}
	}
	return done, moved, again
}

// expire removes what has had its time. Without trusted, when now may be years off, only the time since sending counts.
func (l *ledger) expire(now time.Time, own string, trusted bool) {
	for k, e := range l.entries {
		switch {
		case e.sentAt.After(now): // the clock of an earlier boot was ahead
			e.sentAt = now
		case !e.sentAt.IsZero() && now.Sub(e.sentAt) >= resendFor:
			l.remove(k)
		case e.sentAt.IsZero() && trusted && now.Sub(time.Unix(k.end(), 0)) > keepUnsent(k.size):
			l.remove(k)
			l.dropped++
		}
	}
	alive := map[string]bool{own: true}
	for k := range l.entries {
		alive[k.boot] = true
	}
	maps.DeleteFunc(l.until, func(s series, _ time.Time) bool { return !alive[s.boot] })
	maps.DeleteFunc(l.ended, func(boot string, _ bool) bool { return !alive[boot] })
}

// trim drops slices while they are more than the limit: first those that were sent, then the oldest.
func (l *ledger) trim() {
	if l.bytes <= l.limit {
		return
	}
	all := slices.SortedFunc(maps.Values(l.entries), func(a, b *entry) int {
		if a.sentAt.IsZero() != b.sentAt.IsZero() {
			if b.sentAt.IsZero() {
				return -1
			}
			return 1
		}
		return byAge(a, b)
	})
	for _, e := range all {
		if l.bytes <= l.limit-l.limit/16 { // some room, so that the next slice does not sort all again
			return
		}
		if e.sentAt.IsZero() {
			l.dropped++
		}
		l.remove(e.key)
	}
}
