package message

import (
	"encoding/hex"
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

// Extra is what a reply's OPT says. The zero value says nothing.
type Extra struct {
	EDE     *EDE
	Cookie  []byte // the whole COOKIE option, client's and server's part; nil for none
	Padding bool   // pad the reply to a multiple of 468 bytes (RFC 8467)
}

// paddingBlock is what padded answers are multiples of (RFC 8467, section 4.1).
const paddingBlock = 468

// Pack finishes a reply and makes bytes of it. It adds an OPT if and only if the client sent one, and over UDP cuts
// the answer to what the client takes, with TC set. udp says which transport it is for.
func (q Query) Pack(reply *dns.Msg, x Extra, udp bool) ([]byte, error) {
	reply.Extra = withoutOPT(reply.Extra)
	if q.OPT != nil {
		reply.Extra = append(reply.Extra, q.opt(x))
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
	if opt := reply.IsEdns0(); opt != nil && x.Padding && len(wire) <= limit {
		missing := (paddingBlock - (len(wire)+4)%paddingBlock) % paddingBlock
		opt.Option = append(opt.Option, &dns.EDNS0_PADDING{Padding: make([]byte, missing)})
		if wire, err = reply.Pack(); err != nil {
			return nil, fmt.Errorf("pack answer: %w", err)
		}
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

func (q Query) opt(x Extra) *dns.OPT {
	opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
	opt.SetUDPSize(MaxUDP)
	opt.SetDo(q.DO())
	if x.EDE != nil {
		opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: x.EDE.Code, ExtraText: x.EDE.Text})
	}
	if x.Cookie != nil {
		opt.Option = append(opt.Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: hex.EncodeToString(x.Cookie)})
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
