package shared

import (
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	firstPause = 500 * time.Millisecond
	longPause  = 30 * time.Second
)

// breaker keeps requests from a server that does not answer. It opens when failures outweigh successes, and lets a single
// request through after a pause, which doubles each time that request fails.
type breaker struct {
	what  string
	limit int
	log   *slog.Logger

	mu      sync.Mutex // guards the following
	score   int        // a failure is worth two successes
	open    bool
	probing bool
	pause   time.Duration
	until   time.Time // of the pause
}

// permit is what allow gives for one request, and what its outcome is told with.
type permit uint8

const (
	denied permit = iota
	usual
	probe
)

func newBreaker(what string, failures int, log *slog.Logger) *breaker {
	return &breaker{what: what, limit: 2 * failures, log: log}
}

// allow says whether a request may be sent. Each that is allowed must be told of with succeeded, failed or cancelled.
func (b *breaker) allow(now time.Time) permit {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.open:
		return usual
	case b.probing || now.Before(b.until):
		return denied
	}
	b.probing = true
	return probe
}

// opened reports whether the breaker is open.
func (b *breaker) opened() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

// pausing reports whether nothing is let through now.
func (b *breaker) pausing(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open && (b.probing || now.Before(b.until))
}

func (b *breaker) succeeded(p permit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case p == probe:
		b.open, b.probing, b.score, b.pause = false, false, 0, 0
		b.log.Info("shared cache is back", "for", b.what)
	case !b.open:
		b.score = max(b.score-1, 0)
	}
}

func (b *breaker) failed(p permit, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case p == probe:
		b.probing = false
		b.rest(min(2*b.pause, longPause), now)
	case b.open: // it was sent before
	default:
		if b.score += 2; b.score >= b.limit {
			b.open = true
			b.rest(firstPause, now)
			b.log.Warn("shared cache does not answer, left alone for now", "for", b.what)
		}
	}
}

// cancelled is for a request whose outcome nobody waited for.
func (b *breaker) cancelled(p permit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p == probe {
		b.probing = false
	}
}

// rest has jitter, so that instances do not come back all at once.
func (b *breaker) rest(pause time.Duration, now time.Time) {
	b.pause = pause
	b.until = now.Add(pause*3/4 + rand.N(pause/2)) //nolint:gosec // nobody gains by guessing it
}
