package local

import (
	"net"
	"strings"

	"github.com/miekg/dns"
)

// special answers for names that must not be asked of others: localhost and the loopback reverse names (RFC 6761),
// invalid (RFC 6761), local (RFC 6762), onion (RFC 7686).
func special(name string, qtype uint16) (Answer, bool) {
	last := name[strings.LastIndexByte(strings.TrimSuffix(name, "."), '.')+1:]
	switch last {
	case "localhost.":
		return Answer{Records: loopback(name, qtype)}, true
	case "invalid.", "local.", "onion.":
		return Answer{NotExist: true}, true
	}
	if name == "1.0.0.127.in-addr.arpa." || name == "1."+strings.Repeat("0.", 31)+"ip6.arpa." {
		var a Answer
		if qtype == dns.TypePTR || qtype == dns.TypeANY {
			a.Records = []dns.RR{&dns.PTR{Hdr: specialHeader(name, dns.TypePTR), Ptr: "localhost."}}
		}
		return a, true
	}
	return Answer{}, false
}

func loopback(name string, qtype uint16) []dns.RR {
	var records []dns.RR
	if qtype == dns.TypeA || qtype == dns.TypeANY {
		records = append(records, &dns.A{Hdr: specialHeader(name, dns.TypeA), A: net.IPv4(127, 0, 0, 1)})
	}
	if qtype == dns.TypeAAAA || qtype == dns.TypeANY {
		records = append(records, &dns.AAAA{Hdr: specialHeader(name, dns.TypeAAAA), AAAA: net.IPv6loopback})
	}
	return records
}

func specialHeader(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: 3600}
}
