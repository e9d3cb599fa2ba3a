package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	serverTimeout = 2 * time.Second
	minKnown      = 5 * time.Second
	maxKnown      = 5 * time.Minute
	maxKnownHosts = 256
)

// knownHost is what a name resolved to last. It is used past its time when nobody can be asked.
type knownHost struct {
	addrs []netip.Addr
	until time.Time
}

// ErrNoSuchHost says that the DNS knows no address of the name.
var ErrNoSuchHost = errors.New("no such host")

// LookupNetIP are the addresses of host, IPv6 and IPv4 in turns; an address is its own. When no server answers, the
// addresses of before are returned, however old.
func (d *Dialer) LookupNetIP(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	host = strings.ToLower(host)
	d.mu.Lock()
	known, found := d.known[host]
	d.mu.Unlock()
	if found && d.now().Before(known.until) {
		return known.addrs, nil
	}
	lookupCtx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, ttl, err := d.lookup(lookupCtx, host)
	switch {
	case err == nil:
		addrs = interleave(addrs)
		d.remember(host, knownHost{addrs, d.now().Add(min(max(ttl, minKnown), maxKnown))})
		return addrs, nil
	case found && !errors.Is(err, ErrNoSuchHost):
		d.log.WarnContext(ctx, "name not resolved, using its last address", "host", host, "err", err)
		return known.addrs, nil
	}
	return nil, fmt.Errorf("resolve %s: %w", host, err)
}

func (d *Dialer) remember(host string, k knownHost) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.known) >= maxKnownHosts {
		for other := range d.known { // any one: a fleet knows a handful of hosts
			delete(d.known, other)
			break
		}
	}
	d.known[host] = k
}

func (d *Dialer) lookup(ctx context.Context, host string) ([]netip.Addr, time.Duration, error) {
	if len(d.servers) == 0 || host == "localhost" {
		return d.lookupSystem(ctx, host)
	}
	var errs []error
	for _, server := range d.servers {
		if d.isOwn(server) {
			errs = append(errs, fmt.Errorf("bootstrap server %s is a listener of this program", server))
			continue
		}
		addrs, ttl, err := lookupAt(ctx, server, host)
		if err == nil || errors.Is(err, ErrNoSuchHost) {
			return addrs, ttl, err
		}
		errs = append(errs, fmt.Errorf("bootstrap server %s: %w", server, err))
	}
	return nil, 0, errors.Join(errs...)
}

// lookupSystem does without TTLs, which the system's resolver does not tell.
func (d *Dialer) lookupSystem(ctx context.Context, host string) ([]netip.Addr, time.Duration, error) {
	addrs, err := d.system.LookupNetIP(ctx, "ip", host)
	var dnsErr *net.DNSError
	if errors.As(err, &dnsErr) && dnsErr.IsNotFound {
		return nil, 0, fmt.Errorf("%w: %w", ErrNoSuchHost, err)
	}
	for i, a := range addrs {
		addrs[i] = a.Unmap()
	}
	return addrs, minKnown, err
}

// lookupAt asks one server for A and AAAA at once. One family is enough for success.
func lookupAt(ctx context.Context, server netip.AddrPort, host string) ([]netip.Addr, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, serverTimeout)
	defer cancel()
	type result struct {
		addrs []netip.Addr
		ttl   time.Duration
		err   error
	}
	types := []uint16{dns.TypeAAAA, dns.TypeA}
	results := make(chan result, len(types))
	for _, qtype := range types {
		go func() {
			addrs, ttl, err := ask(ctx, server, host, qtype)
			results <- result{addrs, ttl, err}
		}()
	}
	var addrs []netip.Addr
	var failure error
	ttl := maxKnown
	for range types {
		r := <-results
		addrs = append(addrs, r.addrs...)
		if r.err != nil {
			failure = r.err
		} else {
			ttl = min(ttl, r.ttl)
		}
	}
	if len(addrs) > 0 {
		return addrs, ttl, nil
	}
	if failure == nil {
		failure = ErrNoSuchHost
	}
	return nil, 0, failure
}

func ask(ctx context.Context, server netip.AddrPort, host string, qtype uint16) ([]netip.Addr, time.Duration, error) {
	query := new(dns.Msg).SetQuestion(dns.Fqdn(host), qtype)
	query.SetEdns0(1232, false)
	client := &dns.Client{Net: "udp", UDPSize: 1232}
	reply, _, err := client.ExchangeContext(ctx, query, server.String())
	if err == nil && reply.Truncated {
		client.Net = "tcp"
		reply, _, err = client.ExchangeContext(ctx, query, server.String())
	}
	if err != nil {
		return nil, 0, err
	}
	if reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError {
		return nil, 0, fmt.Errorf("%s answers %s", server, dns.RcodeToString[reply.Rcode])
	}
	var addrs []netip.Addr
	ttl := maxKnown
	for _, rr := range reply.Answer {
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A
		case *dns.AAAA:
			ip = rr.AAAA
		}
		if a, ok := netip.AddrFromSlice(ip); ok {
			addrs = append(addrs, a.Unmap())
			ttl = min(ttl, time.Duration(rr.Header().Ttl)*time.Second)
		}
	}
	return addrs, ttl, nil
}

// interleave puts IPv6 and IPv4 in turns, IPv6 first (RFC 8305).
func interleave(addrs []netip.Addr) []netip.Addr {
	var four, six, mixed []netip.Addr
	for _, a := range addrs {
		if a.Is4() {
			four = append(four, a)
		} else {
			six = append(six, a)
		}
	}
	for len(four) > 0 || len(six) > 0 {
		if len(six) > 0 {
			mixed, six = append(mixed, six[0]), six[1:]
		}
		if len(four) > 0 {
			mixed, four = append(mixed, four[0]), four[1:]
		}
	}
	return slices.Clip(mixed)
}
