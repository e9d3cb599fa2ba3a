package message

import (
	"fmt"
	"slices"

	"github.com/miekg/dns"
)

// Reply is an empty answer to the query: its id, its question, RD and CD as they came, RA set.
func (q Query) Reply(rcode int) *dns.Msg {
	reply := new(dns.Msg).SetReply(q.Msg)
	reply.RecursionAvailable = true
	reply.Rcode = rcode
	return reply
}

// Adopt is the answer to the query that carries the records of another message with the same question.
func (q Query) Adopt(from *dns.Msg) *dns.Msg {
	reply := q.Reply(from.Rcode)
	reply.AuthenticatedData = from.AuthenticatedData && q.AD()
	reply.Answer, reply.Ns, reply.Extra = from.Answer, from.Ns, withoutOPT(from.Extra)
	return reply
}

// EDE is an extended DNS error (RFC 8914) for an answer.
type EDE struct {
	Code uint16
	Text string
}

// Pack finishes a reply and makes bytes of it. It adds an OPT if and only if the client sent one, and over UDP cuts
// the answer to what the client takes, with TC set. udp says which transport it is for.
func (q Query) Pack(reply *dns.Msg, ede *EDE, udp bool) ([]byte, error) {
	reply.Extra = withoutOPT(reply.Extra)
	if q.OPT != nil {
		reply.Extra = append(reply.Extra, q.opt(ede))
	}
	limit := dns.MaxMsgSize
	if udp {
		limit = q.udpLimit()
	}
	reply.Compress = true
	if reply.Len() > limit {
		reply.Truncate(limit)
		reply.Compress = true
	}
	wire, err := reply.Pack()
	if err != nil {
		return nil, fmt.Errorf("pack answer: %w", err)
	}
	if len(wire) > limit { // Truncate reckons; a client must not be sent more, whatever it reckoned
		reply.Answer, reply.Ns, reply.Truncated = nil, nil, true
		reply.Extra = slices.DeleteFunc(reply.Extra, func(rr dns.RR) bool { return rr.Header().Rrtype != dns.TypeOPT })
		if wire, err = reply.Pack(); err != nil {
			return nil, fmt.Errorf("pack answer: %w", err)
		}
	}
	return wire, nil
}

func (q Query) opt(ede *EDE) *dns.OPT {
	opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
	opt.SetUDPSize(MaxUDP)
	opt.SetDo(q.DO())
	if ede != nil {
		opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: ede.Code, ExtraText: ede.Text})
	}
	return opt
}

// udpLimit is how many bytes the client takes over UDP (RFC 6891, section 6.2.5).
func (q Query) udpLimit() int {
	if q.OPT == nil {
		return dns.MinMsgSize
	}
	return min(max(int(q.OPT.UDPSize()), dns.MinMsgSize), MaxUDP)
}

func withoutOPT(rrs []dns.RR) []dns.RR {
	return slices.DeleteFunc(slices.Clone(rrs), func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT })
}
