// Package shared is the second layer of the answer cache (L1): answers in Redis that all instances of a fleet share.
//
// It must never make an answer slower than it would be without: a Get ends within its deadline whatever Redis does, and
// after a few failures or slow replies none is sent for a while, then a single one to see whether Redis is back. A Put
// never waits. So Redis that is away, slow, hung or full means that there is no second layer, and nothing else.
package shared

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

const (
	defaultDeadline = 3 * time.Millisecond
	// readers is how many round trips for Get are under way at most, each for all that asked meanwhile.
	readers    = 4
	queueReads = 256
	// Failures in a row, or somewhat more of them among successes, that open a breaker.
	readFailures  = 5
	writeFailures = 2
)

// Options are what a Cache is made of. Client is required.
type Options struct {
	// Client is not closed by the Cache. Its own time-outs do not matter to who calls Get or Put, only to how fast a hung
	// connection is given up.
	Client redis.UniversalClient
	// Prefix is of every key; "" = dnsfleet.
	Prefix string
	// Deadline is how long a Get waits; 0 = 3 ms.
	Deadline time.Duration
	// Log is told when Redis goes and comes back. nil = discard.
	Log *slog.Logger
	// Now is the clock of the breakers. nil = time.Now.
	Now func() time.Time
}

// Cache is safe for concurrent use.
type Cache struct {
	opts    Options
	running atomic.Bool
	mark    atomic.Pointer[string]

	requests chan *request
	reads    *breaker
	writes   *breaker
	queue    chan write
	queued   atomic.Int64 // bytes in the queue

	hits, misses, errors, dropped atomic.Uint64
	keys, maxKeys                 atomic.Int64
}

// Stats is how a Cache is; the counts are since the start.
type Stats struct {
	Keys    int    // of this prefix, estimated in the background every half a minute
	MaxKeys int    // how many there would be if Redis used all the memory it may, by the same estimate; 0 = no bound
	Hits    uint64 // answers of use
	Misses  uint64 // answers that there is nothing
	Errors  uint64 // Redis was late, refused or gave what is no answer
	Dropped uint64 // not sent: the queue was full, or Redis is taken for dead
	Open    bool   // Redis is taken for dead, for reading or for writing
}

// New makes a Cache. Until Run runs nothing is found, and what is put waits in the queue.
func New(o Options) *Cache {
	if o.Prefix == "" {
		o.Prefix = "dnsfleet"
	}
	if o.Deadline <= 0 {
		o.Deadline = defaultDeadline
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Cache{
		opts: o, requests: make(chan *request, queueReads), queue: make(chan write, queueWrites),
		reads: newBreaker("read", readFailures, o.Log), writes: newBreaker("write", writeFailures, o.Log),
	}
	c.mark.Store(new(string))
	return c
}

// SetMark says whose answers are shared from now on, such as the fingerprint of the upstreams: instances find only
// answers of their own mark. Those of another end by their TTL.
func (c *Cache) SetMark(mark string) { c.mark.Store(&mark) }

// Run does the work with Redis until ctx ends; then it returns nil within a second or so. It must run once only.
func (c *Cache) Run(ctx context.Context) error {
	c.running.Store(true)
	defer c.running.Store(false)
	g, ctx := errgroup.WithContext(ctx)
	for range readers {
		g.Go(func() error { c.read(ctx); return nil })
	}
	g.Go(func() error { c.write(ctx); return nil })
	g.Go(func() error { c.sample(ctx); return nil })
	return g.Wait()
}

// Stats never waits for Redis.
func (c *Cache) Stats() Stats {
	return Stats{
		Keys: int(c.keys.Load()), MaxKeys: int(c.maxKeys.Load()),
		Hits: c.hits.Load(), Misses: c.misses.Load(), Errors: c.errors.Load(), Dropped: c.dropped.Load(),
		Open: c.reads.opened() || c.writes.opened(),
	}
}
