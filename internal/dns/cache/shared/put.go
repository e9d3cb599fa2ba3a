package shared

import (
	"context"
	"time"

	"dnsfleet/internal/dns/cache"
)

const (
	queueWrites = 1024
	queueBytes  = 4 << 20
	// writeTimeout is how long Redis is given for a batch.
	writeTimeout = time.Second
)

// write is a Put on its way.
type write struct {
	key   string
	value []byte
	ttl   time.Duration
}

func (w *write) size() int64 { return int64(len(w.key) + len(w.value)) }

// Put shares an answer for ttl, best as cache.Entry's AppendAnswer and TTL give it. It does not keep or change the bytes of q and
// answer, and never waits: what the queue has no room for is dropped. Failures, and what lives less than a second, are not shared.
func (c *Cache) Put(q cache.Question, answer []byte, ttl time.Duration) {
	if c.writes.pausing(c.opts.Now()) {
		c.dropped.Add(1)
		return
	}
	key, ok := c.key(q)
	if !ok {
		return
	}
	ttl = min(ttl, maxTTL)
	value, ok := encode(q, answer, ttl)
	if !ok {
		return
	}
	w := write{key: key, value: value, ttl: ttl}
	if c.queued.Add(w.size()) > queueBytes {
		c.queued.Add(-w.size())
		c.dropped.Add(1)
		return
	}
	select {
	case c.queue <- w:
	default:
		c.queued.Add(-w.size())
		c.dropped.Add(1)
	}
}

// write sends what was put until ctx ends. What is in the queue then is lost, as any other instance may put it too.
func (c *Cache) write(ctx context.Context) {
	batch := make([]write, 0, maxBatch)
	for {
		batch = batch[:0]
		select {
		case <-ctx.Done():
			return
		case w := <-c.queue:
			batch = append(batch, w)
		}
		for len(batch) < maxBatch {
			select {
			case w := <-c.queue:
				batch = append(batch, w)
				continue
			default:
			}
			break
		}
		c.store(ctx, batch)
		for i := range batch {
			c.queued.Add(-batch[i].size())
		}
		clear(batch)
	}
}

func (c *Cache) store(ctx context.Context, batch []write) {
	p := c.writes.allow(c.opts.Now())
	if p == denied {
		c.dropped.Add(uint64(len(batch)))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	pipe := c.opts.Client.Pipeline()
	for _, w := range batch {
		pipe.Set(ctx, w.key, w.value, w.ttl)
	}
	commands, err := pipe.Exec(ctx)
	if err == nil {
		c.writes.succeeded(p)
		return
	}
	c.writes.failed(p, c.opts.Now())
	for _, command := range commands {
		if command.Err() != nil {
			c.errors.Add(1)
		}
	}
}
