package replica

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"dnsfleet/internal/syncapi"
)

const (
	firstRetry = time.Second
	maxRetry   = 30 * time.Second
)

// backoff spaces out attempts that fail one after the other. Its zero value is ready.
type backoff struct{ failures int }

// next is how long to wait after one more failure with err: within a second after the first, then twice as long each
// time up to half a minute, each shortened by up to half so that a crowd spreads. A primary that names a longer time
// is obeyed from the second failure on: the first retry of anything comes within a second.
func (b *backoff) next(err error) time.Duration {
	full := min(firstRetry<<min(b.failures, 5), maxRetry)
	delay := full/2 + upTo(full/2)
	var status *syncapi.StatusError
	if b.failures > 0 && errors.As(err, &status) {
		delay = min(max(delay, status.RetryAfter), maxRetry)
	}
	b.failures++
	return delay
}

func (b *backoff) reset() { b.failures = 0 }

// jittered is d, up to a tenth more or less.
func jittered(d time.Duration) time.Duration {
	return d - d/10 + upTo(d/5)
}

// upTo is a random part of d.
func upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d) //nolint:gosec // only spreads
}

// sleep waits for d and reports whether ctx still goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return ctx.Err() == nil
	}
}
