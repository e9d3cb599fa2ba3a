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
	entries   map[key]*entry
	standings map[series]*standing
	ended     map[string]bool // boots whose last slices were closed
	bytes     int
	limit     int // of bytes
	dropped   uint64
}

func newLedger(limit int) *ledger {
	return &ledger{entries: map[key]*entry{}, standings: map[series]*standing{}, ended: map[string]bool{}, limit: limit}
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

// waiting is how many slices wait to be sent.
func (l *ledger) waiting() (n int) {
	for _, e := range l.entries {
		if e.sentAt.IsZero() {
			n++
		}
	}
	return n
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
	maps.DeleteFunc(l.standings, func(s series, _ *standing) bool { return !alive[s.boot] })
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
