package dns

import (
	"context"
	"time"

	"dnsfleet/internal/dns/cache"
)

const (
	// sweepEvery is how often the cache is swept.
	sweepEvery = 15 * time.Second
	// sweepBudget bounds what one sweep asks upstreams for.
	sweepBudget = 200
	// sweepPace spreads a sweep's questions.
	sweepPace = 5 * time.Millisecond
)

// sweepCache asks for popular answers anew right before they expire, so that hardly anybody waits for them, and drops those
// that are of no use any more.
func (e *Engine) sweepCache(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			e.sweep(ctx)
		}
	}
}

func (e *Engine) sweep(ctx context.Context) {
	now := e.opts.Now()
	st := e.state.Load()
	if st == nil {
		return
	}
	removed := e.cache.Sweep(now)
	popular := e.cache.Popular(now, sweepEvery+sweepEvery/2, sweepBudget)
	asked := 0
	pace := time.NewTicker(sweepPace)
	defer pace.Stop()
	for _, q := range popular {
		if !e.wanted(st, q) {
			continue
		}
		e.refresh(st, q, nobody{}) //nolint:contextcheck // a flight ends by its own time-outs
		asked++
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
	}
	e.sweeps.Add(now, asked, removed)
}

// wanted reports whether a name would still be asked for: not what the policy answers itself now.
func (e *Engine) wanted(st *state, q cache.Question) bool {
	return !st.zone.Covers(q.Name) && !st.rules.MatchWire(q.Name, q.Type).Blocked
}

// nobody waits for a flight that is only to bring the cache up to date.
type nobody struct{}

// Land see waiter.
func (nobody) Land(*flown) {}
