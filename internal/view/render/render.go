// Package render turns what is known of a fleet into the view: rows, totals, coverage, pages and their JSON. It does as
// little as it can for what did not change since the last time: rows are merged and encoded once per change.
package render

import (
	"sync"
	"sync/atomic"
	"time"

	"dnsfleet/internal/fleet"
)

// State is what is known of a fleet at one moment. A Renderer changes nothing of it but the entries' own caches.
type State struct {
	At         time.Time // on the store's clock
	Loaded     bool      // whether the store was ever read; until then Local's lifetime is unknown
	Entries    []*Entry  // in any order
	Tokens     []fleet.Token
	PolicyHash string            // "" where there is no policy
	Errors     []fleet.PartError // parts that are missing
	Local      *fleet.Instance   // the primary that answers; nil for none
}

// Entry is one instance of a State. Its cache belongs to one Renderer: an instance that changed is a new Entry.
type Entry struct {
	Instance fleet.Instance // never changes

	line *line // guarded by Renderer.build: the row as last rendered
}

// A snapshot that is dear to build is used for a while: building takes at most a tenth of the time, and no snapshot is
// older than maxPause.
const (
	pauseFactor = 10
	maxPause    = 500 * time.Millisecond
)

// Renderer renders one fleet. It may be used concurrently.
type Renderer struct {
	state   func() State
	queries Queries
	now     func() time.Time
	shape   shape
	salt    string // tells this process's ETags from all others

	forced atomic.Bool              // whether the next snapshot must be a new one
	snap   atomic.Pointer[snapshot] // written under build

	build     sync.Mutex       // guards the following
	never     map[string]*line // by token id
	rowBuffer []fleet.Row

	hourBuild sync.Mutex
	hour      atomic.Pointer[queries] // written under hourBuild
}

// New makes a Renderer of what state and queries tell, with ages at what now tells; state and now are on the store's clock.
// Only what shows queries waits for them.
func New(state func() State, queries Queries, now func() time.Time) *Renderer {
	return &Renderer{state: state, queries: queries, now: now, shape: rowShape(), salt: fleet.RandomID(), never: map[string]*line{}}
}

// Refresh makes the next call show all that the state tells. Without it a large fleet may be shown as it was up to half
// a second ago.
func (r *Renderer) Refresh() { r.forced.Store(true) }

// snapshot returns one that shows all that the state tells, or that is at most maxPause old unless it is forced.
func (r *Renderer) snapshot() *snapshot {
	if s := r.snap.Load(); s != nil && time.Since(s.built) < s.pause && !r.forced.Load() {
		return s
	}
	r.build.Lock()
	defer r.build.Unlock()
	began := time.Now()
	if s := r.snap.Load(); s != nil && began.Sub(s.built) < s.pause && !r.forced.Load() {
		return s // somebody else has built it meanwhile
	}
	r.forced.Store(false)
	s := r.newSnapshot(r.state(), r.snap.Load())
	s.built = time.Now()
	s.pause = min(pauseFactor*s.built.Sub(began), maxPause)
	r.snap.Store(s)
	return s
}
