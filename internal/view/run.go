package view

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dnsfleet/internal/fleet"
)

// How often the store is read. A hint is a reason to look at once; the sweep finds what hints have lost.
const (
	sweepEvery  = time.Second
	sharedEvery = 2 * time.Second  // tokens and policy
	fullEvery   = 60 * time.Second // all instances
	coalesce    = 50 * time.Millisecond

	firstRetry = 500 * time.Millisecond
	lastRetry  = 5 * time.Second // a person waits for this one
	maxPending = 10_000
)

// Run follows the store until ctx ends, then returns nil. Faults of the store are no reason to end: they are told in
// the view's errors, and the store is asked again, first within a second, later every few.
func (v *View) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	v.pending.add(fleet.Hint{})
	g.Go(func() error { return v.watch(ctx) })
	g.Go(func() error { return v.follow(ctx) })
	return g.Wait()
}

// watch keeps the subscription up.
func (v *View) watch(ctx context.Context) error {
	var pause backoff
	for ctx.Err() == nil {
		began := time.Now()
		if err := v.store.Watch(ctx, v.pending.add); err != nil && ctx.Err() == nil {
			v.log.WarnContext(ctx, "store watch ended", "err", err)
		}
		if time.Since(began) > lastRetry {
			pause = backoff{}
		}
		if !pause.wait(ctx) {
			return nil
		}
		v.pending.add(fleet.Hint{}) // nobody listened meanwhile
	}
	return nil
}

// follow reads what changed.
func (v *View) follow(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	var at schedule
	for {
		work := v.pending.take()
		if at.due(&work, time.Now()) {
			left := v.catchUp(ctx, work)
			at.done(work, left, time.Now())
			v.pending.put(left)
		} else {
			v.pending.put(work)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-v.pending.signal:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(coalesce):
			}
		}
	}
}

// schedule knows when what is read without a hint is to be read again, and holds back after faults.
type schedule struct {
	sweep, shared, full time.Time // when each was last done
	pause               backoff
	resume              time.Time
}

// due adds to w what is to be read by now, and reports whether anything may be read at all.
func (s *schedule) due(w *work, now time.Time) bool {
	if now.Before(s.resume) && !w.reconnected {
		return false
	}
	w.sweep = now.Sub(s.sweep) >= sweepEvery-coalesce
	if now.Sub(s.shared) >= sharedEvery-coalesce {
		w.tokens, w.policy = true, true
	}
	if now.Sub(s.full) >= fullEvery {
		w.all = true
	}
	return w.any()
}

func (s *schedule) done(w, left work, now time.Time) {
	if left.any() {
		s.resume = now.Add(s.pause.next())
	} else {
		s.pause = backoff{}
	}
	if w.sweep {
		s.sweep = now
	}
	if w.tokens && w.policy {
		s.shared = now
	}
	if w.all && !left.all {
		s.full = now
	}
}

// work is what is to be read.
type work struct {
	reconnected         bool // the store has just come back
	all, tokens, policy bool
	sweep               bool
	ids                 map[string]bool
}

func (w work) any() bool { return w.all || w.tokens || w.policy || w.sweep || len(w.ids) > 0 }

// pending collects hints until they are read. It is bounded: past maxPending instances it becomes "all".
type pending struct {
	signal chan struct{} // holds a value when there is something new

	mu   sync.Mutex // guards work
	work work
}

func (p *pending) add(h fleet.Hint) {
	w := work{tokens: h.Tokens, policy: h.Policy}
	switch {
	case h.InstanceID != "":
		w.ids = map[string]bool{h.InstanceID: true}
	case h == fleet.Hint{}:
		w.all, w.tokens, w.policy, w.reconnected = true, true, true, true
	}
	p.put(w)
	select {
	case p.signal <- struct{}{}:
	default:
	}
}

func (p *pending) put(w work) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := &p.work
	q.all, q.tokens, q.policy = q.all || w.all, q.tokens || w.tokens, q.policy || w.policy
	q.reconnected = q.reconnected || w.reconnected
	if q.ids == nil {
		q.ids = map[string]bool{}
	}
	for id := range w.ids {
		q.ids[id] = true
	}
	if len(q.ids) > maxPending {
		q.all, q.ids = true, nil
	}
}

func (p *pending) take() work {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.work
	p.work = work{}
	return w
}

// backoff is a pause that doubles from firstRetry to lastRetry, with jitter.
type backoff struct{ last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, firstRetry), lastRetry)
	return b.last*3/4 + rand.N(b.last/4) //nolint:gosec // jitter is no secret
}

func (b *backoff) wait(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(b.next()):
		return true
	}
}
