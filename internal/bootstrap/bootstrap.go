// Package bootstrap resolves and reaches what the program itself needs: primaries, lists, Redis, ClickHouse,
// upstreams with a name. It asks the given DNS servers, or the system's, but never the program's own listeners, so
// that an instance which the machine uses as its resolver can still start.
package bootstrap

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"dnsfleet/internal/fleet"
)

// Limits on one connection attempt. A caller's context may end it earlier.
const (
	dialTimeout   = 10 * time.Second
	lookupTimeout = 6 * time.Second
	// raceDelay is how long one address is tried before the next is tried beside it (RFC 8305).
	raceDelay = 300 * time.Millisecond
)

// Options are what a Dialer is made of.
type Options struct {
	// Servers are the DNS servers to ask, in order. None means the system's resolver.
	Servers []netip.AddrPort
	// Own are the listeners of this program, as host:port or :port. They are never asked.
	Own []string
	// Log is told when names cannot be resolved and an address of before is used. nil = discard.
	Log *slog.Logger
	// Now is the clock of remembered addresses. nil = time.Now.
	Now func() time.Time
}

// Dialer connects to hosts by name without the help of the program's own resolver. It is safe for concurrent use.
type Dialer struct {
	servers []netip.AddrPort
	system  *net.Resolver
	log     *slog.Logger
	now     func() time.Time

	mu    sync.Mutex // guards the following
	own   []listener
	known map[string]knownHost
}

// New makes a Dialer. It starts nothing.
func New(o Options) (*Dialer, error) {
	d := &Dialer{servers: o.Servers, log: o.Log, now: o.Now, known: map[string]knownHost{}}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.now == nil {
		d.now = time.Now
	}
	if err := d.SetOwn(o.Own); err != nil {
		return nil, err
	}
	d.system = &net.Resolver{PreferGo: true, Dial: d.dialSystemServer}
	return d, nil
}

// ParseServers reads the comma-separated value of DNSFLEET_BOOTSTRAP_DNS: addresses with or without a port. An empty
// text is no servers. What is not an address is fleet.ErrInvalid.
func ParseServers(text string) ([]netip.AddrPort, error) {
	var servers []netip.AddrPort
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		server, err := parseServer(part)
		if err != nil {
			return nil, fmt.Errorf("%w: %q is not an address such as 9.9.9.9 or [2620:fe::fe]:53", fleet.ErrInvalid, part)
		}
		servers = append(servers, server)
	}
	return servers, nil
}

func parseServer(text string) (netip.AddrPort, error) {
	if ip, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return netip.AddrPortFrom(ip, 53), nil
	}
	return netip.ParseAddrPort(text)
}

// DialContext connects to addr, whose host may be a name. It has the shape of net.Dialer.DialContext. Every address of
// the name is tried, IPv6 first, the next one beside it after a moment.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	host, port, err := net.SplitHostPort(addr)
	if err != nil || net.ParseIP(host) != nil || host == "" || strings.HasPrefix(network, "unix") {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	addrs, err := d.LookupNetIP(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	conn, err := race(ctx, network, fitting(addrs, network), port)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	return conn, nil
}

// fitting leaves out the addresses that the network ("tcp4", "udp6", …) cannot reach.
func fitting(addrs []netip.Addr, network string) []netip.Addr {
	var fit []netip.Addr
	for _, a := range addrs {
		if strings.HasSuffix(network, "4") && !a.Is4() || strings.HasSuffix(network, "6") && !a.Is6() {
			continue
		}
		fit = append(fit, a)
	}
	return fit
}

// race dials the addresses, each raceDelay after the one before it or as soon as that one fails. The first connection
// wins; later ones are closed.
func race(ctx context.Context, network string, addrs []netip.Addr, port string) (net.Conn, error) {
	if len(addrs) == 0 {
		return nil, fmt.Errorf("no address for network %s", network)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result) // unbuffered: a loser sees ctx end and closes its own connection
	dial := func(a netip.Addr) {
		conn, err := new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(a.String(), port))
		select {
		case results <- result{conn, err}:
		case <-ctx.Done():
			if conn != nil {
				_ = conn.Close()
			}
		}
	}
	var firstErr error
	next, running := 0, 0
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			if next < len(addrs) {
				go dial(addrs[next])
				next++
				running++
				timer.Reset(raceDelay)
			}
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			running--
			if firstErr == nil {
				firstErr = r.err
			}
			if next == len(addrs) && running == 0 {
				return nil, firstErr
			}
			timer.Reset(0)
		case <-ctx.Done():
			if firstErr == nil {
				firstErr = ctx.Err()
			}
			return nil, firstErr
		}
	}
}
