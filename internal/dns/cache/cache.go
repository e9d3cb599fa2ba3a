// Package cache keeps answers in memory (L0), in wire form and ready to serve: bounded in bytes, by the times of RFC 1035
// and 2308, what is seldom used out first. Who looks up takes no lock and allocates nothing.
//
// Time within the cache runs by the monotonic clock, so a step of the wall clock neither keeps answers nor drops them.
package cache

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/cache/answer"
	"dnsfleet/internal/fleet"
)

const (
	shardCount = 64
	// guess is what an entry is taken to cost as long as there is none to measure.
	guess = 384
	// largestShare of the cache is more than one answer may take.
	largestShare = 8
	// typical is how many TTLs a message may have before reading it allocates.
	typical = 64
)

// Question is what an answer answers; its class is IN. Name is the uncompressed wire form in lower case. The cache does
// not keep it.
type Question struct {
	Name   []byte
	Type   uint16
	DO, CD bool
}

func (q *Question) flags() uint8 {
	var f uint8
	if q.DO {
		f = flagDO
	}
	if q.CD {
		f |= flagCD
	}
	return f
}

// State is how an answer from the cache is.
type State uint8

// The states.
const (
	Miss  State = iota
	Fresh       // within its TTL
	Stale       // past it, but within serve-stale
)

// Cache is safe for concurrent use.
type Cache struct {
	now    func() time.Time
	seed   maphash.Seed
	limits atomic.Pointer[fleet.CachePolicy]
	_      [96]byte // what every look-up reads is not on the line of what writers change

	bytes atomic.Int64  // of all entries and tables
	hand  atomic.Uint64 // shard that is next to give memory back
	swept atomic.Uint64 // shard that is next to be swept

	saving sync.Mutex // one file at a time

	lookups counters
	shards  [shardCount]shard
}

// New makes a cache with the default limits. now is the clock of the methods that are not given a time; nil means
// time.Now.
func New(now func() time.Time) *Cache {
	if now == nil {
		now = time.Now
	}
	c := &Cache{now: now, seed: maphash.MakeSeed()}
	c.limits.Store(new(fleet.DefaultCachePolicy()))
	return c
}

// SetLimits changes the bounds; what no longer fits leaves at once. The TTL bounds hold for answers put from now on.
func (c *Cache) SetLimits(limits fleet.CachePolicy) {
	c.limits.Store(&limits)
	if limits.MaxBytes <= 0 {
		c.Clear()
		return
	}
	c.evict(since(c.now()))
}

func (c *Cache) hash(q *Question) uint64 {
	const odd = 0x9E3779B97F4A7C15
	h := (maphash.Bytes(c.seed, q.Name) ^ uint64(q.Type)<<2 ^ uint64(q.flags())) * odd
	return h ^ h>>32
}

func (c *Cache) shard(hash uint64) *shard { return &c.shards[hash%shardCount] }

// Lookup finds the answer to a question and counts a hit when it is fresh, a miss otherwise. A stale answer is found
// too: whether to serve it is for the caller to say. The entry is nil on a miss. Callers that have a lane do better with
// Find and Count: here all who ask the same count in the same place.
func (c *Cache) Lookup(q Question, now time.Time) (*Entry, State) {
	hash := c.hash(&q)
	e, state := c.find(&q, hash, now)
	c.Count(int(hash>>32), state)
	return e, state
}

// Find is Lookup without counting. It notes that the entry is in use, as Lookup does.
func (c *Cache) Find(q Question, now time.Time) (*Entry, State) {
	return c.find(&q, c.hash(&q), now)
}

func (c *Cache) find(q *Question, hash uint64, now time.Time) (*Entry, State) {
	t := c.shard(hash).table.Load()
	if t == nil {
		return nil, Miss
	}
	e := t.find(hash, q)
	if e == nil {
		return nil, Miss
	}
	at := since(now)
	state := Fresh
	if at >= e.expires {
		if at >= e.deadline(int64(c.limits.Load().ServeStale)) {
			return nil, Miss
		}
		state = Stale
	}
	e.use.touch(tickOf(at))
	return e, state
}

// Insert keeps a whole response in wire form if it answers the question and the RFCs allow it, and returns its entry.
// The cache does not keep or change the bytes of response. Its OPT is left out, its TTLs are put within the limits. A failure never
// takes the place of an answer that may still be served stale.
func (c *Cache) Insert(q Question, response []byte, now time.Time) (*Entry, bool) {
	at := since(now)
	return c.insert(q, response, at, at, nil)
}

// insert keeps a response that was received at stored. A response with a history comes from a snapshot: it takes the
// place of nothing.
func (c *Cache) insert(q Question, response []byte, stored, now int64, history *uint64) (*Entry, bool) {
	limits := c.limits.Load()
	if limits.MaxBytes <= 0 {
		return nil, false
	}
	var room [typical]uint16
	a, err := answer.Read(response, q.Name, q.Type, room[:])
	if err != nil {
		return nil, false
	}
	lifetime := a.Lifetime(limits)
	if lifetime <= 0 {
		return nil, false
	}
	hash := c.hash(&q)
	e, ok := newEntry(q, hash, &a, lifetime, limits, stored)
	if !ok || int64(e.size) > int64(limits.MaxBytes)/largestShare || now >= e.deadline(int64(limits.ServeStale)) {
		return nil, false
	}
	if history != nil {
		e.use.set(*history, tickOf(now))
	}
	grown, ok := c.shard(hash).put(e, &q, now, int64(limits.ServeStale), history != nil)
	if !ok {
		return nil, false
	}
	if c.bytes.Add(grown) > int64(limits.MaxBytes) {
		c.evict(now)
	}
	return e, true
}

// evict brings the cache back within its bytes. The hand goes around all shards, a stretch at a time, so that it does
// not matter which of them an answer falls into. When it has spared everything for some rounds, it spares nothing.
func (c *Cache) evict(now int64) {
	const patience = 4 * shardCount
	idle := 0
	for idle < 2*patience {
		over := c.bytes.Load() - int64(c.limits.Load().MaxBytes)
		if over <= 0 {
			return
		}
		freed := c.shards[c.hand.Add(1)%shardCount].evict(over, now, idle > patience)
		c.bytes.Add(-freed)
		if idle++; freed > 0 {
			idle = 0
		}
	}
}

// Sweep drops what is past its stale deadline and returns how much that was. It looks at a part of a large cache only,
// and goes on from there the next time: some 64,000 entries take it about a millisecond.
func (c *Cache) Sweep(now time.Time) (removed int) {
	const most = 1 << 16
	serveStale := int64(c.limits.Load().ServeStale)
	seen := 0
	for range shardCount {
		n, freed, looked := c.shards[c.swept.Add(1)%shardCount].sweep(since(now), serveStale)
		c.bytes.Add(-freed)
		removed += n
		if seen += looked; seen >= most {
			break
		}
	}
	return removed
}

// Clear forgets every answer and returns how many there were. The counts of hits and misses stay.
func (c *Cache) Clear() int {
	n := 0
	for i := range c.shards {
		removed, freed := c.shards[i].clear()
		c.bytes.Add(-freed)
		n += removed
	}
	return n
}

// Lifetime is how long an answer may be kept within the limits, 0 for not at all.
func Lifetime(msg *dns.Msg, limits fleet.CachePolicy) time.Duration {
	wire, q, err := pack(msg)
	if err != nil {
		return 0
	}
	a, err := answer.Read(wire, q.Name, q.Type, nil)
	if err != nil {
		return 0
	}
	return a.Lifetime(&limits)
}
