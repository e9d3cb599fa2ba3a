// Package local answers from the policy's own records and for the special-use names that must not leave the machine.
package local

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/fleet"
)

const (
	defaultTTL = 5 * time.Minute
	// NegativeTTL is how long clients may keep that a local or blocked name has nothing to give.
	NegativeTTL = 30
	maxChain    = 8
	maxTTL      = 7 * 24 * time.Hour
)

// Zone is the local records of one policy. It is immutable; the zero Zone has only the special-use names.
type Zone struct {
	names map[string][]dns.RR // by lower-case name with the final dot
}

// Answer is what the zone knows of a question.
type Answer struct {
	Records []dns.RR // the caller must not change them
	// Chase is a name outside the zone that an alias leads to and that is yet to be resolved; "" for none.
	Chase string
	// NotExist says that there is no such name.
	NotExist bool
}

// New makes a Zone; what cannot be read is left out, and unusable are the indexes of those.
func New(records []fleet.PolicyRecord) (z *Zone, unusable []int) {
	z = &Zone{names: map[string][]dns.RR{}}
	for i, r := range records {
		rr, err := parse(r)
		if err != nil {
			unusable = append(unusable, i)
			continue
		}
		name := rr.Header().Name
		z.names[name] = append(z.names[name], rr)
	}
	return z, unusable
}

// Check says why a record cannot be used, as fleet.ErrInvalid.
func Check(r fleet.PolicyRecord) error {
	_, err := parse(r)
	return err
}

// Lookup answers for a name in lower case with the final dot. found is false for a name that is not local.
func (z *Zone) Lookup(name string, qtype uint16) (a Answer, found bool) {
	for range maxChain {
		records := z.names[name]
		if len(records) == 0 {
			if len(a.Records) > 0 {
				a.Chase = name
				return a, true
			}
			return special(name, qtype)
		}
		var alias *dns.CNAME
		matched := false
		for _, rr := range records {
			cname, isAlias := rr.(*dns.CNAME)
			switch {
			case rr.Header().Rrtype == qtype || qtype == dns.TypeANY:
				a.Records = append(a.Records, rr)
				matched = true
			case isAlias:
				alias = cname
			}
		}
		if matched || alias == nil {
			return a, true
		}
		a.Records = append(a.Records, alias)
		name = strings.ToLower(alias.Target)
	}
	return a, true // a loop of aliases: what was gathered is all there is
}

// SOA is the authority record of a negative answer for the name, which tells clients how long to keep it.
func SOA(name string) dns.RR {
	return &dns.SOA{
		Hdr:  dns.RR_Header{Name: name, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: NegativeTTL},
		Ns:   "localhost.",
		Mbox: "nobody.invalid.", Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: NegativeTTL,
	}
}

func parse(r fleet.PolicyRecord) (dns.RR, error) {
	bad := func(what, value string) error {
		return fmt.Errorf("%w: record %s %s: %q is not %s", fleet.ErrInvalid, r.Name, r.Type, value, what)
	}
	name, ok := hostName(r.Name)
	if !ok {
		return nil, bad("a domain name", r.Name)
	}
	ttl := time.Duration(r.TTL)
	if ttl == 0 {
		ttl = defaultTTL
	}
	if ttl < time.Second || ttl > maxTTL {
		return nil, bad("a TTL from 1s to 7d", time.Duration(r.TTL).String())
	}
	header := func(rrtype uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: uint32(ttl / time.Second)}
	}
	fields := strings.Fields(r.Value)
	switch strings.ToUpper(r.Type) {
	case "A":
		addr, err := netip.ParseAddr(r.Value)
		if err != nil || !addr.Is4() {
			return nil, bad("an IPv4 address", r.Value)
		}
		return &dns.A{Hdr: header(dns.TypeA), A: net.IP(addr.AsSlice())}, nil
	case "AAAA":
		addr, err := netip.ParseAddr(r.Value)
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return nil, bad("an IPv6 address", r.Value)
		}
		return &dns.AAAA{Hdr: header(dns.TypeAAAA), AAAA: net.IP(addr.AsSlice())}, nil
	case "CNAME", "PTR":
		target, ok := hostName(r.Value)
		if !ok {
			return nil, bad("a domain name", r.Value)
		}
		if strings.EqualFold(r.Type, "PTR") {
			return &dns.PTR{Hdr: header(dns.TypePTR), Ptr: target}, nil
		}
		return &dns.CNAME{Hdr: header(dns.TypeCNAME), Target: target}, nil
	case "TXT":
		return &dns.TXT{Hdr: header(dns.TypeTXT), Txt: splitText(r.Value)}, nil
	case "MX":
		numbers, target, ok := numbersAndName(fields, 1)
		if !ok {
			return nil, bad("a preference and a name, such as 10 mail.example", r.Value)
		}
		return &dns.MX{Hdr: header(dns.TypeMX), Preference: numbers[0], Mx: target}, nil
	case "SRV":
		numbers, target, ok := numbersAndName(fields, 3)
		if !ok {
			return nil, bad("priority, weight, port and a name, such as 0 5 5060 sip.example", r.Value)
		}
		return &dns.SRV{Hdr: header(dns.TypeSRV), Priority: numbers[0], Weight: numbers[1], Port: numbers[2], Target: target}, nil
	}
	return nil, bad("a type that is served: A, AAAA, CNAME, TXT, PTR, MX or SRV", r.Type)
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

// hostName is the name in lower case with the final dot. Wildcards and escapes are not served.
func hostName(text string) (string, bool) {
	name := strings.ToLower(dns.Fqdn(text))
	_, valid := dns.IsDomainName(name)
	if !valid || text == "" || len(name) > 254 || strings.ContainsAny(name, "*\\ \t\r\n\"();$") {
		return "", false
	}
	return name, true
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
