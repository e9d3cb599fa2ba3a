package lists

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"golang.org/x/sync/errgroup"

	"dnsfleet/internal/fleet"
)

const (
	defaultRefresh = 24 * time.Hour
	minRefresh     = time.Second
	firstRetry     = time.Second
	maxRetry       = 5 * time.Minute
	parallel       = 4 // fetches at once
)

// Reload compares every list with its source now and returns when all are done. The error joins those of the lists
// that brought no good copy.
func (m *Manager) Reload(ctx context.Context) error {
	m.mu.Lock()
	items := m.items
	m.mu.Unlock()
	errs := make([]error, len(items))
	var g errgroup.Group
	g.SetLimit(parallel)
	for i, it := range items {
		g.Go(func() error {
			errs[i] = m.refresh(ctx, it)
			return nil // one list's failure must not end the others
		})
	}
	_ = g.Wait() // never an error, see above
	return errors.Join(errs...)
}

// Run fetches each list when it is due, until ctx ends. Then it waits for running fetches, which end with ctx.
func (m *Manager) Run(ctx context.Context) error {
	var g errgroup.Group
	slots := make(chan struct{}, parallel)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return g.Wait()
		case <-m.wake:
		case <-timer.C:
		}
		due, next := m.due()
		for _, it := range due {
			g.Go(func() error {
				select {
				case slots <- struct{}{}:
				case <-ctx.Done():
					return nil
				}
				defer func() { <-slots }()
				if err := m.refresh(ctx, it); err != nil && ctx.Err() == nil {
					m.Log.WarnContext(ctx, "list not refreshed", "list", it.source.Name, "err", err)
				}
				return nil
			})
		}
		timer.Reset(next)
	}
}

// due takes the lists whose time has come, and says how long to wait for the next.
func (m *Manager) due() (due []*item, wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.Now()
	wait = time.Hour
	for _, it := range m.items {
		switch {
		case it.queued:
		case it.next.After(now):
			wait = min(wait, it.next.Sub(now))
		default:
			it.queued = true
			due = append(due, it)
		}
	}
	return due, wait
}

func (m *Manager) poke() {
	select {
	case m.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// refresh fetches one list, puts the result in force and plans the next time.
func (m *Manager) refresh(ctx context.Context, it *item) error {
	select {
	case it.busy <- struct{}{}:
		defer func() { <-it.busy }()
	case <-ctx.Done():
		return fmt.Errorf("list %s: %w", it.source.Name, ctx.Err())
	}
	m.mu.Lock()
	kept, old := it.meta, it.list
	m.mu.Unlock()

	got, err := m.fetch(ctx, it.source, kept, old)
	if err == nil && got.meta.held() {
		err = heldError(old, got.meta)
	}
	if err != nil {
		err = fmt.Errorf("list %s: %w", it.source.Name, err)
	}

	m.mu.Lock()
	it.queued = false
	changed, change := false, 0
	switch {
	case ctx.Err() != nil && err != nil: // our own end or the caller's, not the source's fault
		it.next = m.Now().Add(firstRetry)
	case got.meta.held(): // asking again soon would only bring the same
		it.err, it.tried, it.failures = errors.Unwrap(err), true, 0
		it.meta = got.meta
		it.next = m.Now().Add(jitter(interval(it.source)))
		if release := it.meta.HeldSince.Add(holdFor); release.Before(it.next) && release.After(m.Now()) {
			it.next = release
		}
	case err != nil:
		it.err, it.tried = errors.Unwrap(err), true
		it.next = m.Now().Add(backoff(it.failures))
		it.failures++
	default:
		it.err, it.tried, it.failures = got.keepErr, true, 0
		it.meta = got.meta
		it.next = m.Now().Add(jitter(interval(it.source)))
		if got.list != nil {
			it.list, changed = got.list, !it.gone
		}
	}
	if changed {
		m.changes++
		change = m.changes
	}
	m.mu.Unlock()
	m.poke()
	if changed {
		m.Log.InfoContext(ctx, "list loaded", "list", it.source.Name, "entries", got.list.Entries, "ignored", got.list.Ignored)
	}
	if got.keepErr != nil {
		m.Log.WarnContext(ctx, "list not kept on disk", "list", it.source.Name, "err", got.keepErr)
	}
	if changed {
		m.announce(change)
	}
	return err
}

// announce returns when Changed has seen the change with this number.
func (m *Manager) announce(change int) {
	m.announcing.Lock()
	defer m.announcing.Unlock()
	if m.announced >= change {
		return
	}
	m.mu.Lock()
	seen := m.changes
	m.mu.Unlock()
	m.Changed()
	m.announced = seen
	// What a large list leaves behind is a multiple of what it comes to, and nothing else makes so much for hours.
	debug.FreeOSMemory()
}

// interval is how often a list is compared with its source.
func interval(source fleet.PolicyList) time.Duration {
	if source.Refresh <= 0 {
		return defaultRefresh
	}
	return max(time.Duration(source.Refresh), minRefresh)
}

// jitter takes up to a tenth off, so that instances that started together do not stay together.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/10+1) } //nolint:gosec // nobody gains by guessing it

// backoff is the wait before the next try: at most a second at first, doubling up to five minutes.
func backoff(failures int) time.Duration {
	return jitter(min(firstRetry<<min(failures, 16), maxRetry))
}
