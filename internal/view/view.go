// Package view keeps the fleet in memory, fed from the store's changes, and renders it for GET /api/instances/stats.
// What the store loses or cannot tell for a while stays visible: rows keep their last known state and age, and the
// answer names the part that is missing.
package view

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/view/render"
)

// Store is what a View reads. Its methods are those of the store's contract.
type Store interface {
	Instances(ctx context.Context, ids ...string) ([]fleet.Instance, error)
	Seen(ctx context.Context, since time.Time) (seen map[string]time.Time, now time.Time, err error)
	Watch(ctx context.Context, hint func(fleet.Hint)) error
	Tokens(ctx context.Context) ([]fleet.Token, error)
	Policy(ctx context.Context) (fleet.PolicyDoc, error)
}

// LocalSource tells the answering primary's own state as it is now: identity, current boot and counters, report without
// slices, recent minute slices. FirstSeen, LastSeen, ExpiresAt and Ended are left to the View. It is called concurrently
// with itself and must not block; what it returns must not change afterwards.
type LocalSource func() fleet.Instance

// Queries tells of queries what reports do not: see the query log's breakdown.
type Queries interface {
	// Hour is the last hour of each instance by its id, as far as it is known; an error says why not all of it is. It waits
	// a second at most. The same map means that nothing has changed.
	Hour(ctx context.Context) (map[string]fleet.QueryBreakdown, error)
}

// Options are what a View is made of.
type Options struct {
	Store Store
	Local LocalSource // nil: nobody answers, the view has no primary
	// Queries is nil where there is none; the view says so in its errors.
	Queries Queries
	Log     *slog.Logger     // nil: nothing is logged
	Clock   func() time.Time // the time to go by until the store has told its own; nil: time.Now
}

// The parts of a view that can be missing on their own.
const (
	partStore  = "store"
	partTokens = "tokens"
	partPolicy = "policy"
)

// View is the fleet as it was last known. All methods may be called concurrently, before, during and after Run; none but
// Run and Reload waits for the store. What shows queries waits for them, a second at most.
type View struct {
	*render.Renderer

	store   Store
	local   LocalSource
	log     *slog.Logger
	pending pending
	loading chan struct{} // holds one value while the store is read: an older answer must not follow a newer one

	mu       sync.Mutex // guards the following
	entries  map[string]*render.Entry
	tokens   []fleet.Token
	policy   string // hash of the current policy, "" for none
	revision int64
	errs     map[string]string
	loaded   bool
	anchor   anchor
	swept    time.Time // store's clock at the last sweep, zero before the first
	changed  chan struct{}
}

// anchor ties the store's clock to the monotonic clock of this process.
type anchor struct {
	store time.Time
	at    time.Time // with a monotonic reading
}

func (a anchor) now() time.Time { return a.store.Add(time.Since(a.at)) }

// New makes a View that is empty until Run has loaded it.
func New(o Options) *View {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	v := &View{
		store: o.Store, local: o.Local, log: o.Log,
		loading: make(chan struct{}, 1),
		entries: map[string]*render.Entry{}, errs: map[string]string{partStore: "not loaded yet"},
		anchor:  anchor{store: o.Clock().Round(0).UTC(), at: time.Now()},
		changed: make(chan struct{}),
	}
	v.pending.signal = make(chan struct{}, 1)
	v.Renderer = render.New(v.state, queriesOf(o.Queries), v.Now)
	return v
}

// queriesTimeout is longer than any Queries takes: it is for one that breaks its promise.
const queriesTimeout = 2 * time.Second

func queriesOf(q Queries) render.Queries {
	if q == nil {
		return func() (map[string]fleet.QueryBreakdown, error) { return nil, errNoQueries }
	}
	return func() (map[string]fleet.QueryBreakdown, error) {
		ctx, cancel := context.WithTimeout(context.Background(), queriesTimeout)
		defer cancel()
		return q.Hour(ctx)
	}
}

var errNoQueries = errors.New("query log is not available")

// state is what is known now.
func (v *View) state() render.State {
	v.mu.Lock()
	s := render.State{
		At: v.anchor.now(), Loaded: v.loaded, Entries: slices.Collect(maps.Values(v.entries)), Tokens: v.tokens, PolicyHash: v.policy,
	}
	for _, part := range slices.Sorted(maps.Keys(v.errs)) {
		s.Errors = append(s.Errors, fleet.PartError{Part: part, Error: v.errs[part]})
	}
	v.mu.Unlock()
	if v.local != nil {
		s.Local = new(v.local())
	}
	return s
}

// Instances are all instances as they were last known, in no order; the answering primary is there as it is now. They are
// shared: nobody may change them.
func (v *View) Instances() []fleet.Instance {
	v.mu.Lock()
	all := make([]fleet.Instance, 0, len(v.entries)+1)
	for _, e := range v.entries {
		all = append(all, e.Instance)
	}
	v.mu.Unlock()
	if v.local == nil {
		return all
	}
	own := v.local()
	return append(slices.DeleteFunc(all, func(in fleet.Instance) bool { return in.ID == own.ID }), own)
}

// Now is the time on the store's clock, as far as it is known.
func (v *View) Now() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.anchor.now()
}

// Changed returns a channel that is closed at the next change of anything that the store tells. What changes only by
// time passing (ages, and statuses by age) and the own counters close nothing.
func (v *View) Changed() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changed
}

// touch records that something changed. v.mu is held.
func (v *View) touch() {
	close(v.changed)
	v.changed = make(chan struct{})
}

// fault records how reading a part went: err, or nil for well.
func (v *View) fault(part string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	before, failing := v.errs[part]
	switch {
	case err != nil && before != err.Error():
		if !failing {
			v.log.Warn("view lost a part", "part", part, "err", err)
		}
		v.errs[part] = err.Error()
		v.touch()
	case err == nil && failing:
		v.log.Info("view has the part again", "part", part)
		delete(v.errs, part)
		v.touch()
	}
}
