package dns

import (
	"net"
	"net/netip"
	"unicode/utf8"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/local"
	"dnsfleet/internal/dns/message"
	"dnsfleet/internal/dns/packet"
	"dnsfleet/internal/dns/rules"
	"dnsfleet/internal/fleet"
)

// blocking is how the policy answers what it blocks.
type blocking struct {
	refuse    bool
	addresses []netip.Addr // of both families; none = the name does not exist
	named     bool         // addresses are given: a family without one is NODATA

	// The same as records that follow the question's name.
	a, aaaa [][]byte
	soa     []byte
}

func newBlocking(mode fleet.BlockMode) blocking {
	b := blocking{refuse: mode.Mode == "refused", soa: tail(local.SOA("."))}
	if mode.Mode == "zero" {
		b.addresses = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	for _, addr := range mode.Addresses {
		b.addresses = append(b.addresses, addr.Unmap())
	}
	b.named = len(b.addresses) > 0
	for _, rr := range b.records(dns.Question{Name: ".", Qtype: dns.TypeA}) {
		b.a = append(b.a, tail(rr))
	}
	for _, rr := range b.records(dns.Question{Name: ".", Qtype: dns.TypeAAAA}) {
		b.aaaa = append(b.aaaa, tail(rr))
	}
	return b
}

// tail is a record of the root's as it travels, from its type on.
func tail(rr dns.RR) []byte {
	wire := make([]byte, dns.Len(rr)+1)
	end, err := dns.PackRR(rr, wire, 0, nil, false)
	if err != nil {
		panic(err) // cannot be: addresses and an SOA of our own
	}
	return wire[1:end]
}

func (b *blocking) records(q dns.Question) []dns.RR {
	raw := make([][]byte, 0, len(b.addresses))
	for _, addr := range b.addresses {
		raw = append(raw, addr.AsSlice())
	}
	return addressRecords(q, raw)
}

// append appends the reply to a query that is blocked, without OPT.
func (b *blocking) append(out []byte, q *packet.Query) (reply []byte, rcode int) {
	if b.refuse {
		return q.AppendHead(out, dns.RcodeRefused), dns.RcodeRefused
	}
	start := len(out)
	if !b.named {
		rcode = dns.RcodeNameError
	}
	out = q.AppendHead(out, rcode)
	var records [][]byte
	switch q.Type {
	case dns.TypeA:
		records = b.a
	case dns.TypeAAAA:
		records = b.aaaa
	}
	for _, r := range records {
		out = packet.AppendRecord(out, start, packet.AnswerSection, r)
	}
	if len(records) == 0 {
		out = packet.AppendRecord(out, start, packet.AuthoritySection, b.soa)
	}
	return out, rcode
}

// answer is the same by way of package message.
func (b *blocking) answer(r *request, text [2]string, list string) answer {
	a := answer{
		msg: r.query.Reply(dns.RcodeSuccess), outcome: fleet.Blocked, list: list,
		ede: &message.EDE{Code: dns.ExtendedErrorCodeBlocked, Text: text[0] + text[1]},
	}
	if b.refuse {
		a.msg.Rcode = dns.RcodeRefused
		return a
	}
	if !b.named {
		a.msg.Rcode = dns.RcodeNameError
	}
	a.msg.Answer = b.records(r.query.Question)
	if len(a.msg.Answer) == 0 {
		a.msg.Ns = []dns.RR{local.SOA(r.query.Question.Name)}
	}
	return a
}

// maxListName is how many bytes of a list's name a client is told: an answer is not to be much larger than its query.
const maxListName = 64

// blockedText says which rule blocked.
func blockedText(d rules.Decision) [2]string {
	if d.List == "" {
		return [2]string{"blocked by ", "policy"}
	}
	name := d.List
	if len(name) > maxListName {
		end := maxListName
		for !utf8.RuneStart(name[end]) {
			end--
		}
		name = name[:end]
	}
	return [2]string{"blocked by list ", name}
}

// addressRecords are the addresses of the family that is asked for.
func addressRecords(q dns.Question, addresses [][]byte) []dns.RR {
	var records []dns.RR
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: local.NegativeTTL}
	for _, raw := range addresses {
		switch {
		case q.Qtype == dns.TypeA && len(raw) == net.IPv4len:
			records = append(records, &dns.A{Hdr: header, A: raw})
		case q.Qtype == dns.TypeAAAA && len(raw) == net.IPv6len:
			records = append(records, &dns.AAAA{Hdr: header, AAAA: raw})
		}
	}
	return records
}
