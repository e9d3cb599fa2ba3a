// Package lists keeps the policy's block lists at hand: it fetches them, refuses what is no list, keeps the last good
// copy of each on disk, and compiles them. A list that fails never costs another one, nor its own last good copy.
package lists

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dnsfleet/internal/dns/rules"
	"dnsfleet/internal/fleet"
)

const (
	defaultRefresh = 24 * time.Hour
	minRefresh     = time.Second
	firstRetry     = time.Second
	maxRetry       = 5 * time.Minute
	parallel       = 4 // fetches at once
)

// Options are what a Manager is made of.
type Options struct {
	// Dir is where the last good copies are kept; "" keeps none, so a restart begins with downloads.
	Dir string
	// Client fetches http and https lists. Its Transport's dialer decides how names are resolved. nil = a plain client.
	Client *http.Client
	// Changed is called when a list has other content than before, never under a lock. It may be called from several
	// goroutines at once. nil = nobody.
	Changed func()
	// Log is told of failures and changes. nil = discard.
	Log *slog.Logger
	// Now is the clock. nil = time.Now.
	Now func() time.Time
}

// Manager holds the lists of the policy. It is safe for concurrent use.
type Manager struct {
	Options
	wake chan struct{} // capacity 1: something is due earlier than the scheduler thinks

	mu    sync.Mutex // guards the following; never held during input or output
	items []*item
}

// item is one list. Its fields are guarded by Manager.mu, except those of the source, which never change, and busy.
type item struct {
	source fleet.PolicyList
	busy   chan struct{} // capacity 1: held by whoever fetches

	list     *rules.List // nil before the first good copy
	meta     meta
	err      error // why the last fetch brought no newer copy
	tried    bool  // a fetch has ended, well or not
	failures int
	next     time.Time // when it is due
	queued   bool      // the scheduler has started a fetch
	gone     bool      // no longer in the policy
}

// New makes a Manager without lists. It starts nothing.
func New(o Options) *Manager {
	if o.Client == nil {
		o.Client = &http.Client{}
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Manager{Options: o, wake: make(chan struct{}, 1)}
}

// Apply replaces the lists. What was loaded under the same name and URL stays; of the others the last good copy is
// read from disk, and the source is fetched later by Run. Copies of lists that are gone are removed. It does not call
// Changed: the caller is about to use the result.
func (m *Manager) Apply(sources []fleet.PolicyList) {
	m.mu.Lock()
	before := map[string]*item{}
	for _, it := range m.items {
		before[it.source.Name+"\n"+it.source.URL] = it
	}
	m.mu.Unlock()

	items := make([]*item, 0, len(sources))
	for _, source := range sources {
		key := source.Name + "\n" + source.URL
		if old := before[key]; old != nil && old.source == source {
			items = append(items, old)
			delete(before, key)
			continue
		}
		items = append(items, m.load(source))
	}

	m.mu.Lock()
	for _, it := range before {
		it.gone = true
	}
	m.items = items
	m.mu.Unlock()
	m.removeOrphans(sources)
	m.poke()
}

// load makes an item from the copy on disk.
func (m *Manager) load(source fleet.PolicyList) *item {
	it := &item{source: source, busy: make(chan struct{}, 1)}
	list, kept, err := m.readCopy(source)
	if err != nil {
		m.Log.Warn("last good copy of list not usable", "list", source.Name, "err", err)
	}
	if list == nil {
		return it
	}
	it.list, it.meta = list, kept
	if !isFile(source.URL) { // a file costs nothing to compare, and may have changed meanwhile
		it.next = kept.CheckedAt.Add(interval(source))
	}
	return it
}

// Lists are the compiled lists in the order of the policy; those without any good copy are left out.
func (m *Manager) Lists() []*rules.List {
	m.mu.Lock()
	defer m.mu.Unlock()
	lists := make([]*rules.List, 0, len(m.items))
	for _, it := range m.items {
		if it.list != nil {
			lists = append(lists, it.list)
		}
	}
	return lists
}

// Stats tells how each list is, in the order of the policy; never nil.
func (m *Manager) Stats() []fleet.ListStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	stats := make([]fleet.ListStats, 0, len(m.items))
	for _, it := range m.items {
		s := fleet.ListStats{Name: it.source.Name, UpdatedAt: it.meta.UpdatedAt, CheckedAt: it.meta.CheckedAt}
		if it.list != nil {
			s.Entries, s.Ignored = it.list.Entries, it.list.Ignored
		}
		if it.err != nil {
			s.Error = shorten(it.err.Error())
		}
		stats = append(stats, s)
	}
	return stats
}

// Pending names the lists that have neither a good copy nor a failed fetch yet.
func (m *Manager) Pending() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for _, it := range m.items {
		if it.list == nil && !it.tried {
			names = append(names, it.source.Name)
		}
	}
	return names
}

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
	kept, have := it.meta, it.list != nil
	m.mu.Unlock()

	got, err := m.fetch(ctx, it.source, kept, have)
	if err != nil {
		err = fmt.Errorf("list %s: %w", it.source.Name, err)
	}

	m.mu.Lock()
	it.queued = false
	changed := false
	switch {
	case ctx.Err() != nil && err != nil: // our own end or the caller's, not the source's fault
		it.next = m.Now().Add(firstRetry)
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
	m.mu.Unlock()
	m.poke()
	if changed {
		m.Log.InfoContext(ctx, "list loaded", "list", it.source.Name, "entries", got.list.Entries, "ignored", got.list.Ignored)
	}
	if got.keepErr != nil {
		m.Log.WarnContext(ctx, "list not kept on disk", "list", it.source.Name, "err", got.keepErr)
	}
	if changed {
		m.Changed()
	}
	return err
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

// shorten bounds what a report carries.
func shorten(text string) string {
	const limit = 200
	if len(text) <= limit {
		return text
	}
	cut := limit
	for cut > 0 && text[cut]&0xC0 == 0x80 { // do not cut inside a character
		cut--
	}
	return text[:cut] + "…"
}
