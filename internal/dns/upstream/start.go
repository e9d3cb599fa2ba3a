package upstream

import (
	"context"
	"fmt"
	"time"

	"dnsfleet/internal/dns/upstream/exchange"
	"dnsfleet/internal/dns/upstream/wire"
)

// maxWaiting bounds the queries of Start that a goroutine waits for.
const maxWaiting = 4096

// Start is ExchangeWire that does not wait. It copies query, and calls done exactly once with what ExchangeWire would
// return, or with ErrBusy if too many wait already. done is called by another goroutine or thread, at any time, even
// before Start has returned; others wait for it, so it must not block. While Pool.Run runs, most queries over UDP take
// neither a goroutine nor a timer; when its ctx ends, those under way end with an error.
func (r *Router) Start(query []byte, done func(answer []byte, upstream string, err error)) {
	f := r.pool.flight()
	f.router, f.done = r, done
	f.own = append(f.own[:0], query...)
	if err := f.begin(); err != nil {
		r.pool.spawn(func(context.Context) { f.tell(attempt{}, err) })
	}
}

// flight is a query of Start. It belongs to the thread of the loop that waits for its first answer until that hands it
// over to a goroutine.
type flight struct {
	asking
	router *Router
	done   func(answer []byte, upstream string, err error)
	own    []byte // the query
	wire   exchange.Flight
	sent   exchange.Query // to the first upstream
	sentAt time.Time
	edns   bool // it was sent with EDNS
}

func (p *Pool) flight() *flight {
	if f, ok := p.flights.Get().(*flight); ok {
		return f
	}
	return new(flight)
}

// begin asks the first upstream. If the loop has it, f is no longer ours.
func (f *flight) begin() error {
	if err := f.router.refuse(f.own); err != nil {
		return err
	}
	g := f.router.group(f.own)
	if err := f.prepare(g, f.own); err != nil {
		return err
	}
	first := f.order[0]
	if first.m.udp != nil && first.rest == 0 && (g.strategy != parallel || g.inOrder()) {
		now := time.Now()
		f.begun, f.last, f.sentAt = 1, now, now
		var slow time.Time
		if !g.inOrder() {
			slow = now.Add(patience(first.m))
		}
		f.sent, f.edns = first.m.withEDNS(f.toSend(now), &g.pool.Options)
		if first.m.udp.Start(&f.wire, f.sent, slow, f) {
			return nil
		}
		f.begun = 0
	}
	if !f.handOver() {
		return exchange.ErrBusy
	}
	return nil
}

// handOver lets a goroutine do the rest. It is false if too many do that already.
func (f *flight) handOver() bool {
	p := f.router.pool
	if p.waiting.Add(1) > maxWaiting {
		p.waiting.Add(-1)
		return false
	}
	p.spawn(func(ctx context.Context) {
		defer p.waiting.Add(-1)
		a, err := f.finish(ctx)
		f.router.remember(ctx, f.own, a, err)
		f.tell(a, err)
	})
	return true
}

// finish is run, whose panic costs no more than this query.
func (f *flight) finish(ctx context.Context) (a attempt, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: panic: %v", ErrNoAnswer, p)
		}
	}()
	return f.run(ctx)
}

// tell is the end of a flight in a goroutine.
func (f *flight) tell(a attempt, err error) {
	if err != nil {
		f.done(nil, "", err)
	} else {
		f.done(a.answer.Wire, a.member.address, nil)
	}
	if burst := f.router.pool.Burst; burst != nil {
		burst()
	}
}

// Slow see exchange.Waiter.
func (f *flight) Slow() {
	if !f.hedge() {
		return
	}
	f.hedged, f.running, f.results = true, 1, make(chan attempt, len(f.order))
	if !f.handOver() {
		f.hedged, f.running, f.results = false, 0, nil
	}
}

// Answered see exchange.Waiter.
func (f *flight) Answered(answer wire.Answer, err error) {
	m := f.order[0].m
	if !exchange.Settled(answer, err) || err == nil && f.edns && !understood(answer) {
		f.goOn(m, answer, err)
		return
	}
	a := m.judge(context.Background(), f.sentAt, answer, err, &f.group.pool.Options, nil)
	switch {
	case f.results != nil:
		f.results <- a // has room for all
	case a.good():
		f.land(a)
	default:
		f.outcome.add(a)
		if !f.handOver() {
			f.giveUp(m)
		}
	}
}

// goOn lets a goroutine make what a datagram brought the outcome of an exchange.
func (f *flight) goOn(m *member, answer wire.Answer, err error) {
	if f.results == nil {
		f.running, f.results = 1, make(chan attempt, len(f.order))
		if !f.handOver() {
			f.giveUp(m)
			return
		}
	}
	o := &f.group.pool.Options
	f.group.pool.spawn(func(ctx context.Context) {
		f.deliver(m, func() attempt {
			answer, err := m.udp.Finish(ctx, f.sent, answer, err)
			answer, err = m.withoutEDNS(ctx, f.sent, o, f.edns, answer, err)
			return m.judge(ctx, f.sentAt, answer, err, o, nil)
		})
	})
}

// giveUp ends a flight that no goroutine can take.
func (f *flight) giveUp(m *member) {
	f.outcome.add(attempt{member: m, err: exchange.ErrBusy})
	a, err := f.outcome.end()
	f.router.remember(context.Background(), f.own, a, err)
	f.tell(a, err)
}

// land is the end of a flight that nobody else knows of.
func (f *flight) land(a attempt) {
	r, done := f.router, f.done
	r.remember(context.Background(), f.own, a, nil)
	f.router, f.done, f.begun = nil, nil, 0
	r.pool.flights.Put(f)
	done(a.answer.Wire, a.member.address, nil)
}
