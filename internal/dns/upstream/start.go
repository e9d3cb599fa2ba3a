package upstream

import (
	"bytes"
	"context"
)

// Start is ExchangeWire that does not wait. It copies query and calls done exactly once with what ExchangeWire would
// return, never before it has returned, from a goroutine or thread of the Pool that other queries wait for: done must
// not block.
func (r *Router) Start(query []byte, done func(answer []byte, upstream string, err error)) {
	query = bytes.Clone(query)
	r.pool.attempts.Go(func() {
		done(r.ExchangeWire(context.Background(), query))
	})
}
