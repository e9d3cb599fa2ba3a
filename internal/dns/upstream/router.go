package upstream

import (
	"context"
	"errors"
	"fmt"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/upstream/failure"
	"dnsfleet/internal/dns/upstream/wire"
)

// Router sends each question to the upstreams that it is meant for. It is what a Pool makes of a policy, immutable and
// safe for concurrent use.
type Router struct {
	pool     *Pool
	fallback *group
	domains  map[string]*group // by suffix in wire form, lower case
	names    []string          // of the domains, in the policy's order
	groups   []*group
	failures *failure.Cache
}

func newRouter(p *Pool, fallback *group) *Router {
	return &Router{pool: p, fallback: fallback, domains: map[string]*group{}, failures: failure.New()}
}

func (r *Router) add(domain string, g *group) {
	packed := make([]byte, 256)
	end, err := dns.PackDomainName(dns.Fqdn(domain), packed, 0, nil, false)
	if err != nil {
		return // no name can be below it
	}
	r.domains[string(packed[:end])] = g
	r.names = append(r.names, domain)
	r.groups = append(r.groups, g)
}

// group returns who is meant for the question: those of the longest domain that it is in.
func (r *Router) group(query []byte) *group {
	g := r.fallback
	if len(r.domains) == 0 {
		return g
	}
	var buf [256]byte
	wire.AppendSuffixes(buf[:0], query, func(suffix []byte) bool {
		found := r.domains[string(suffix)]
		if found != nil {
			g = found
		}
		return found != nil
	})
	return g
}

// Result is an answer and the address, as the policy has it, of who gave it.
type Result struct {
	Msg     *dns.Msg
	Address string
}

// Resolve asks until one upstream gives a usable answer, and takes no longer than Timeout. SERVFAIL is passed on only
// if nobody knows better. Without any answer the error is ErrNoAnswer with the reasons, or ErrCachedFailure.
func (r *Router) Resolve(ctx context.Context, query *dns.Msg) (Result, error) {
	packed, err := query.Pack()
	if err != nil {
		return Result{}, fmt.Errorf("pack question: %w", err)
	}
	a, err := r.exchange(ctx, packed, unpack)
	if err != nil {
		return Result{}, err
	}
	return Result{a.msg, a.member.address}, nil
}

// ExchangeWire is Resolve for messages in wire form. query has one question, recursion desired and nothing else but
// an OPT, such as wire.AppendQuery makes; it is sent as it is but for its id, and must not change before the call
// returns. The answer is the caller's, has the query's id and the question as it was asked or in another case, only
// records that have to do with the question, and no more than the OPT in its additional section. It was read to its
// last record, but the data of most types was not looked into.
func (r *Router) ExchangeWire(ctx context.Context, query []byte) (answer []byte, upstream string, err error) {
	a, err := r.exchange(ctx, query, nil)
	if err != nil {
		return nil, "", err
	}
	return a.answer.Wire, a.member.address, nil
}

func unpack(answer []byte) (*dns.Msg, error) {
	msg := new(dns.Msg)
	return msg, msg.Unpack(answer)
}

func (r *Router) exchange(ctx context.Context, query []byte, read readFunc) (attempt, error) {
	if err := r.refuse(query); err != nil {
		return attempt{}, err
	}
	a, err := r.group(query).ask(ctx, query, read)
	r.remember(ctx, query, a, err)
	return a, err
}

// refuse says why nobody is asked.
func (r *Router) refuse(query []byte) error {
	if _, ok := wire.QuestionEnd(query); !ok || len(query) > wire.UDPSize {
		return ErrUnforwardable
	}
	if r.failures.Has(query, r.pool.Now(), r.pool.era.Load()) {
		return ErrCachedFailure
	}
	return nil
}

// remember remembers failures.
func (r *Router) remember(ctx context.Context, query []byte, a attempt, err error) {
	switch {
	case a.good() && err == nil:
		r.failures.Forget(query)
	case err == nil:
		r.failures.Add(query, r.pool.Now(), 0)
	case !errors.Is(ctx.Err(), context.Canceled):
		r.failures.Add(query, r.pool.Now(), r.pool.era.Load())
	}
}

// States tells how each upstream is, in the policy's order; never nil.
func (r *Router) States() []State {
	states := []State{}
	now := r.pool.Now()
	for _, m := range r.fallback.members {
		states = append(states, m.state(now))
	}
	for i, g := range r.groups {
		for _, m := range g.members {
			s := m.state(now)
			s.Domain = r.names[i]
			states = append(states, s)
		}
	}
	return states
}
