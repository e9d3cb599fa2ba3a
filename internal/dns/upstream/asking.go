package upstream

import (
	"context"
	"fmt"
	"time"

	"dnsfleet/internal/dns/upstream/exchange"
)

// asking is one query to a group: whom it has asked, and what came of it.
type asking struct {
	group    *group
	query    []byte
	read     readFunc
	order    []ranked
	deadline time.Time
	budget   exchange.Budget
	outcome  outcome

	begun   int          // how many of order were asked
	last    time.Time    // when the last of them was
	running int          // how many of them are waited for
	hedged  bool         // the price is paid of asking another one for slowness
	results chan attempt // has room for all; nil before somebody waits for it
}

// prepare decides whom to ask.
func (k *asking) prepare(g *group, query []byte) error {
	if len(g.members) == 0 {
		return fmt.Errorf("%w: the policy has no upstream for it", ErrNoAnswer)
	}
	k.group, k.query = g, query
	k.order = g.order(g.pool.Now(), k.order[:0])
	k.deadline = time.Now().Add(Timeout)
	k.budget.Set(maxTries)
	if !g.inOrder() {
		g.pay()
	}
	return nil
}

// inOrder reports whether one is asked after the other, and none while another one is waited for.
func (g *group) inOrder() bool { return g.strategy == failover || len(g.members) == 1 }

// run asks whoever was not asked yet, until there is a good answer.
func (k *asking) run(ctx context.Context) (attempt, error) {
	if k.results == nil {
		k.results = make(chan attempt, len(k.order))
	}
	if k.group.inOrder() {
		return k.oneByOne(ctx)
	}
	return k.race(ctx)
}

// toSend is the query to the next upstream.
func (k *asking) toSend(now time.Time) exchange.Query {
	q := exchange.Query{Wire: k.query, Deadline: now.Add(tryTimeout), Budget: &k.budget}
	if k.deadline.Before(q.Deadline) {
		q.Deadline = k.deadline
	}
	return q
}

func (k *asking) try(ctx context.Context, m *member) attempt {
	return m.try(ctx, k.toSend(time.Now()), &k.group.pool.Options, k.read)
}

func (k *asking) oneByOne(ctx context.Context) (attempt, error) {
	o := &k.outcome
	if k.running > 0 {
		k.running--
		a := <-k.results
		if a.good() {
			return a, nil
		}
		o.add(a)
	}
	for ; k.begun < len(k.order) && (k.begun == 0 || ctx.Err() == nil); k.begun++ {
		m := k.order[k.begun].m
		if k.begun > 0 && m == k.order[k.begun-1].m && (o.failed.member != nil || !exchange.Timeout(o.errs[len(o.errs)-1])) {
			break // asking again helps only against a lost packet
		}
		a := k.try(ctx, m)
		if a.good() {
			return a, nil
		}
		o.add(a)
	}
	return o.end()
}

// race asks the first, or in parallel the first two, and the next when one has failed, or takes unusually long and the
// next does well. Who comes too late is listened to all the same, so that it is known how it does.
func (k *asking) race(ctx context.Context) (attempt, error) {
	o := &k.outcome
	begin := func() {
		m := k.order[k.begun].m
		k.begun++
		k.last = time.Now()
		k.running++
		k.group.pool.attempts.Go(func() {
			k.deliver(m, func() attempt { return k.try(context.WithoutCancel(ctx), m) })
		})
	}
	switch {
	case k.begun == 0:
		begin()
		if k.group.strategy == parallel && k.order[1].rest == 0 {
			begin()
		}
	case (k.running == 0 || k.hedged) && k.begun < len(k.order) && ctx.Err() == nil:
		begin()
	}
	slow := time.NewTimer(patience(k.order[k.begun-1].m) - time.Since(k.last))
	defer slow.Stop()
	for k.running > 0 {
		select {
		case a := <-k.results:
			if a.good() {
				return a, nil
			}
			o.add(a)
			k.running--
			if k.begun < len(k.order) {
				begin()
			}
		case <-slow.C:
			if k.hedge() {
				begin()
				slow.Reset(patience(k.order[k.begun-1].m))
			}
		case <-ctx.Done():
			o.errs = append(o.errs, ctx.Err())
			return o.end()
		}
	}
	return o.end()
}

// hedge reports whether another one is to be asked for slowness, and takes the price of that.
func (k *asking) hedge() bool {
	return k.begun < len(k.order) && k.order[k.begun].rest == 0 && k.group.mayHedge()
}

// deliver makes an attempt that is waited for. An answer costs its query at most, not the process.
func (k *asking) deliver(m *member, try func() attempt) {
	a := attempt{member: m}
	defer func() {
		if p := recover(); p != nil {
			a.err = fmt.Errorf("panic: %v", p)
		}
		k.results <- a // has room for all
	}()
	a = try()
}
