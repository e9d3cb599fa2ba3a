package upstream

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/upstream/exchange"
	"dnsfleet/internal/dns/upstream/wire"
)

// group is the upstreams of one policy, or of one domain of it.
type group struct {
	strategy string
	members  []*member
	credit   atomic.Int32 // for hedging
	pool     *Pool
}

// attempt is how one exchange ended.
type attempt struct {
	member *member
	answer wire.Answer
	msg    *dns.Msg // what readFunc read
	err    error
}

// readFunc reads an answer, of which no more is known than that it is whole.
type readFunc func(answer []byte) (*dns.Msg, error)

func (a attempt) good() bool { return a.err == nil && a.answer.RCode != dns.RcodeServerFailure }

// outcome gathers the attempts of one query.
type outcome struct {
	failed attempt // a SERVFAIL, if member is not nil
	errs   []error
}

func (o *outcome) add(a attempt) {
	if a.err != nil {
		o.errs = append(o.errs, fmt.Errorf("%s: %w", a.member.address, a.err))
	} else {
		o.failed = a
	}
}

// end is what nobody knew better than.
func (o *outcome) end() (attempt, error) {
	if o.failed.member != nil {
		return o.failed, nil
	}
	return attempt{}, fmt.Errorf("%w: %w", ErrNoAnswer, errors.Join(o.errs...))
}

// ask asks until one upstream gives a good answer. SERVFAIL is passed on only if nobody knows better.
func (g *group) ask(ctx context.Context, query []byte, read readFunc) (attempt, error) {
	if len(g.members) == 0 {
		return attempt{}, fmt.Errorf("%w: the policy has no upstream for it", ErrNoAnswer)
	}
	var buf [8]ranked
	order := g.order(g.pool.Now(), buf[:0])
	budget, deadline := exchange.NewBudget(maxTries), time.Now().Add(Timeout)
	if given, ok := ctx.Deadline(); ok && given.Before(deadline) {
		deadline = given
	}
	try := func(ctx context.Context, m *member) attempt {
		q := exchange.Query{Wire: query, Deadline: time.Now().Add(tryTimeout), Budget: budget}
		if deadline.Before(q.Deadline) {
			q.Deadline = deadline
		}
		return m.try(ctx, q, &g.pool.Options, read)
	}
	if g.strategy == failover || len(g.members) == 1 {
		return oneByOne(ctx, order, try)
	}
	g.pay()
	return g.race(ctx, order, try)
}

func oneByOne(ctx context.Context, order []ranked, try func(context.Context, *member) attempt) (attempt, error) {
	var o outcome
	for i, r := range order {
		if i > 0 && r.m == order[i-1].m && (o.failed.member != nil || !exchange.Timeout(o.errs[len(o.errs)-1])) {
			break // asking again helps only against a lost packet
		}
		a := try(ctx, r.m)
		if a.good() {
			return a, nil
		}
		o.add(a)
		if ctx.Err() != nil {
			break
		}
	}
	return o.end()
}

// race asks the first, or in parallel the first two, and the next when one has failed, or takes unusually long and the
// next does well. Who comes
// too late is listened to all the same, so that it is known how it does.
func (g *group) race(ctx context.Context, order []ranked, try func(context.Context, *member) attempt) (attempt, error) {
	var o outcome
	results := make(chan attempt, len(order))
	begun, running := 0, 0
	begin := func() {
		m := order[begun].m
		begun++
		running++
		g.pool.attempts.Go(func() {
			a := attempt{member: m}
			defer func() {
				if p := recover(); p != nil { // an answer costs its query at most, not the process
					a.err = fmt.Errorf("panic: %v", p)
				}
				results <- a
			}()
			a = try(context.WithoutCancel(ctx), m)
		})
	}
	begin()
	if g.strategy == parallel && order[1].rest == 0 {
		begin()
	}
	slow := time.NewTimer(patience(order[begun-1].m))
	defer slow.Stop()
	for running > 0 {
		select {
		case a := <-results:
			if a.good() {
				return a, nil
			}
			o.add(a)
			running--
			if begun < len(order) {
				begin()
			}
		case <-slow.C:
			if begun < len(order) && order[begun].rest == 0 && g.mayHedge() {
				begin()
				slow.Reset(patience(order[begun-1].m))
			}
		case <-ctx.Done():
			o.errs = append(o.errs, ctx.Err())
			return o.end()
		}
	}
	return o.end()
}
