package dns

import (
	"strings"

	"github.com/miekg/dns"

	"dnsfleet/internal/fleet"
)

// Decision is what the rules say of a name; the answer of GET /blocked/check.
type Decision struct {
	Domain  string `json:"domain"`
	Blocked bool   `json:"blocked"`
	Rule    string `json:"rule"` // "" when none matches
	List    string `json:"list"` // "" when the rule is the policy's own
	// Reason is allow, deny, exception, list, rewrite or no_rule: what decided; or paused, when a rule would block if blocking
	// were not paused.
	Reason string `json:"reason"`
}

// Check says whether a name is blocked now, and by which rule.
func (e *Engine) Check(name string) Decision {
	domain := strings.ToLower(strings.TrimSuffix(strings.TrimSpace(name), "."))
	d := Decision{Domain: domain, Reason: "no_rule"}
	st := e.state.Load()
	if st == nil {
		return d
	}
	match := st.rules.Match(domain, dns.TypeA)
	d.Blocked, d.Rule, d.List, d.Reason = match.Blocked, match.Rule(), match.List, string(match.Kind)
	if _, paused := e.PausedUntil(); paused && d.Blocked {
		d.Blocked, d.Reason = false, "paused"
	}
	return d
}

// PolicyHash are the revision and hash of the policy in force; 0 and "" before the first.
func (e *Engine) PolicyHash() (revision int64, hash string) {
	st := e.state.Load()
	if st == nil {
		return 0, ""
	}
	return st.doc.Revision, st.doc.Hash
}

// Blocklist tells how much the rules hold, and how each list is.
func (e *Engine) Blocklist() fleet.BlocklistStats {
	s := fleet.BlocklistStats{Lists: e.lists.Stats()}
	_, s.Paused = e.PausedUntil()
	if st := e.state.Load(); st != nil {
		s.Blocked, s.Allow, s.Deny = st.rules.Blocked(), st.rules.Allowed(), st.rules.Denied()
	}
	return s
}

// Cache counts what is cached, and hits and misses since the start.
func (e *Engine) Cache() fleet.CacheStats {
	s := e.cache.Stats()
	if e.opts.SharedCache != nil {
		l1 := e.opts.SharedCache.Stats()
		s.RedisKeys, s.RedisMaxKeys = l1.Keys, l1.MaxKeys
	}
	return s
}

// Refresh tells what asking ahead has done within a day.
func (e *Engine) Refresh() fleet.RefreshStats { return e.sweeps.Stats(e.opts.Now(), sweepBudget) }

// Upstreams tells how each upstream that is in use is, in the policy's order; never nil.
func (e *Engine) Upstreams() []UpstreamState {
	if st := e.state.Load(); st != nil {
		return st.upstreams.States()
	}
	return []UpstreamState{}
}
