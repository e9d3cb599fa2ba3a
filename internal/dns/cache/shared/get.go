package shared

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"dnsfleet/internal/dns/cache"
)

const (
	maxBatch = 64
	// exchangeTimeout is how long a connection is given for a reply. It is longer than any Get waits: a reply that is late
	// now and then is no reason to connect anew.
	exchangeTimeout = 500 * time.Millisecond
)

// request is a Get on its way.
type request struct {
	key       string
	abandoned atomic.Bool
	done      chan reply // has room for the one
}

type reply struct {
	value []byte // nil = there is none
	ttl   time.Duration
	err   error
}

// Get finds an answer that some instance has put: a whole message as cache.Entry's AppendAnswer makes it, with its TTLs as
// of now, and how long it lives on. The bytes are the caller's. ok is false for anything else, at the latest when the
// deadline is over or ctx ends.
func (c *Cache) Get(ctx context.Context, q cache.Question) (answer []byte, ttl time.Duration, ok bool) {
	if !c.running.Load() {
		return nil, 0, false
	}
	p := c.reads.allow(c.opts.Now())
	if p == denied {
		c.dropped.Add(1)
		return nil, 0, false
	}
	key, ok := c.key(q)
	if !ok {
		c.reads.cancelled(p)
		return nil, 0, false
	}
	r := &request{key: key, done: make(chan reply, 1)}
	select {
	case c.requests <- r:
	default:
		c.dropped.Add(1)
		c.reads.failed(p, c.opts.Now())
		return nil, 0, false
	}
	deadline := time.NewTimer(c.opts.Deadline)
	defer deadline.Stop()
	select {
	case got := <-r.done:
		return c.judge(q, p, got)
	case <-deadline.C:
		c.errors.Add(1)
		c.reads.failed(p, c.opts.Now())
	case <-ctx.Done():
		c.reads.cancelled(p)
	}
	r.abandoned.Store(true)
	return nil, 0, false
}

func (c *Cache) judge(q cache.Question, p permit, got reply) (answer []byte, ttl time.Duration, ok bool) {
	if got.err != nil && !foreign(got.err) {
		c.errors.Add(1)
		c.reads.failed(p, c.opts.Now())
		return nil, 0, false
	}
	c.reads.succeeded(p)
	if got.value == nil && got.err == nil {
		c.misses.Add(1)
		return nil, 0, false
	}
	answer, ok = decode(q, got.value, got.ttl)
	if !ok {
		c.errors.Add(1)
		return nil, 0, false
	}
	c.hits.Add(1)
	return answer, got.ttl, true
}

// foreign reports whether an error says that the key is another program's, which tells nothing of the server.
func foreign(err error) bool {
	var said redis.Error
	return errors.As(err, &said) && strings.HasPrefix(said.Error(), "WRONGTYPE")
}

// read sends requests until ctx ends, as many at once as there are.
func (c *Cache) read(ctx context.Context) {
	batch := make([]*request, 0, maxBatch)
	for {
		batch = batch[:0]
		select {
		case <-ctx.Done():
			return
		case r := <-c.requests:
			batch = append(batch, r)
		}
		for len(batch) < maxBatch {
			select {
			case r := <-c.requests:
				batch = append(batch, r)
				continue
			default:
			}
			break
		}
		c.exchange(ctx, batch)
	}
}

// exchange asks for value and TTL of each in one round trip.
func (c *Cache) exchange(ctx context.Context, batch []*request) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	pipe := c.opts.Client.Pipeline()
	values, ttls := make([]*redis.StringCmd, len(batch)), make([]*redis.DurationCmd, len(batch))
	wanted := false
	for i, r := range batch {
		if r.abandoned.Load() {
			continue
		}
		wanted = true
		values[i], ttls[i] = pipe.Get(ctx, r.key), pipe.PTTL(ctx, r.key)
	}
	if !wanted {
		return
	}
	_, _ = pipe.Exec(ctx) // each command knows its own error
	for i, r := range batch {
		if values[i] != nil {
			r.done <- replyOf(values[i], ttls[i])
		}
	}
}

func replyOf(value *redis.StringCmd, ttl *redis.DurationCmd) reply {
	b, err := value.Bytes()
	switch {
	case errors.Is(err, redis.Nil):
		return reply{}
	case err != nil:
		return reply{err: err}
	case ttl.Err() != nil:
		return reply{err: ttl.Err()}
	case ttl.Val() == -2: // it ended between the two
		return reply{}
	}
	if b == nil {
		b = []byte{} // somebody's empty value
	}
	return reply{value: b, ttl: ttl.Val()}
}
