// Package local answers from the policy's own records and for the special-use names that must not leave the machine.
//
// A record of the policy beats everything. A domain that is forwarded conditionally beats the special-use names, and the
// wildcards above it. What is left of home.arpa, local, the private reverse zones and their like does not exist.
package local

import (
	"maps"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"dnsfleet/internal/fleet"
)

// NegativeTTL is how long, in seconds, clients may keep that a local or blocked name has nothing to give.
const NegativeTTL = 30

// Zone is the local records of one policy. It is immutable and safe for concurrent use; the zero Zone has only the
// special-use names.
type Zone struct {
	nodes  map[string]*node // by name in wire form, lower case
	filter filter           // of the names in nodes
}

// node is a name that has a say in what is local. Others are not kept.
type node struct {
	records   []dns.RR
	wildcard  []dns.RR // of the name "*" below this one
	forwarded bool     // a domain that is forwarded conditionally
	// closed says that what is below does not exist unless it has a node: a wildcard further up would cover it, and
	// this name stops it (RFC 4592, section 3.3.1).
	closed bool
	// empty says that the name exists without records, because there is one below it that has some.
	empty bool
}

// New makes a Zone of a policy's records and of the domains that are forwarded conditionally. Records that cannot be
// read are left out, and unusable are their indexes.
func New(records []fleet.PolicyRecord, conditional ...fleet.PolicyConditional) (z *Zone, unusable []int) {
	z = &Zone{nodes: map[string]*node{}}
	for _, c := range conditional {
		if name, ok := packName(dns.Fqdn(c.Suffix())); ok {
			z.at(name).forwarded = true
		}
	}
	var parsed []dns.RR
	for i, r := range records {
		rr, err := parse(r)
		if err != nil {
			unusable = append(unusable, i)
			continue
		}
		parsed = append(parsed, rr)
		z.add(rr)
	}
	for _, rr := range parsed {
		z.addPointer(rr)
	}
	for _, name := range slices.Collect(maps.Keys(z.nodes)) {
		z.close(name)
	}
	for name := range z.nodes {
		z.filter.add([]byte(name))
	}
	return z, unusable
}

func (z *Zone) at(name string) *node {
	n := z.nodes[name]
	if n == nil {
		n = new(node)
		z.nodes[name] = n
	}
	return n
}

// add takes a record in. All of one type at a name have the TTL of the shortest (RFC 2181, section 5.2), none is there
// twice, and of several aliases the first counts.
func (z *Zone) add(rr dns.RR) {
	name, ok := packName(rr.Header().Name)
	if !ok {
		return
	}
	n := z.at(name)
	n.records = addRecord(n.records, rr)
	if rest, isWildcard := strings.CutPrefix(name, "\x01*"); isWildcard {
		z.at(rest).wildcard = n.records
	}
}

func addRecord(records []dns.RR, rr dns.RR) []dns.RR {
	ttl := rr.Header().Ttl
	for _, other := range records {
		if other.Header().Rrtype != rr.Header().Rrtype {
			continue
		}
		if rr.Header().Rrtype == dns.TypeCNAME || dns.IsDuplicate(rr, other) {
			return records
		}
		ttl = min(ttl, other.Header().Ttl)
	}
	records = append(records, rr)
	for _, other := range records {
		if other.Header().Rrtype == rr.Header().Rrtype {
			other.Header().Ttl = ttl
		}
	}
	return records
}

// addPointer gives the address of a record a name, unless it has one by then. It does so only where nobody else could:
// in the reverse zones of private addresses, as long as they are not forwarded. The first name of an address counts.
func (z *Zone) addPointer(rr dns.RR) {
	var reverse string
	switch rr := rr.(type) {
	case *dns.A:
		if rr.A.IsUnspecified() {
			return // such a record blocks its name
		}
		reverse, _ = dns.ReverseAddr(rr.A.String())
	case *dns.AAAA:
		reverse, _ = dns.ReverseAddr(rr.AAAA.String())
	}
	name, ok := packName(reverse)
	owner := rr.Header()
	if !ok || owner.Name[0] == '*' || !z.privateReverse(name) {
		return // a wildcard has no one name
	}
	n := z.nodes[name]
	if n != nil && slices.ContainsFunc(n.records, func(rr dns.RR) bool {
		return rr.Header().Rrtype == dns.TypePTR || rr.Header().Rrtype == dns.TypeCNAME
	}) {
		return
	}
	header := dns.RR_Header{Name: reverse, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: owner.Ttl}
	n = z.at(name)
	n.records = append(n.records, &dns.PTR{Hdr: header, Ptr: owner.Name})
}

// privateReverse reports whether a reverse name does not exist unless the policy says otherwise.
func (z *Zone) privateReverse(name string) bool {
	for suffix := name; suffix != "\x00"; suffix = parent(suffix) {
		if n := z.nodes[suffix]; n != nil && (n.forwarded || n.wildcard != nil) {
			return false
		}
	}
	s := specialOf([]byte(name))
	return s.kind == absent && s.apex > 0
}

// close finds out what a name that has something means for itself and for those above it.
func (z *Zone) close(name string) {
	n := z.nodes[name]
	if !n.forwarded {
		n.closed = z.covered(name)
		n.empty = n.records == nil && (n.closed || unpublished(name))
	}
	for above := parent(name); above != "\x00"; above = parent(above) {
		if up := z.nodes[above]; up != nil && (up.forwarded || up.records != nil || up.wildcard != nil) {
			return // it speaks for itself
		}
		if closed := z.covered(above); closed || unpublished(above) {
			up := z.at(above)
			up.closed, up.empty = closed, true
		}
	}
}

// covered reports whether a wildcard would cover the name, were it not there.
func (z *Zone) covered(name string) bool {
	for above := name; above != "\x00"; {
		if n := z.nodes[above]; n != nil && n.forwarded {
			return false
		}
		above = parent(above)
		if n := z.nodes[above]; n != nil && n.wildcard != nil {
			return true
		}
	}
	return false
}

// SOA is the authority record of a negative answer for the name, which tells clients how long to keep it.
func SOA(name string) dns.RR {
	return &dns.SOA{
		Hdr:  dns.RR_Header{Name: name, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: NegativeTTL},
		Ns:   "localhost.",
		Mbox: "nobody.invalid.", Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: NegativeTTL,
	}
}
