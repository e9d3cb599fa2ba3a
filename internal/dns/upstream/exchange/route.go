package exchange

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// DialFunc opens a connection to host:port, whose host may be a name.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Target is where an upstream is.
type Target struct {
	Host, Port string
	Bootstrap  []string // addresses of the host, which are dialed instead of its name
	Dial       DialFunc // nil = net.Dialer, whose names the system resolves
}

const (
	dialTimeout = 3 * time.Second
	// lookupAge is how long the address behind a name is taken for granted.
	lookupAge = 5 * time.Minute
)

// route finds the way to a target, and remembers which of its addresses worked last.
type route struct {
	dial     DialFunc
	hosts    []string // host:port
	literals []netip.AddrPort
	current  atomic.Uint32 // counts failures; modulo the number of hosts it is who to try first
	looked   atomic.Pointer[lookup]
}

type lookup struct {
	addr netip.AddrPort
	at   time.Time
}

func newRoute(t Target) *route {
	r := &route{dial: t.Dial}
	if r.dial == nil {
		r.dial = new(net.Dialer).DialContext
	}
	hosts := t.Bootstrap
	if _, err := netip.ParseAddr(t.Host); err == nil || len(hosts) == 0 {
		hosts = []string{t.Host}
	}
	for _, h := range hosts {
		address := net.JoinHostPort(h, t.Port)
		r.hosts = append(r.hosts, address)
		if literal, err := netip.ParseAddrPort(address); err == nil {
			r.literals = append(r.literals, netip.AddrPortFrom(literal.Addr().Unmap(), literal.Port()))
		}
	}
	return r
}

// connect dials the addresses, the one that worked last first; each gets its share of the time.
func (r *route) connect(ctx context.Context, network string) (net.Conn, error) {
	var errs []error
	first := r.current.Load()
	for i := range r.hosts {
		conn, err := r.connectTo(ctx, network, r.hosts[(int(first)+i)%len(r.hosts)], len(r.hosts)-i)
		if err == nil {
			return conn, nil
		}
		r.failed(first + uint32(i))
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (r *route) connectTo(ctx context.Context, network, address string, shares int) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok && shares > 1 {
		share, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(shares))
		defer cancel()
		ctx = share
	}
	return r.dial(ctx, network, address)
}

// udp is the address that datagrams go to, and what failed has to be told if it does not answer.
func (r *route) udp(ctx context.Context) (addr netip.AddrPort, attempt uint32, err error) {
	addr, attempt, known := r.known()
	if known {
		return addr, attempt, nil
	}
	conn, err := r.connect(ctx, "udp") // sends nothing, but resolves the name
	if err != nil {
		return addr, attempt, err
	}
	defer conn.Close() //nolint:errcheck // nothing was sent
	remote, ok := conn.RemoteAddr().(*net.UDPAddr)
	if !ok {
		return addr, attempt, fmt.Errorf("no UDP address behind %s", r.hosts[0])
	}
	found := remote.AddrPort()
	found = netip.AddrPortFrom(found.Addr().Unmap(), found.Port())
	r.looked.Store(&lookup{found, time.Now()})
	return found, attempt, nil
}

// known is udp without a look-up, as far as that goes.
func (r *route) known() (addr netip.AddrPort, attempt uint32, ok bool) {
	attempt = r.current.Load()
	if len(r.literals) == len(r.hosts) {
		return r.literals[int(attempt)%len(r.literals)], attempt, true
	}
	if looked := r.looked.Load(); looked != nil && time.Since(looked.at) < lookupAge {
		return looked.addr, attempt, true
	}
	return addr, attempt, false
}

// failed moves on from the address of the attempt, once however many say so.
func (r *route) failed(attempt uint32) {
	if r.current.CompareAndSwap(attempt, attempt+1) {
		r.looked.Store(nil)
	}
}
