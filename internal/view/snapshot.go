package view

import (
	"cmp"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"dnsfleet/internal/fleet"
)

// A snapshot that is dear to build is used for a while: building takes at most a tenth of the time, and no snapshot is
// older than maxPause.
const (
	pauseFactor = 10
	maxPause    = 500 * time.Millisecond
)

// snapshot is the whole view at one moment. It never changes; ages are added when it is rendered.
type snapshot struct {
	at       time.Time // store's clock
	built    time.Time
	pause    time.Duration // how long it may be used although time passes
	edition  uint64        // changes when anything but ages, the local line and at does
	errs     []fleet.PartError
	loaded   bool
	local    *line // the primary that answers, nil for none
	localSum uint64

	primaries, replicas []*line // by name, then key
	statuses            map[fleet.Status]int

	coverage fleet.Coverage
	totals   fleet.Totals
	encoded  atomic.Pointer[encodedParts] // made when first needed
}

// snapshot returns one that shows all that the View knows, or that is at most maxPause old unless it is forced.
func (v *View) snapshot() *snapshot {
	if s := v.snap.Load(); s != nil && time.Since(s.built) < s.pause && !v.forced.Load() {
		return s
	}
	v.build.Lock()
	defer v.build.Unlock()
	began := time.Now()
	if s := v.snap.Load(); s != nil && began.Sub(s.built) < s.pause && !v.forced.Load() {
		return s // somebody else has built it meanwhile
	}
	v.forced.Store(false)
	s := v.newSnapshot(v.snap.Load())
	s.built = time.Now()
	s.pause = min(pauseFactor*s.built.Sub(began), maxPause)
	v.snap.Store(s)
	return s
}

// newSnapshot renders the fleet as it is now; old is the one before, or nil. v.build is held.
func (v *View) newSnapshot(old *snapshot) *snapshot {
	v.mu.Lock()
	s := &snapshot{at: v.anchor.now(), loaded: v.loaded}
	entries, tokens, policy := slices.Collect(maps.Values(v.entries)), v.tokens, v.policy
	for _, part := range slices.Sorted(maps.Keys(v.errs)) {
		s.errs = append(s.errs, fleet.PartError{Part: part, Error: v.errs[part]})
	}
	v.mu.Unlock()
	s.errs = append(s.errs, fleet.PartError{Part: partQueries, Error: "query log is not available"})

	revoked := map[string]bool{}
	for _, t := range tokens {
		revoked[t.ID] = t.Revoked()
	}
	v.addLocal(s, entries, policy)
	used := map[string]bool{}
	for _, e := range entries {
		used[e.in.TokenID] = true
		if s.local != nil && e.in.ID == s.local.key {
			continue
		}
		s.add(e.render(revoked[e.in.TokenID], policy, s.at))
	}
	v.addNever(s, tokens, used)
	for _, lines := range [][]*line{s.primaries, s.replicas} {
		slices.SortFunc(lines, compareLines)
	}
	v.sum(s)
	s.edition = 1
	if old != nil {
		s.edition = old.edition
		if !old.equal(s) {
			s.edition++
		}
	}
	return s
}

func (s *snapshot) add(l *line) {
	if l.row.Role == fleet.RolePrimary {
		s.primaries = append(s.primaries, l)
	} else {
		s.replicas = append(s.replicas, l)
	}
}

// render returns the line of e at now, the same one as long as nothing but the age differs. View.build is held.
func (e *entry) render(revoked bool, policy string, now time.Time) *line {
	status := e.in.StatusAt(now)
	if l := e.line; l != nil && l.byAge == status && l.revoked == revoked && l.policy == policy {
		return l
	}
	e.line = newLine(fleet.NewRow(e.in, fleet.SourcePush, revoked, policy, now), e.in.LastSeen)
	e.line.report, e.line.byAge, e.line.revoked, e.line.policy = e.in.Report, status, revoked, policy
	return e.line
}

// addLocal adds the answering primary, whose counters are live and whose age is nothing.
func (v *View) addLocal(s *snapshot, entries []*entry, policy string) {
	if v.local == nil {
		return
	}
	in := v.local()
	in.Role, in.LastSeen, in.ExpiresAt = fleet.RolePrimary, s.at, s.at.Add(time.Hour)
	for _, e := range entries {
		if e.in.ID != in.ID {
			continue
		}
		in.FirstSeen, in.Ended = e.in.FirstSeen, e.in.Ended
		if e.in.BootID != in.BootID { // the boot before us: our first report will end it
			in.Ended = e.in.Lifetime()
		}
	}
	row := fleet.NewRow(in, fleet.SourceLocal, false, policy, s.at)
	if !s.loaded { // what earlier boots counted is not known yet
		row.Lifetime = nil
	}
	s.local = newLine(row, s.at)
	s.local.report = in.Report
	s.localSum = s.local.checksum(v.shape)
	s.add(s.local)
}

// addNever adds the tokens that nothing was ever seen of.
func (v *View) addNever(s *snapshot, tokens []fleet.Token, used map[string]bool) {
	never := map[string]*line{}
	for _, t := range tokens {
		if !t.FirstUsedAt.IsZero() || used[t.ID] {
			continue
		}
		row := fleet.NeverRow(t)
		l := v.never[t.ID]
		if l == nil || l.row.Name != row.Name || l.row.Status != row.Status {
			l = newLine(row, time.Time{})
		}
		never[t.ID] = l
		s.add(l)
	}
	v.never = never
}

// sum computes what stands for the whole fleet.
func (v *View) sum(s *snapshot) {
	rows := v.rowBuffer[:0]
	s.statuses = map[fleet.Status]int{}
	for _, lines := range [][]*line{s.primaries, s.replicas} {
		for _, l := range lines {
			rows = append(rows, l.at(s.at))
			s.statuses[l.row.Status]++
		}
	}
	s.coverage, s.totals = fleet.Cover(rows), fleet.Sum(rows)
	clear(rows)
	v.rowBuffer = rows[:0]
}

// equal reports whether both show the same, but for ages and the local line.
func (s *snapshot) equal(t *snapshot) bool {
	other := func(lines []*line, local *line) []*line {
		return slices.DeleteFunc(slices.Clone(lines), func(l *line) bool { return l == local })
	}
	return s.loaded == t.loaded && slices.Equal(s.errs, t.errs) && slices.Equal(s.replicas, t.replicas) &&
		slices.Equal(other(s.primaries, s.local), other(t.primaries, t.local))
}

func compareLines(a, b *line) int {
	return cmp.Or(cmp.Compare(a.row.Name, b.row.Name), cmp.Compare(a.key, b.key))
}
