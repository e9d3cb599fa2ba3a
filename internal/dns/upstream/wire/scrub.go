package wire

import (
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// scrub rebuilds a message without the records that are not about its question. Aliases may be in any order.
func scrub(raw []byte) (clean []byte, err error) {
	defer func() {
		if p := recover(); p != nil { // of a record that can be read but not written
			clean, err = nil, fmt.Errorf("%w: %v", ErrMalformed, p)
		}
	}()
	msg := new(dns.Msg)
	if err := msg.Unpack(raw); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(msg.Question) != 1 {
		msg.Answer, msg.Ns = nil, nil
		return msg.Pack()
	}
	q := msg.Question[0]
	chain, err := follow(msg, q)
	if err != nil {
		return nil, err
	}
	msg.Answer = slices.DeleteFunc(msg.Answer, func(rr dns.RR) bool {
		h := rr.Header()
		about := slices.ContainsFunc(chain, func(n string) bool {
			return strings.EqualFold(h.Name, n) || ofParent(h.Rrtype) && dns.IsSubDomain(h.Name, n)
		})
		return h.Class != q.Qclass || !wanted(h.Rrtype, q.Qtype) || !about
	})
	msg.Ns = slices.DeleteFunc(msg.Ns, func(rr dns.RR) bool {
		h := rr.Header()
		switch h.Rrtype {
		case dns.TypeNSEC, dns.TypeNSEC3, dns.TypeRRSIG, dns.TypeDS:
			return false
		case dns.TypeSOA, dns.TypeNS:
			return !slices.ContainsFunc(chain, func(n string) bool { return dns.IsSubDomain(h.Name, n) })
		}
		return true
	})
	msg.Compress = true
	return msg.Pack()
}

// follow lists the question's name and what its aliases lead to.
func follow(msg *dns.Msg, q dns.Question) ([]string, error) {
	chain := []string{q.Name}
	if !aliases(q.Qtype) {
		return chain, nil
	}
	for {
		last := chain[len(chain)-1]
		next := slices.IndexFunc(msg.Answer, func(rr dns.RR) bool {
			return rr.Header().Rrtype == dns.TypeCNAME && rr.Header().Class == q.Qclass && strings.EqualFold(rr.Header().Name, last)
		})
		if next < 0 {
			return chain, nil
		}
		target := msg.Answer[next].(*dns.CNAME).Target
		if len(chain) == maxChain || slices.ContainsFunc(chain, func(n string) bool { return strings.EqualFold(n, target) }) {
			return nil, ErrChain
		}
		chain = append(chain, target)
	}
}
