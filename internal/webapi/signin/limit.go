package signin

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How often a password may be tried. A prefix that was right once starts anew; the bound on all of them together keeps
// the hashing from taking the machine.
const (
	prefixBurst, prefixEvery = 10, 6 * time.Second
	globalBurst, globalEvery = 60, 500 * time.Millisecond
	maxPrefixes              = 4096
)

// limiter bounds the attempts of each network and of all together.
type limiter struct {
	mu     sync.Mutex // guards the following
	global *rate.Limiter
	by     map[netip.Prefix]*rate.Limiter
}

func newLimiter() *limiter {
	return &limiter{global: rate.NewLimiter(rate.Every(globalEvery), globalBurst), by: map[netip.Prefix]*rate.Limiter{}}
}

// take uses up one attempt; with none left it tells how long to wait.
func (l *limiter) take(from netip.Addr) (wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, now := network(from), time.Now()
	own := l.by[p]
	if own == nil {
		l.makeRoom(now)
		own = rate.NewLimiter(rate.Every(prefixEvery), prefixBurst)
		l.by[p] = own
	}
	for _, one := range []*rate.Limiter{own, l.global} {
		if one.TokensAt(now) < 1 {
			r := one.ReserveN(now, 1)
			defer r.CancelAt(now)
			return r.DelayFrom(now), false
		}
	}
	own.AllowN(now, 1)
	l.global.AllowN(now, 1)
	return 0, true
}

// forgive forgets the attempts of a network.
func (l *limiter) forgive(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.by, network(from))
}

// makeRoom keeps the map bounded: those with nothing used up go first, then any.
func (l *limiter) makeRoom(now time.Time) {
	if len(l.by) < maxPrefixes {
		return
	}
	for p, one := range l.by {
		if one.TokensAt(now) >= prefixBurst {
			delete(l.by, p)
		}
	}
	for p := range l.by {
		if len(l.by) < maxPrefixes {
			return
		}
		delete(l.by, p)
	}
}

// network is what one person may be taken to hold: an IPv4 address, or an IPv6 /64.
func network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil { // no address: all such share one
		return netip.Prefix{}
	}
	return p
}
