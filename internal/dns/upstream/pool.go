// Package upstream asks other resolvers: those of the policy, or of the longest domain of its conditional forwarding
// that fits the question, as the policy's strategy says:
//
//   - failover asks in the policy's order;
//   - fastest asks the one that answered fastest lately, and now and then another to see;
//   - parallel asks the two fastest at once, and takes the first good answer;
//   - balance asks at random, the more often the better an upstream does.
//
// An upstream that fails is asked last for a while, one that fails again and again until a probe finds it back. Whatever
// the strategy, one question costs no more than three queries.
package upstream

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"dnsfleet/internal/dns/upstream/address"
	"dnsfleet/internal/dns/upstream/loop"
	"dnsfleet/internal/fleet"
)

const (
	// Timeout is how long an answer takes at most.
	Timeout = 4500 * time.Millisecond
	// maxTries bounds what one client query may cost upstreams.
	maxTries = 3
)

// Errors of asking.
var (
	// ErrNoAnswer says that no upstream gave a usable answer.
	ErrNoAnswer = errors.New("no usable answer from any upstream")
	// ErrCachedFailure says that the same question failed a moment ago, and that nobody was asked again (RFC 9520).
	ErrCachedFailure = errors.New("the same question failed a moment ago")
	// ErrUnforwardable says that a message is no query which can be forwarded.
	ErrUnforwardable = errors.New("not a query that can be forwarded")
)

// DialFunc opens a connection to host:port, whose host may be a name.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Observer is told of every exchange with an upstream, its TCP retry included, but of no probe. It must not block.
type Observer interface {
	ObserveExchange(address string, d time.Duration, failed bool)
}

// State is how one upstream is. It is a row of GET /upstreams.
type State struct {
	Address   string    `json:"address"`
	Domain    string    `json:"domain,omitempty"` // that it is asked for; "" = all others
	Healthy   bool      `json:"healthy"`
	Failures  int       `json:"failures"`             // in a row
	LatencyMS float64   `json:"latency_ms,omitempty"` // smoothed, failures as slow answers; 0 = not known
	LastError string    `json:"last_error,omitempty"`
	LastOK    time.Time `json:"last_ok,omitzero"`
}

// Options are what a Pool is made of.
type Options struct {
	Dial     DialFunc         // nil = net.Dialer, whose names the system resolves. Datagrams to an address go past it
	Observer Observer         // nil = nobody
	RootCAs  *x509.CertPool   // whom DoT and DoH servers are verified by; nil = the system's
	Now      func() time.Time // nil = time.Now
	// Burst is called after each done of Router.Start by whoever has called it, after several in a row if they came
	// together. It must not block, and may be called by several at once. nil = nothing
	Burst func()
}

// Pool keeps upstreams, their connections and their health over changes of the policy. It is safe for concurrent use.
type Pool struct {
	Options
	loop     *loop.Loop
	attempts sync.WaitGroup
	spawner  atomic.Pointer[spawner] // nil while Run does not run
	waiting  atomic.Int32            // goroutines that wait for Router.Start
	flights  sync.Pool
	era      atomic.Uint64 // counts upstreams that came back, from 1

	mu      sync.Mutex // guards the following
	members map[string]*member
}

// NewPool makes a Pool without upstreams. It starts nothing.
func NewPool(o Options) *Pool {
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	p := &Pool{Options: o, loop: loop.New(loop.Options{Burst: o.Burst}), members: map[string]*member{}}
	p.era.Store(1)
	return p
}

// Use makes the Router of a policy. Upstreams that the policy before had too keep their connections and their health;
// those that it has no longer are closed when the queries under way have ended. Whatever is one of the given host:port
// listeners would be asking ourselves, and is not used. unapplied are the sorted paths of what cannot be used. A domain
// none of whose upstreams can be used is not forwarded to others: they are not to hear of it.
func (p *Pool) Use(policy fleet.Policy, listeners []string) (r *Router, unapplied []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	used := map[string]*member{}
	strategy := policy.UpstreamStrategy
	switch strategy {
	case failover, fastest, parallel, balance:
	case "":
		strategy = failover
	default:
		strategy = failover
		unapplied = append(unapplied, "upstream_strategy")
	}
	form := func(upstreams []fleet.PolicyUpstream, path string) *group {
		g := &group{strategy: strategy, pool: p}
		g.credit.Store(hedgePrice)
		for i, u := range upstreams {
			m := p.member(u, listeners)
			if m == nil {
				unapplied = append(unapplied, fmt.Sprintf("%s[%d]", path, i))
				continue
			}
			used[key(u)] = m
			g.members = append(g.members, m)
		}
		return g
	}
	r = newRouter(p, form(policy.Upstreams, "upstreams"))
	for i, c := range policy.Conditional {
		r.add(c.Suffix(), form(c.Upstreams, fmt.Sprintf("conditional[%d].upstreams", i)))
	}
	for k, m := range p.members {
		if used[k] == nil {
			m.exchanger.Close()
		}
	}
	p.members = used
	slices.Sort(unapplied)
	return r, unapplied
}

// member returns the upstream, and nil if it cannot be used. p.mu is held.
func (p *Pool) member(u fleet.PolicyUpstream, listeners []string) *member {
	if address.Own(u, listeners) {
		return nil
	}
	if m := p.members[key(u)]; m != nil {
		return m
	}
	a, err := address.Parse(u.Address)
	if err != nil || address.Check(u) != nil {
		return nil
	}
	m := newMember(u, a, p.Options, &p.era, p.loop)
	p.members[key(u)] = m // for a policy that names it twice
	return m
}

// spawner calls a function in a goroutine, with a context that ends with Run.
type spawner func(func(context.Context))

func (p *Pool) spawn(f func(context.Context)) {
	if s := p.spawner.Load(); s != nil {
		(*s)(f)
		return
	}
	p.attempts.Go(func() { f(context.Background()) })
}

// Run probes the upstreams that are out and exchanges datagrams for Router.Start, until ctx ends. It fails only if there
// are no files for that. It may be called once.
func (p *Pool) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	p.spawner.Store(new(spawner(func(f func(context.Context)) {
		p.attempts.Go(func() { f(ctx) })
	})))
	defer p.spawner.Store(nil)
	group.Go(func() error { return p.loop.Run(ctx) })
	group.Go(func() error {
		p.probe(ctx)
		return nil
	})
	if err := group.Wait(); err != nil {
		return fmt.Errorf("run upstreams: %w", err)
	}
	return nil
}

// probe probes until ctx ends.
func (p *Pool) probe(ctx context.Context) {
	tick := time.NewTicker(probeTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			probeAll(ctx, p.all(), p.Now())
		}
	}
}

func (p *Pool) all() []*member {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*member, 0, len(p.members))
	for _, m := range p.members {
		all = append(all, m)
	}
	return all
}

// Close closes all connections, after the exchanges under way, which take no longer than 1.5 s, or 4.5 s for those that
// Router.Start began while Run did not run. It is to be called when Run has ended. Routers work on, but keep no
// connections.
func (p *Pool) Close() {
	p.attempts.Wait()
	for _, m := range p.all() {
		m.exchanger.Close()
	}
}
