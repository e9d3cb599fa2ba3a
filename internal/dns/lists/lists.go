// Package lists keeps the policy's block lists at hand: it fetches them, refuses what is no list, holds back what is
// suddenly too small, keeps the last good copy of each on disk, and compiles them. A list that fails never costs another
// one, nor its own last good copy.
package lists

import (
	"log/slog"
	"net/http"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dnsfleet/internal/dns/rules"
	"dnsfleet/internal/fleet"
)

// Options are what a Manager is made of.
type Options struct {
	// Dir is where the last good copies are kept; "" keeps none, so a restart begins with downloads.
	Dir string
	// Client fetches http and https lists. Its Transport's dialer decides how names are resolved. Which redirects are
	// followed is decided here. nil = a plain client.
	Client *http.Client
	// Changed is called when lists have other content than before: never twice at once, once for lists that arrive
	// together, and under no lock that other methods take. A fetch ends when it has returned. nil = nobody.
	Changed func()
	// MaxSize bounds a list in bytes, as it is sent and unpacked. 0 = 256 MiB.
	MaxSize int64
	// Log is told of failures and changes. nil = discard.
	Log *slog.Logger
	// Now is the clock. nil = time.Now.
	Now func() time.Time
}

// Manager holds the lists of the policy. It is safe for concurrent use.
type Manager struct {
	Options
	wake chan struct{} // capacity 1: something is due earlier than the scheduler thinks

	mu      sync.Mutex // guards the following; never held during input or output
	items   []*item
	changes int // counts lists that have changed

	announcing sync.Mutex // held while Changed runs; guards the following
	announced  int        // the changes that Changed has seen
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
	client := *o.Client
	client.CheckRedirect = checkRedirect
	o.Client = &client
	if o.Changed == nil {
		o.Changed = func() {}
	}
	if o.MaxSize <= 0 {
		o.MaxSize = defaultMaxSize
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

	items := make([]*item, len(sources))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, source := range sources {
		key := source.Name + "\n" + source.URL
		if old := before[key]; old != nil {
			delete(before, key)
			items[i] = m.adopt(old, source)
			continue
		}
		g.Go(func() error {
			items[i] = m.load(source)
			return nil
		})
	}
	_ = g.Wait() // never an error

	m.mu.Lock()
	for _, it := range before {
		it.gone = true
	}
	m.items = items
	m.mu.Unlock()
	m.removeOrphans(sources)
	m.poke()
}

// adopt is the item of a source that was there before, perhaps with another time between fetches.
func (m *Manager) adopt(old *item, source fleet.PolicyList) *item {
	if old.source == source {
		return old
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old.gone = true
	it := &item{source: source, busy: make(chan struct{}, 1), list: old.list, meta: old.meta, err: old.err, tried: old.tried}
	it.next = it.meta.CheckedAt.Add(interval(source))
	return it
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
	if kept.held() {
		it.err = heldError(list, kept)
	}
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
