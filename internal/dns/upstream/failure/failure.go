// Package failure remembers questions that failed, so that they are not asked again at once (RFC 9520).
package failure

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"dnsfleet/internal/dns/upstream/wire"
)

const (
	// A failure is remembered for first, doubling while the question goes on failing, up to most (RFC 9520, section 3.2).
	first = time.Second
	most  = 5 * time.Minute
	// trail is for how long after that the next failure of the question counts as one more.
	trail = time.Minute

	sets = 1024 // of
	ways = 4    // each: what comes on top takes the place of what would be forgotten first
)

// Cache holds the questions that failed lately. It is safe for concurrent use, and takes 128 KiB from the first of them
// on, never more.
type Cache struct {
	seed maphash.Seed
	some atomic.Bool // there was one: most of the time there is none, and nothing to look for

	mu    sync.Mutex         // guards the following
	table *[sets][ways]entry // nil before the first
}

type entry struct {
	question uint64 // hash, 0 = empty
	until    int64  // Unix nanoseconds
	lasts    time.Duration
	era      uint64 // 0 = an upstream said so
}

// New makes an empty Cache.
func New() *Cache { return &Cache{seed: maphash.MakeSeed()} }

// key is the question and what of the flags bears on the answer.
func (c *Cache) key(query []byte) uint64 {
	var buf [wire.UDPSize]byte
	question := append(wire.AppendQuestion(buf[:0], query), query[3]&0x10)
	return maphash.Bytes(c.seed, question) | 1
}

// Has reports whether the question failed a moment ago. That nobody answered does not count any more, after its first
// second, when an upstream has come back since: era counts that, from 1.
func (c *Cache) Has(query []byte, now time.Time, era uint64) bool {
	if !c.some.Load() {
		return false
	}
	key := c.key(query)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, known := range c.table[key>>1%sets] {
		if known.question == key {
			if known.era != 0 && known.era != era {
				known.until -= int64(known.lasts - first)
			}
			return now.UnixNano() < known.until
		}
	}
	return false
}

// Add remembers a failure: in the era that nobody answered, or 0 if an upstream said so.
func (c *Cache) Add(query []byte, now time.Time, era uint64) {
	key := c.key(query)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.table == nil {
		c.table = new([sets][ways]entry)
		c.some.Store(true)
	}
	set := &c.table[key>>1%sets]
	place := &set[0]
	for i := range set {
		if set[i].question == key {
			place = &set[i]
			break
		}
		if set[i].until < place.until {
			place = &set[i]
		}
	}
	lasts := first
	if place.question == key && now.UnixNano() < place.until+int64(trail) {
		lasts = min(2*place.lasts, most)
	}
	*place = entry{key, now.Add(lasts).UnixNano(), lasts, era}
}

// Forget forgets a question, which was answered.
func (c *Cache) Forget(query []byte) {
	if !c.some.Load() {
		return
	}
	key := c.key(query)
	c.mu.Lock()
	defer c.mu.Unlock()
	set := &c.table[key>>1%sets]
	for i := range set {
		if set[i].question == key {
			set[i] = entry{}
		}
	}
}
