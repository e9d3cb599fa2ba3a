package local

import (
	"slices"

	"github.com/miekg/dns"
)

// maxChain bounds the aliases of one answer.
const maxChain = 8

// Answer is what the zone knows of a question.
type Answer struct {
	Records []dns.RR // the caller must not change them
	// Chase is a name outside the zone that an alias leads to and that is yet to be resolved; "" for none.
	Chase string
	// NotExist says that there is no such name; with records, that the alias in them leads to none.
	NotExist bool
	// Zone is whose SOA a negative answer carries; "" for one with records and no NotExist.
	Zone string
}

// place is who has a say about a name: a node, or a special-use domain.
type place struct {
	node     *node
	wildcard bool // the name is one that the node's wildcard stands for
	absent   bool // the node says that there is no such name
	special  special
	from     int // where in the name the node's begins
}

// Covers reports whether the zone has something to say about a name in wire form and lower case. If it is false, Lookup
// finds nothing, whatever the type. It does not allocate; for what is no whole name it is false.
func (z *Zone) Covers(name []byte) bool {
	_, ok := z.place(name)
	return ok
}

func (z *Zone) place(name []byte) (p place, ok bool) {
	last, second := -1, -1
	for off := 0; ; {
		if off >= len(name) || name[off] > 63 {
			return place{}, false
		}
		if name[off] == 0 {
			break
		}
		if len(z.nodes) > 0 && len(name)-off > 2 && z.filter.has(name[off:]) {
			if n := z.nodes[string(name[off:])]; n != nil {
				p = place{node: n, from: off}
				switch {
				case off == 0 && n.records != nil:
					return p, true
				case off == 0 && n.empty:
					p.special = specialOf(name)
					return p, true
				case off > 0 && n.wildcard != nil:
					p.wildcard = true
					return p, true
				case n.forwarded:
					return place{}, false
				case off > 0 && n.closed:
					p.absent = true
					return p, true
				}
			}
		}
		second, last = last, off
		off += 1 + int(name[off])
	}
	if last < 0 || !maySpecial(name[last:]) {
		return place{}, false
	}
	p = place{special: specialAt(name, last, second)}
	return p, p.special.kind != notSpecial
}

// Lookup answers for a name in lower case with the final dot. found is false for a name that is not local. Of type ANY
// it gives one set of records (RFC 8482). Owners are the names that were asked for, also where a wildcard answers.
func (z *Zone) Lookup(name string, qtype uint16) (a Answer, found bool) {
	var buf [256]byte
	for range maxChain {
		wire, ok := appendName(buf[:], name)
		if !ok {
			return a, len(a.Records) > 0
		}
		p, ok := z.place(wire)
		if !ok || (qtype == dns.TypeDS && isDelegated(wire)) {
			if len(a.Records) == 0 {
				return Answer{}, false
			}
			a.Chase = name
			return a, true
		}
		alias := a.add(p, wire, name, qtype)
		if alias == "" {
			return a, true
		}
		if slices.ContainsFunc(a.Records, func(rr dns.RR) bool { return rr.Header().Name == alias }) {
			return a, true // they go round: what was gathered is all there is
		}
		name = alias
	}
	return a, true
}

// add takes in what is known of the name, and returns where an alias leads to.
func (a *Answer) add(p place, wire []byte, name string, qtype uint16) (alias string) {
	switch {
	case p.node == nil:
		a.addSpecial(p.special, wire, name, qtype)
		return ""
	case p.absent:
		a.NotExist, a.Zone = true, unpackName(wire[p.from:])
		return ""
	case p.node.records == nil && !p.wildcard:
		before := len(a.Records)
		a.addSpecial(p.special, wire, name, qtype)
		a.NotExist = false // there are names below it
		if len(a.Records) == before && a.Zone == "" {
			a.Zone = name
		}
		return ""
	}
	records := p.node.records
	if p.wildcard {
		records = p.node.wildcard
	}
	matched := match(records, qtype)
	if len(matched) == 0 {
		a.Zone = unpackName(wire[p.from:])
		return ""
	}
	for _, rr := range matched {
		if p.wildcard {
			rr = dns.Copy(rr)
			rr.Header().Name = name
		}
		a.Records = append(a.Records, rr)
	}
	if cname, ok := matched[0].(*dns.CNAME); ok && qtype != dns.TypeCNAME && qtype != dns.TypeANY {
		return cname.Target
	}
	return ""
}

// match are the records of the type; the alias where there are none; of ANY those of the first type.
func match(records []dns.RR, qtype uint16) []dns.RR {
	if qtype == dns.TypeANY && len(records) > 0 {
		qtype = records[0].Header().Rrtype
	}
	var matched, aliases []dns.RR
	for _, rr := range records {
		switch rr.Header().Rrtype {
		case qtype:
			matched = append(matched, rr)
		case dns.TypeCNAME:
			aliases = append(aliases, rr)
		}
	}
	if len(matched) == 0 {
		return aliases
	}
	return matched
}

// MinimalANY is the answer to a query of type ANY for a name that is not local: there is no more than this (RFC 8482,
// section 4.2).
func MinimalANY(name string) dns.RR {
	return &dns.HINFO{
		Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeHINFO, Class: dns.ClassINET, Ttl: 3600},
		Cpu: "RFC8482",
	}
}
