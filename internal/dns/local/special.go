package local

import (
	"net"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// kind is what is known of a special-use name.
type kind uint8

const (
	notSpecial kind = iota
	absent          // there is no such name
	empty           // it exists, without records
	apex            // the top of a zone that is served here: it has SOA and NS
	loopback        // localhost, or a name below it
	pointer         // the reverse name of a loopback address
)

// special is what is known of a name, and where in it the zone begins that says so.
type special struct {
	kind kind
	apex int
}

// maySpecial reports whether names below the last label, in wire form, can be special-use names.
func maySpecial(last []byte) bool {
	switch string(last) {
	case "\x04arpa\x00", "\x05local\x00", "\x05onion\x00", "\x07invalid\x00", "\x09localhost\x00":
		return true
	}
	return false
}

// specialOf is specialAt for a name whose labels have not been looked for.
func specialOf(name []byte) special {
	last, second := -1, -1
	for off := 0; name[off] != 0; off += 1 + int(name[off]) {
		second, last = last, off
	}
	if last < 0 {
		return special{}
	}
	return specialAt(name, last, second)
}

// specialAt tells of a name whose last and last but one label begin there. Below these domains nothing is asked of
// others: localhost and invalid (RFC 6761), local (RFC 6762), onion (RFC 7686), home.arpa (RFC 8375), resolver.arpa
// (RFC 9462) and the zones of RFC 6303 and RFC 7793. RFC 6761 would have test be one of them; it is forwarded, since
// whoever uses it has an upstream that knows it.
func specialAt(name []byte, last, second int) special {
	switch string(name[last:]) {
	case "\x09localhost\x00":
		return special{loopback, last}
	case "\x05local\x00", "\x05onion\x00", "\x07invalid\x00":
		return special{absent, last}
	case "\x04arpa\x00":
		if second >= 0 {
			return arpa(name, second)
		}
	}
	return special{}
}

func arpa(name []byte, second int) special {
	switch string(name[second:]) {
	case "\x04home\x04arpa\x00":
		return below(second)
	case "\x08resolver\x04arpa\x00":
		s := below(second)
		if s.kind == apex || string(name[:second]) == "\x04_dns" {
			s.kind = empty // nobody but us could say how we can be reached, and not by this name
		}
		return s
	case "\x07in-addr\x04arpa\x00", "\x03ip6\x04arpa\x00":
		for off := 0; off < second; off += 1 + int(name[off]) {
			if _, ok := servedZones[string(name[off:])]; ok {
				return loopbackReverse(name, below(off))
			}
		}
	}
	return special{}
}

func below(at int) special {
	if at == 0 {
		return special{apex, 0}
	}
	return special{absent, at}
}

const (
	reverse127 = "\x011\x010\x010\x03127\x07in-addr\x04arpa\x00"
	reverse1   = "\x011" + "\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010" + "\x03ip6\x04arpa\x00"
)

func loopbackReverse(name []byte, s special) special {
	switch {
	case string(name) == reverse127 || string(name) == reverse1:
		s.kind = pointer
	case s.kind == absent && len(name) < len(reverse127) && reverse127[len(reverse127)-len(name):] == string(name):
		s.kind = empty
	}
	return s
}

// isDelegated reports whether the zone above has to say that it is not signed: only its own servers can prove that.
func isDelegated(name []byte) bool {
	_, ok := servedZones[string(name)]
	return ok || string(name) == "\x04home\x04arpa\x00"
}

// servedZones are the reverse zones that are served here, in wire form. It is never written to.
var servedZones = func() map[string]struct{} {
	names := []string{
		// RFC 6303, section 4
		"10.in-addr.arpa", "168.192.in-addr.arpa", "0.in-addr.arpa", "127.in-addr.arpa", "254.169.in-addr.arpa",
		"2.0.192.in-addr.arpa", "100.51.198.in-addr.arpa", "113.0.203.in-addr.arpa", "255.255.255.255.in-addr.arpa",
		"0." + strings.Repeat("0.", 31) + "ip6.arpa", "1." + strings.Repeat("0.", 31) + "ip6.arpa",
		"c.f.ip6.arpa", "d.f.ip6.arpa", "8.e.f.ip6.arpa", "9.e.f.ip6.arpa", "a.e.f.ip6.arpa", "b.e.f.ip6.arpa",
		"8.b.d.0.1.0.0.2.ip6.arpa",
	}
	for i := 16; i < 32; i++ {
		names = append(names, strconv.Itoa(i)+".172.in-addr.arpa")
	}
	for i := 64; i < 128; i++ { // RFC 7793
		names = append(names, strconv.Itoa(i)+".100.in-addr.arpa")
	}
	zones := make(map[string]struct{}, len(names))
	for _, name := range names {
		packed, _ := packName(name + ".")
		zones[packed] = struct{}{}
	}
	return zones
}()

// unpublished reports whether a name in wire form can exist only where somebody made it up: in a special-use domain, or
// under a last label that is in no public DNS and never will be. Elsewhere a name that has nothing here may have
// something there.
func unpublished(name string) bool {
	for _, domain := range []string{
		"\x04test\x00", "\x07example\x00", "\x08internal\x00", "\x03lan\x00", "\x04home\x00", "\x04corp\x00", "\x04mail\x00",
		"\x07private\x00", "\x08intranet\x00", "\x0blocaldomain\x00", "\x09localhost\x00",
	} {
		if strings.HasSuffix(name, domain) { // no label of a record holds a byte as low as the length in front
			return true
		}
	}
	return specialOf([]byte(name)).kind != notSpecial
}

// addSpecial takes in what is known of a special-use name.
func (a *Answer) addSpecial(s special, wire []byte, name string, qtype uint16) {
	header := func(rrtype uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: 3600}
	}
	asked := func(rrtype uint16) bool { return qtype == rrtype || qtype == dns.TypeANY }
	switch {
	case s.kind == loopback && asked(dns.TypeA):
		a.Records = append(a.Records, &dns.A{Hdr: header(dns.TypeA), A: net.IPv4(127, 0, 0, 1)})
		return
	case s.kind == loopback && qtype == dns.TypeAAAA:
		a.Records = append(a.Records, &dns.AAAA{Hdr: header(dns.TypeAAAA), AAAA: net.IPv6loopback})
		return
	case s.kind == pointer && asked(dns.TypePTR):
		a.Records = append(a.Records, &dns.PTR{Hdr: header(dns.TypePTR), Ptr: "localhost."})
		return
	case s.kind == apex && asked(dns.TypeSOA):
		a.Records = append(a.Records, SOA(name))
		return
	case s.kind == apex && qtype == dns.TypeNS:
		a.Records = append(a.Records, &dns.NS{Hdr: header(dns.TypeNS), Ns: "localhost."})
		return
	}
	a.NotExist = s.kind == absent
	if s.kind != notSpecial {
		a.Zone = unpackName(wire[s.apex:])
	}
}
