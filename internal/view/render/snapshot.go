package render

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"dnsfleet/internal/fleet"
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

// newSnapshot renders the fleet as it is now; old is the one before, or nil. r.build is held.
func (r *Renderer) newSnapshot(state State, old *snapshot) *snapshot {
	s := &snapshot{at: state.At, loaded: state.Loaded, errs: state.Errors}
	revoked := map[string]bool{}
	for _, t := range state.Tokens {
		revoked[t.ID] = t.Revoked()
	}
	r.addLocal(s, state)
	used := map[string]bool{}
	for _, e := range state.Entries {
		used[e.Instance.TokenID] = true
		if s.local != nil && e.Instance.ID == s.local.key {
			continue
		}
		s.add(e.render(revoked[e.Instance.TokenID], state.PolicyHash, s.at))
	}
	r.addNever(s, state.Tokens, used)
	for _, lines := range [][]*line{s.primaries, s.replicas} {
		slices.SortFunc(lines, compareLines)
	}
	r.sum(s)
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

// render returns the line of e at now, the same one as long as nothing but the age differs. Renderer.build is held.
func (e *Entry) render(revoked bool, policy string, now time.Time) *line {
	status := e.Instance.StatusAt(now)
	if l := e.line; l != nil && l.byAge == status && l.revoked == revoked && l.policy == policy {
		return l
	}
	e.line = newLine(fleet.NewRow(e.Instance, fleet.SourcePush, revoked, policy, now), e.Instance.LastSeen)
	e.line.byAge, e.line.revoked, e.line.policy = status, revoked, policy
	if status != fleet.StatusOffline {
		e.line.report = e.Instance.Report
	}
	return e.line
}

// addLocal adds the answering primary, whose counters are live and whose age is nothing.
func (r *Renderer) addLocal(s *snapshot, state State) {
	if state.Local == nil {
		return
	}
	in := *state.Local
	in.Role, in.LastSeen, in.ExpiresAt = fleet.RolePrimary, s.at, s.at.Add(time.Hour)
	for _, e := range state.Entries {
		if e.Instance.ID != in.ID {
			continue
		}
		in.FirstSeen, in.Ended = e.Instance.FirstSeen, e.Instance.Ended
		if e.Instance.BootID != in.BootID { // the boot before us: our first report will end it
			in.Ended = e.Instance.Lifetime()
		}
	}
	row := fleet.NewRow(in, fleet.SourceLocal, false, state.PolicyHash, s.at)
	if !s.loaded { // what earlier boots counted is not known yet
		row.Lifetime = nil
	}
	s.local = newLine(row, s.at)
	s.local.report = in.Report
	s.localSum = s.local.checksum(r.shape)
	s.add(s.local)
}

// addNever adds the tokens that nothing was ever seen of.
func (r *Renderer) addNever(s *snapshot, tokens []fleet.Token, used map[string]bool) {
	never := map[string]*line{}
	for _, t := range tokens {
		if !t.FirstUsedAt.IsZero() || used[t.ID] {
			continue
		}
		row := fleet.NeverRow(t)
		l := r.never[t.ID]
		if l == nil || l.row.Name != row.Name || l.row.Status != row.Status {
			l = newLine(row, time.Time{})
		}
		never[t.ID] = l
		s.add(l)
	}
	r.never = never
}

// sum computes what stands for the whole fleet.
func (r *Renderer) sum(s *snapshot) {
	rows := r.rowBuffer[:0]
	s.statuses = map[fleet.Status]int{}
	for _, lines := range [][]*line{s.primaries, s.replicas} {
		for _, l := range lines {
			rows = append(rows, l.at(s.at, nil))
			s.statuses[l.row.Status]++
		}
	}
	s.coverage, s.totals = fleet.Cover(rows), fleet.Sum(rows)
	clear(rows)
	r.rowBuffer = rows[:0]
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
