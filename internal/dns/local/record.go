package local

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/idna"

	"dnsfleet/internal/fleet"
)

const (
	defaultTTL = 5 * time.Minute
	maxTTL     = 7 * 24 * time.Hour
	// maxRecord is how large a record may be in wire form: it must fit into a message with its question.
	maxRecord = 60_000
)

// Check says why a record cannot be used, as fleet.ErrInvalid.
func Check(r fleet.PolicyRecord) error {
	_, err := parse(r)
	return err
}

func parse(r fleet.PolicyRecord) (dns.RR, error) {
	bad := func(what, value string) error {
		return fmt.Errorf("%w: record %s %s: %q is not %s", fleet.ErrInvalid, r.Name, r.Type, value, what)
	}
	name, ok := ownerName(r.Name)
	if !ok {
		return nil, bad("a domain name, or one with *. in front", r.Name)
	}
	ttl := time.Duration(r.TTL)
	if ttl == 0 {
		ttl = defaultTTL
	}
	if ttl < time.Second || ttl > maxTTL {
		return nil, bad("a TTL from 1s to 7d", time.Duration(r.TTL).String())
	}
	rrtype := dns.StringToType[strings.ToUpper(r.Type)]
	rr, want := parseValue(dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: uint32(ttl / time.Second)}, r.Value)
	switch {
	case want == "":
		return nil, bad("a type that is served: A, AAAA, CNAME, TXT, PTR, MX, SRV, HTTPS or SVCB", r.Type)
	case rr == nil:
		return nil, bad(want, r.Value)
	case dns.Len(rr) > maxRecord:
		return nil, bad("a value that fits into a message", r.Value[:40]+"…")
	}
	return rr, nil
}

// parseValue makes a record of its value; nil for a value that is not what is wanted. want is "" for a type that is not
// served.
func parseValue(header dns.RR_Header, value string) (rr dns.RR, want string) {
	fields := strings.Fields(value)
	switch header.Rrtype {
	case dns.TypeA:
		if addr, err := netip.ParseAddr(value); err == nil && addr.Is4() {
			rr = &dns.A{Hdr: header, A: net.IP(addr.AsSlice())}
		}
		return rr, "an IPv4 address"
	case dns.TypeAAAA:
		if addr, err := netip.ParseAddr(value); err == nil && addr.Is6() && addr.Zone() == "" {
			rr = &dns.AAAA{Hdr: header, AAAA: net.IP(addr.AsSlice())}
		}
		return rr, "an IPv6 address"
	case dns.TypeCNAME:
		if target, ok := hostName(value); ok {
			rr = &dns.CNAME{Hdr: header, Target: target}
		}
		return rr, "a domain name"
	case dns.TypePTR:
		if target, ok := hostName(value); ok {
			rr = &dns.PTR{Hdr: header, Ptr: target}
		}
		return rr, "a domain name"
	case dns.TypeTXT:
		return &dns.TXT{Hdr: header, Txt: splitText(value)}, "a text"
	case dns.TypeMX:
		if n, target, ok := numbersAndName(fields, 1); ok {
			rr = &dns.MX{Hdr: header, Preference: n[0], Mx: target}
		}
		return rr, "a preference and a name, such as 10 mail.example"
	case dns.TypeSRV:
		if n, target, ok := numbersAndName(fields, 3); ok {
			rr = &dns.SRV{Hdr: header, Priority: n[0], Weight: n[1], Port: n[2], Target: target}
		}
		return rr, "priority, weight, port and a name, such as 0 5 5060 sip.example"
	case dns.TypeHTTPS, dns.TypeSVCB:
		return parseService(header, value), "priority, target and parameters, such as 1 . alpn=h2 ipv4hint=192.0.2.1"
	}
	return nil, ""
}

// parseService reads the presentation form of RFC 9460, section 2.1; nil for what is none.
func parseService(header dns.RR_Header, value string) dns.RR {
	if strings.ContainsAny(value, "\r\n();") {
		return nil // a line of a zone file may hold more than the one record that is asked for
	}
	rr, err := dns.NewRR(". IN " + dns.TypeToString[header.Rrtype] + " " + value)
	if err != nil || rr == nil {
		return nil
	}
	var svcb *dns.SVCB
	switch rr := rr.(type) {
	case *dns.SVCB:
		svcb = rr
	case *dns.HTTPS:
		svcb = &rr.SVCB
	default:
		return nil
	}
	if svcb.Priority == 0 && len(svcb.Value) > 0 {
		return nil // an alias has no parameters of its own
	}
	if svcb.Target = strings.ToLower(svcb.Target); svcb.Target != "." {
		if _, ok := hostName(svcb.Target); !ok {
			return nil
		}
	}
	*rr.Header() = header
	buf := make([]byte, dns.Len(rr)+1)
	if _, err := dns.PackRR(rr, buf, 0, nil, false); err != nil {
		return nil
	}
	return rr
}

func numbersAndName(fields []string, count int) (numbers []uint16, name string, ok bool) {
	if len(fields) != count+1 {
		return nil, "", false
	}
	for _, f := range fields[:count] {
		n, err := strconv.ParseUint(f, 10, 16)
		if err != nil {
			return nil, "", false
		}
		numbers = append(numbers, uint16(n))
	}
	name, ok = hostName(fields[count])
	return numbers, name, ok
}

// ownerName is hostName for a name that may be a wildcard.
func ownerName(text string) (string, bool) {
	rest, isWildcard := strings.CutPrefix(text, "*.")
	name, ok := hostName(rest)
	if ok && isWildcard {
		name = "*." + name
	}
	return name, ok && len(name) <= 254
}

var toASCII = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false))

// hostName is the name in lower case with the final dot, international ones as they are in DNS. Escapes are not served.
func hostName(text string) (string, bool) {
	name := strings.ToLower(dns.Fqdn(text))
	if strings.ContainsFunc(name, func(r rune) bool { return r > '~' }) {
		ascii, err := toASCII.ToASCII(name)
		if err != nil {
			return "", false
		}
		name = dns.Fqdn(ascii)
	}
	_, valid := dns.IsDomainName(name)
	odd := strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`*\"();$'@`, r) })
	return name, valid && !odd && name != "." && len(name) <= 254
}

// splitText cuts a text into the strings of at most 255 bytes that a TXT record holds, escaped as miekg/dns has them.
func splitText(text string) []string {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	var parts []string
	for len(text) > 255 {
		parts, text = append(parts, escape.Replace(text[:255])), text[255:]
	}
	return append(parts, escape.Replace(text))
}
