// Package upstream asks other resolvers: over UDP and TCP, in the policy's order, the ones that failed last.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/fleet"
)

const (
	tryTimeout = 1500 * time.Millisecond
	// Timeout is how long Resolve takes at most.
	Timeout = 4500 * time.Millisecond
	// maxTries bounds what one client query may cost upstreams.
	maxTries = 3
	// A failed upstream is tried last for firstRest, doubling with each further failure up to maxRest.
	firstRest = 2 * time.Second
	maxRest   = 30 * time.Second
)

// ErrNoAnswer says that no upstream gave a usable answer.
var ErrNoAnswer = errors.New("no usable answer from any upstream")

// Observer is told of every exchange with an upstream, its TCP retry included. It must not block.
type Observer interface {
	ObserveExchange(address string, d time.Duration, failed bool)
}

// Result is an answer and the address, as the policy has it, of who gave it.
type Result struct {
	Msg     *dns.Msg
	Address string
}

// State is how one upstream is. It is a row of GET /upstreams.
type State struct {
	Address   string    `json:"address"`
	Healthy   bool      `json:"healthy"`
	Failures  int       `json:"failures"` // in a row
	LastError string    `json:"last_error,omitempty"`
	LastOK    time.Time `json:"last_ok,omitzero"`
}

// Options are what a Group is made of.
type Options struct {
	Dial     DialFunc         // nil = net.Dialer, whose names the system resolves
	Observer Observer         // nil = nobody
	Now      func() time.Time // nil = time.Now
}

// Group is the upstreams of one policy. It is safe for concurrent use.
type Group struct {
	Options
	members []*member
}

type member struct {
	address   string
	transport transport

	mu        sync.Mutex // guards the following
	failures  int
	restUntil time.Time
	lastErr   error
	lastOK    time.Time
}

// New makes a Group of those upstreams that this release can use; unusable are the indexes of the rest.
func New(upstreams []fleet.PolicyUpstream, o Options) (g *Group, unusable []int) {
	if o.Dial == nil {
		o.Dial = dialPlain
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	g = &Group{Options: o}
	for i, u := range upstreams {
		e, err := parse(u.Address)
		if err != nil || Check(u) != nil {
			unusable = append(unusable, i)
			continue
		}
		g.members = append(g.members, &member{address: u.Address, transport: newPlain(e, u.Bootstrap, o.Dial)})
	}
	return g, unusable
}

// Resolve asks until one upstream gives a usable answer, and takes no longer than Timeout. SERVFAIL is passed on only
// if nobody knows better. Without any answer the error is ErrNoAnswer with the reasons.
func (g *Group) Resolve(ctx context.Context, query *dns.Msg) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	var failed Result
	var errs []error
	var last *member
	for _, m := range g.order() {
		if m == last && (failed.Msg != nil || !isTimeout(errs[len(errs)-1])) {
			break // asking again helps only against a lost packet
		}
		last = m
		reply, err := g.try(ctx, m, query)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", m.address, err))
		case reply.Rcode == dns.RcodeServerFailure:
			failed = Result{reply, m.address}
		default:
			return Result{reply, m.address}, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	if failed.Msg != nil {
		return failed, nil
	}
	if len(errs) == 0 {
		errs = append(errs, errors.New("the policy has no upstream"))
	}
	return Result{}, fmt.Errorf("%w: %w", ErrNoAnswer, errors.Join(errs...))
}

func isTimeout(err error) bool {
	var netErr net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &netErr) && netErr.Timeout()
}

// order is whom to ask: the healthy in the policy's order, then those that rest, the one that rests least first. A
// single upstream is asked twice, since UDP may lose a packet.
func (g *Group) order() []*member {
	now := g.Now()
	var resting []*member
	order := make([]*member, 0, len(g.members)+1)
	rest := map[*member]time.Time{}
	for _, m := range g.members {
		m.mu.Lock()
		until := m.restUntil
		m.mu.Unlock()
		if now.Before(until) {
			rest[m] = until
			resting = append(resting, m)
			continue
		}
		order = append(order, m)
	}
	slices.SortStableFunc(resting, func(a, b *member) int { return rest[a].Compare(rest[b]) })
	order = append(order, resting...)
	if len(order) == 1 {
		order = append(order, order[0])
	}
	return order[:min(len(order), maxTries)]
}

// try makes one exchange. An answer that says nothing about the question (REFUSED, FORMERR, NOTIMP) is an error.
func (g *Group) try(ctx context.Context, m *member, query *dns.Msg) (*dns.Msg, error) {
	tryCtx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	start := time.Now()
	reply, err := m.transport.Exchange(tryCtx, query)
	if err == nil && !usable(reply.Rcode) {
		err = fmt.Errorf("answers %s", dns.RcodeToString[reply.Rcode])
	}
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return nil, err // we stopped: no fault of the upstream
	}
	if g.Observer != nil {
		g.Observer.ObserveExchange(m.address, time.Since(start), err != nil || reply.Rcode == dns.RcodeServerFailure)
	}
	m.note(err, g.Now())
	return reply, err
}

// usable reports whether an answer with the rcode says something about the question, not only about the server.
func usable(rcode int) bool {
	switch rcode {
	case dns.RcodeSuccess, dns.RcodeNameError, dns.RcodeServerFailure, dns.RcodeYXDomain:
		return true
	}
	return false
}

func (m *member) note(err error, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		m.failures, m.restUntil, m.lastErr, m.lastOK = 0, time.Time{}, nil, now
		return
	}
	m.restUntil = now.Add(min(firstRest<<min(m.failures, 8), maxRest))
	m.failures++
	m.lastErr = err
}

// States tells how each upstream is, in the policy's order; never nil.
func (g *Group) States() []State {
	now := g.Now()
	states := make([]State, 0, len(g.members))
	for _, m := range g.members {
		m.mu.Lock()
		s := State{Address: m.address, Healthy: !now.Before(m.restUntil), Failures: m.failures, LastOK: m.lastOK}
		if m.lastErr != nil {
			s.LastError = m.lastErr.Error()
		}
		m.mu.Unlock()
		states = append(states, s)
	}
	return states
}
