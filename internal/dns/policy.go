package dns

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"

	"dnsfleet/internal/dns/lists"
	"dnsfleet/internal/dns/local"
	"dnsfleet/internal/dns/ratelimit"
	"dnsfleet/internal/dns/rebinding"
	"dnsfleet/internal/dns/rules"
	"dnsfleet/internal/dns/upstream"
	"dnsfleet/internal/dns/upstream/address"
	"dnsfleet/internal/fleet"
)

// state is everything that a query needs of the policy. It is immutable: each change makes a new one.
type state struct {
	generation uint64 // no two states have the same
	doc        fleet.PolicyDoc
	zone       *local.Zone
	rules      *rules.Set
	blocking   blocking
	guard      *rebinding.Guard
	limiter    *ratelimit.Limiter // nil = no limit
	streams    *ratelimit.Limiter // the same for what is not UDP: whoever forges a client's address takes nothing from it there
	upstreams  *upstream.Router
}

// Apply puts a policy in force, whole and at once, while queries are served; what it no longer says is gone. It does not
// wait for downloads: lists that were loaded before or have a good copy on disk count at once, the rest when they
// arrive. unapplied are the sorted paths of what this release cannot do; the rest is in force all the same.
func (e *Engine) Apply(ctx context.Context, doc fleet.PolicyDoc) (unapplied []string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("apply policy: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	p := doc.Policy
	next := &state{generation: e.generations.Add(1), doc: doc, blocking: newBlocking(p.BlockMode)}
	report := func(path string, indexes []int) {
		for _, i := range indexes {
			unapplied = append(unapplied, fmt.Sprintf("%s[%d]", path, i))
		}
	}

	var unusable []int
	next.zone, unusable = local.New(p.Records, p.Conditional...)
	report("records", unusable)
	next.guard, unusable = rebinding.New(p.Rebinding, p.Conditional...)
	report("rebinding.allow", unusable)

	before := e.state.Load()
	if before != nil && before.doc.Policy.RateLimit.Equal(p.RateLimit) {
		next.limiter, next.streams = before.limiter, before.streams // and what they know of clients
	} else {
		next.limiter, next.streams = ratelimit.New(p.RateLimit, e.opts.Now()), ratelimit.New(p.RateLimit, e.opts.Now())
	}
	own := e.opts.Listen
	if e.server != nil {
		own = e.addrs()
	}
	var unreachable []string
	next.upstreams, unreachable = e.upstreams.Use(p, own)
	unapplied = append(unapplied, unreachable...)

	e.lists.Apply(p.Lists)
	var badAllow, badDeny []int
	next.rules, badAllow, badDeny = e.compile(p)
	report("allow", badAllow)
	report("deny", badDeny)

	e.cache.SetLimits(p.Cache)
	if e.opts.SharedCache != nil {
		e.opts.SharedCache.SetMark(markOf(p))
	}
	e.state.Store(next)
	switch {
	case before == nil:
		e.warm(p)
	case markOf(before.doc.Policy) != markOf(p):
		e.cache.Clear() // other upstreams may know other answers
	}
	slices.Sort(unapplied)
	e.opts.Log.DebugContext(ctx, "engine works by another policy", "revision", doc.Revision, "hash", doc.Hash, "rules", next.rules.String(), "unapplied", len(unapplied))
	debug.FreeOSMemory() // compiling large lists leaves as much behind as it makes
	return unapplied, nil
}

// compile builds the rules from the policy's patterns and the lists as they are now.
func (e *Engine) compile(p fleet.Policy) (set *rules.Set, badAllow, badDeny []int) {
	var b rules.Builder
	for i, pattern := range p.Allow {
		if b.Allow(pattern) != nil {
			badAllow = append(badAllow, i)
		}
	}
	for i, pattern := range p.Deny {
		if b.Deny(pattern) != nil {
			badDeny = append(badDeny, i)
		}
	}
	for _, l := range e.lists.Lists() {
		b.Add(l)
	}
	return b.Build(), badAllow, badDeny
}

// rebuildRules takes changed lists into the state in force.
func (e *Engine) rebuildRules() {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.state.Load()
	if before == nil {
		return
	}
	next := *before
	next.generation = e.generations.Add(1)
	next.rules, _, _ = e.compile(before.doc.Policy)
	e.state.Store(&next)
}

// CheckPolicy says what in a policy no instance of this release could apply: patterns, records, upstream addresses and
// list paths that cannot be read. It is fleet.ErrInvalid and names the path of the first. Upstreams of kinds that are
// only not supported yet pass.
func CheckPolicy(p fleet.Policy) error {
	bad := func(path string, i int, err error) error {
		why := strings.TrimPrefix(err.Error(), fleet.ErrInvalid.Error()+": ")
		return fmt.Errorf("%w: policy: %s[%d]: %s", fleet.ErrInvalid, path, i, why)
	}
	upstreams := func(path string, upstreams []fleet.PolicyUpstream) error {
		for i, u := range upstreams {
			if err := address.Check(u); err != nil && !errors.Is(err, address.ErrUnsupported) {
				return bad(path, i, err)
			}
		}
		return nil
	}
	if err := upstreams("upstreams", p.Upstreams); err != nil {
		return err
	}
	for i, c := range p.Conditional {
		if err := upstreams(fmt.Sprintf("conditional[%d].upstreams", i), c.Upstreams); err != nil {
			return err
		}
	}
	for i, l := range p.Lists {
		if err := lists.Check(l); err != nil {
			return bad("lists", i, err)
		}
	}
	for i, pattern := range p.Allow {
		if err := rules.Check(pattern); err != nil {
			return bad("allow", i, err)
		}
	}
	for i, pattern := range p.Deny {
		if err := rules.Check(pattern); err != nil {
			return bad("deny", i, err)
		}
	}
	for i, r := range p.Records {
		if err := local.Check(r); err != nil {
			return bad("records", i, err)
		}
	}
	return nil
}
