package upstream

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"
)

// Strategies of fleet.Policy.
const (
	failover = "failover"
	fastest  = "fastest"
	parallel = "parallel"
	balance  = "balance"
)

const (
	// explore is how often fastest asks another upstream first, to learn whether it has become the fastest.
	explore = 0.03
	// An upstream that is slower than hedgeFactor times its usual is not waited for alone.
	hedgeFactor = 4
	minHedge    = 50 * time.Millisecond
	maxHedge    = 750 * time.Millisecond
	// hedgePrice is how many queries pay for one that is asked twice for slowness.
	hedgePrice  = 10
	hedgeCredit = 100
)

// ranked is a member and where it stands: the lower, the earlier it is asked.
type ranked struct {
	m    *member
	rest int64
	rank float64
}

// order lists whom to ask, at most maxTries of them: those that do well as the strategy says, then those that rest, the
// one that rests least first. A single upstream is listed twice, since a packet may be lost.
func (g *group) order(now time.Time, buf []ranked) []ranked {
	for i, m := range g.members {
		r := ranked{m: m, rest: m.rests(now), rank: float64(i)}
		switch g.strategy {
		case fastest, parallel:
			r.rank = load(&m.latency)
		case balance:
			health := 1 - min(load(&m.faults), 0.99)
			r.rank = rand.ExpFloat64() / (health * health)
		}
		buf = append(buf, r)
	}
	if len(buf) == 1 {
		return append(buf, buf[0])
	}
	slices.SortStableFunc(buf, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.rest, b.rest), cmp.Compare(a.rank, b.rank))
	})
	if g.strategy == fastest && rand.Float64() < explore { //nolint:gosec // spreads load, guards nothing
		well := slices.IndexFunc(buf, func(r ranked) bool { return r.rest != 0 })
		if well < 0 {
			well = len(buf)
		}
		if well > 1 {
			at := 1 + rand.IntN(well-1) //nolint:gosec // as above
			other := buf[at]
			copy(buf[1:], buf[:at])
			buf[0] = other
		}
	}
	return buf[:min(len(buf), maxTries)]
}

// patience is how long a member is waited for before another one is asked as well.
func patience(m *member) time.Duration {
	usual := time.Duration(load(&m.latency) * float64(time.Millisecond))
	return min(max(hedgeFactor*usual, minHedge), maxHedge)
}

// mayHedge takes the price of asking twice, if enough queries have paid for it.
func (g *group) mayHedge() bool {
	for {
		credit := g.credit.Load()
		if credit < hedgePrice {
			return false
		}
		if g.credit.CompareAndSwap(credit, credit-hedgePrice) {
			return true
		}
	}
}

func (g *group) pay() {
	if g.credit.Load() < hedgeCredit {
		g.credit.Add(1)
	}
}
