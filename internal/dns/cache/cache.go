// Package cache keeps answers in memory (L0): bounded in bytes, by RFC 1035 and 2308 times, least recently used out
// first. Answers are kept as wire bytes, which the collector need not walk and which can be served as they are.
package cache

import (
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/fleet"
)

const (
	shardCount = 16
	// overhead is what an entry costs beside its bytes: map slot, list links, key.
	overhead = 200
	// guess is what an entry is taken to cost as long as there is none to measure.
	guess = 512
	// staleTTL is what a stale answer is served with (RFC 8767, section 4).
	staleTTL = 30 * time.Second
)

// Key is what an answer answers. Name is in lower case with the final dot.
type Key struct {
	Name        string
	Type, Class uint16
	DO, CD      bool
}

// State is how an answer from the cache is.
type State uint8

// The states.
const (
	Miss  State = iota
	Fresh       // within its TTL
	Stale       // past it, but within serve-stale
)

// Hit is what Get found.
type Hit struct {
	Msg   *dns.Msg // the caller's own; TTLs as of now; nil on a miss
	State State
}

// Cache is safe for concurrent use.
type Cache struct {
	now    func() time.Time
	seed   maphash.Seed
	limits atomic.Pointer[fleet.CachePolicy]
	hits   atomic.Uint64
	misses atomic.Uint64
	shards [shardCount]shard
}

// New makes a cache with the default limits. now = nil means time.Now.
func New(now func() time.Time) *Cache {
	if now == nil {
		now = time.Now
	}
	c := &Cache{now: now, seed: maphash.MakeSeed()}
	c.SetLimits(fleet.DefaultCachePolicy())
	return c
}

// SetLimits changes the bounds; what no longer fits leaves at once. The TTL bounds hold for answers put from now on.
func (c *Cache) SetLimits(limits fleet.CachePolicy) {
	c.limits.Store(&limits)
	for i := range c.shards {
		c.shards[i].shrink(int64(limits.MaxBytes) / shardCount)
	}
}

func (c *Cache) shard(k Key) *shard {
	return &c.shards[maphash.Comparable(c.seed, k)%shardCount]
}

// Get looks an answer up and counts a hit when it is fresh, a miss otherwise. A stale answer is found too, with a
// short TTL: whether to serve it is for the caller to say.
func (c *Cache) Get(k Key) Hit {
	hit := c.Peek(k)
	if hit.State == Fresh {
		c.hits.Add(1)
	} else {
		c.misses.Add(1)
	}
	return hit
}

// Peek is Get without counting.
func (c *Cache) Peek(k Key) Hit {
	now := c.now()
	serveStale := time.Duration(c.limits.Load().ServeStale)
	wire, stored, expires := c.shard(k).get(k, now, serveStale)
	if wire == nil {
		return Hit{}
	}
	msg := new(dns.Msg)
	if err := msg.Unpack(wire); err != nil {
		return Hit{} // cannot be: it was packed by us
	}
	if now.Before(expires) {
		age(msg, now.Sub(stored))
		return Hit{msg, Fresh}
	}
	for rr := range records(msg) {
		rr.Header().Ttl = uint32(staleTTL / time.Second)
	}
	return Hit{msg, Stale}
}

// Put keeps an answer if the RFCs allow it, and reports whether it did. It does not change or keep msg. A failure never
// takes the place of an answer that may still be served stale.
func (c *Cache) Put(k Key, msg *dns.Msg) bool {
	limits := *c.limits.Load()
	ttl := Lifetime(msg, limits)
	if ttl <= 0 || limits.MaxBytes <= 0 {
		return false
	}
	kept := msg.Copy()
	kept.Compress = true
	kept.Extra = withoutOPT(kept.Extra)
	clamp(kept, ttl, limits)
	wire, err := kept.Pack()
	if err != nil {
		return false
	}
	now := c.now()
	e := &entry{key: k, wire: wire, stored: now, expires: now.Add(ttl), failure: msg.Rcode == dns.RcodeServerFailure}
	return c.shard(k).put(e, now, time.Duration(limits.ServeStale), int64(limits.MaxBytes)/shardCount)
}

// Clear forgets every answer and returns how many there were. The counts of hits and misses stay.
func (c *Cache) Clear() int {
	n := 0
	for i := range c.shards {
		n += c.shards[i].clear()
	}
	return n
}

// Stats counts what is there. It looks at every entry, a shard at a time.
func (c *Cache) Stats() fleet.CacheStats {
	s := fleet.CacheStats{Hits: c.hits.Load(), Misses: c.misses.Load()}
	if total := s.Hits + s.Misses; total > 0 {
		s.HitRate = new(100 * float64(s.Hits) / float64(total))
	}
	limits := *c.limits.Load()
	now := c.now()
	var bytes int64
	for i := range c.shards {
		bytes += c.shards[i].count(&s.LRU, now, time.Duration(limits.ServeStale))
	}
	average := int64(guess)
	if s.LRU.Entries > 0 {
		average = max(bytes/int64(s.LRU.Entries), 1)
	}
	s.LRU.MaxEntries = max(int(int64(limits.MaxBytes)/average), s.LRU.Entries)
	return s
}
