package cache

import (
	"sync/atomic"
	"time"

	"dnsfleet/internal/fleet"
)

// counters are the hits and misses, each lane's on a line of its own.
type counters [64]struct {
	hits, misses atomic.Uint64
	_            [48]byte
}

// Count counts a look-up: Fresh is a hit, all else a miss. A lane below 64 that one goroutine has for itself is not
// contended; others share.
func (c *Cache) Count(lane int, s State) {
	count := &c.lookups[uint(lane)%uint(len(c.lookups))]
	if s == Fresh {
		count.hits.Add(1)
	} else {
		count.misses.Add(1)
	}
}

// Stats counts what is there. It reads eight bytes for each entry, a shard at a time: about a millisecond for half a
// million.
func (c *Cache) Stats() fleet.CacheStats {
	var s fleet.CacheStats
	for i := range c.lookups {
		s.Hits += c.lookups[i].hits.Load()
		s.Misses += c.lookups[i].misses.Load()
	}
	if total := s.Hits + s.Misses; total > 0 {
		s.HitRate = new(100 * float64(s.Hits) / float64(total))
	}
	limits := c.limits.Load()
	now := since(c.now())
	for i := range c.shards {
		c.shards[i].tally(&s.LRU, now, int64(limits.ServeStale))
	}
	average := int64(guess)
	if s.LRU.Entries > 0 {
		average = max(c.Bytes()/int64(s.LRU.Entries), 1)
	}
	s.LRU.MaxEntries = max(int(int64(limits.MaxBytes)/average), s.LRU.Entries)
	return s
}

// Bytes is the memory that entries and tables take.
func (c *Cache) Bytes() int64 { return max(c.bytes.Load(), 0) }

// Limits are the bounds in force.
func (c *Cache) Limits() fleet.CachePolicy { return *c.limits.Load() }

// Popular are the questions whose answers expire within the duration, or are in the last tenth of their TTL, and which
// are likely to be asked again before another TTL is over, as far as the last ten minutes tell; the most popular first,
// and not more than most. Failures and empty answers are not among them.
func (c *Cache) Popular(now time.Time, within time.Duration, most int) []Question {
	at := since(now)
	tick := tickOf(at)
	var due []*Entry
	var found ranking
	for i := range c.shards {
		due = c.shards[i].due(due[:0], at, int64(within))
		for _, e := range due {
			if uses := popular(e.use.history(tick), time.Duration(e.expires-e.stored)); uses > 0 {
				found.add(ranked{e, uses}, most)
			}
		}
	}
	questions := make([]Question, 0, min(len(found), max(most, 0)))
	for _, r := range found.best(most) {
		questions = append(questions, r.entry.question())
	}
	return questions
}
