// Package rebinding tells answers that lead from a name outside to an address inside the network. A page that is shown such
// a name may talk to the router or the printer as if they were its own server (DNS rebinding).
package rebinding

import (
	"net/netip"

	"github.com/miekg/dns"

	"dnsfleet/internal/fleet"
)

// private are the addresses that are inside a network: of this host and network (RFC 1122), of private use (RFC 1918,
// RFC 4193), shared by a provider (RFC 6598), loopback, link-local, and site-local as it once was.
var private = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("fc00::/7"),
	netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("fec0::/10"),
}

// embedding are the prefixes whose last four bytes are an IPv4 address that is talked to: IPv4-compatible addresses
// (RFC 4291) and those of a translator (RFC 6052).
var embedding = []netip.Prefix{netip.MustParsePrefix("::/96"), netip.MustParsePrefix("64:ff9b::/96")}

// Private reports whether an address is inside a network, also one that holds an IPv4 address which is. Exactly 0.0.0.0
// and :: are not: they are how upstreams say that they block a name. Nor are the ranges of documentation.
func Private(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() || addr.IsUnspecified() {
		return false
	}
	for _, p := range private {
		if p.Contains(addr) {
			return true
		}
	}
	for _, p := range embedding {
		if p.Contains(addr) {
			raw := addr.As16()
			return Private(netip.AddrFrom4([4]byte(raw[12:])))
		}
	}
	return false
}

// Guard knows the names that may lead inside. It is immutable and safe for concurrent use. A nil Guard lets every name.
type Guard struct {
	domains map[string]struct{} // in wire form, lower case
}

// home are the domains that no public DNS has, so that an answer for them comes from somebody inside.
var home = []string{"home.arpa", "internal", "lan", "local", "localdomain", "localhost", "home", "corp", "private", "intranet"}

// New makes a Guard of a policy's section and of the domains that it forwards conditionally, which may lead inside like
// those of the section. It is nil if the section protects nothing. unusable are the indexes in section.Allow of what is
// no domain.
func New(section fleet.PolicyRebinding, conditional ...fleet.PolicyConditional) (g *Guard, unusable []int) {
	g = &Guard{domains: map[string]struct{}{}}
	for i, domain := range section.Allow {
		if !g.allow(fleet.PolicyConditional{Domain: domain}.Suffix()) {
			unusable = append(unusable, i)
		}
	}
	for _, c := range conditional {
		g.allow(c.Suffix())
	}
	for _, domain := range home {
		g.allow(domain)
	}
	if !section.Protects() {
		return nil, unusable
	}
	return g, unusable
}

func (g *Guard) allow(domain string) bool {
	var buf [256]byte
	end, err := dns.PackDomainName(dns.Fqdn(domain), buf[:], 0, nil, false)
	if err != nil || end < 2 {
		return false
	}
	g.domains[string(buf[:end])] = struct{}{}
	return true
}

// Exempt reports whether a name in wire form and lower case may lead inside: it is of a single label, or below one of
// the domains that may. It does not allocate. What is no whole name may not.
func (g *Guard) Exempt(name []byte) bool {
	if g == nil {
		return true
	}
	labels, exempt := 0, false
	for off := 0; off < len(name) && name[off] < 64; off += 1 + int(name[off]) {
		if name[off] == 0 {
			return exempt || labels == 1
		}
		if !exempt {
			_, exempt = g.domains[string(name[off:])]
		}
		labels++
	}
	return false
}
