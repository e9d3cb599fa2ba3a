package local_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/local"
	"dnsfleet/internal/fleet"
)

func TestEveryTypeIsServedAsItWasWritten(t *testing.T) {
	for _, c := range []struct{ name, rrtype, value, want string }{
		{"A", "A", "10.0.0.1", "A 10.0.0.1"},
		{"AAAA in small letters", "aaaa", "fd00::1", "AAAA fd00::1"},
		{"CNAME", "CNAME", "Y.example", "CNAME y.example."},
		{"CNAME of an international name", "CNAME", "Bücher.example.", "CNAME xn--bcher-kva.example."},
		{"PTR", "PTR", "y.example", "PTR y.example."},
		{"TXT with quotes", "TXT", `say "hi" \o/`, `TXT "say \"hi\" \\o/"`},
		{"a long TXT in pieces", "TXT", strings.Repeat("x", 256), `TXT "` + strings.Repeat("x", 255) + `" "x"`},
		{"MX", "MX", "10 mail.example", "MX 10 mail.example."},
		{"SRV", "SRV", "0 5 5060 sip.example", "SRV 0 5 5060 sip.example."},
		{"HTTPS", "HTTPS", "1 . alpn=h2,h3 ipv4hint=192.0.2.1", `HTTPS 1 . alpn="h2,h3" ipv4hint="192.0.2.1"`},
		{"HTTPS with quotes", "https", `16 Svc.example. port="8443" key667="hello"`, `HTTPS 16 svc.example. port="8443" key667="hello"`},
		{"HTTPS as an alias", "HTTPS", "0 pool.example", "HTTPS 0 pool.example."},
		{"SVCB", "SVCB", "1 dns.example alpn=dot", `SVCB 1 dns.example. alpn="dot"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			z, unusable := local.New([]fleet.PolicyRecord{{Name: "X.example", Type: c.rrtype, Value: c.value}})
			if len(unusable) != 0 {
				t.Fatalf("unusable: got %v, want none", unusable)
			}
			expect(t, z, question{"x.example " + strings.ToUpper(c.rrtype), "x.example. 300 IN " + c.want})
		})
	}
}

func TestARecordThatCannotBeReadIsRefused(t *testing.T) {
	for name, r := range map[string]fleet.PolicyRecord{
		"an IPv6 address of type A":             {Name: "x.lan", Type: "A", Value: "::1"},
		"an IPv4 address of type AAAA":          {Name: "x.lan", Type: "AAAA", Value: "10.0.0.1"},
		"an address with a zone":                {Name: "x.lan", Type: "AAAA", Value: "fe80::1%eth0"},
		"an address with a space":               {Name: "x.lan", Type: "A", Value: "10.0.0.1 "},
		"a type that is not served":             {Name: "x.lan", Type: "NS", Value: "y.lan"},
		"a type that does not exist":            {Name: "x.lan", Type: "AA", Value: "y.lan"},
		"an alias to nothing":                   {Name: "x.lan", Type: "CNAME", Value: "a..b"},
		"an alias to the root":                  {Name: "x.lan", Type: "CNAME", Value: "."},
		"an alias to a wildcard":                {Name: "x.lan", Type: "CNAME", Value: "*.lan"},
		"a wildcard for everything":             {Name: "*", Type: "A", Value: "10.0.0.1"},
		"a wildcard below the root":             {Name: "*.", Type: "A", Value: "10.0.0.1"},
		"an asterisk in the middle":             {Name: "a.*.lan", Type: "A", Value: "10.0.0.1"},
		"an asterisk as a part of a label":      {Name: "a*.lan", Type: "A", Value: "10.0.0.1"},
		"two asterisks":                         {Name: "*.*.lan", Type: "A", Value: "10.0.0.1"},
		"a name with an escape":                 {Name: `a\.b.lan`, Type: "A", Value: "10.0.0.1"},
		"a label of 64 characters":              {Name: strings.Repeat("x", 64) + ".lan", Type: "A", Value: "10.0.0.1"},
		"a name that is too long":               {Name: strings.Repeat("x.", 127) + "lan", Type: "A", Value: "10.0.0.1"},
		"a wildcard that is too long":           {Name: "*." + strings.Repeat("x.", 125) + "xx", Type: "A", Value: "10.0.0.1"},
		"an MX without a preference":            {Name: "x.lan", Type: "MX", Value: "mail.lan"},
		"an MX with a preference too large":     {Name: "x.lan", Type: "MX", Value: "65536 mail.lan"},
		"an SRV without a port":                 {Name: "x.lan", Type: "SRV", Value: "0 5 sip.lan"},
		"an HTTPS without a target":             {Name: "x.lan", Type: "HTTPS", Value: "1"},
		"an HTTPS with a key nobody knows":      {Name: "x.lan", Type: "HTTPS", Value: "1 . colour=red"},
		"an HTTPS with a key twice":             {Name: "x.lan", Type: "HTTPS", Value: "1 . port=1 port=2"},
		"an HTTPS alias with parameters":        {Name: "x.lan", Type: "HTTPS", Value: "0 y.lan port=1"},
		"an HTTPS with a second line":           {Name: "x.lan", Type: "HTTPS", Value: "1 .\ny.lan. A 10.0.0.1"},
		"an HTTPS with a comment":               {Name: "x.lan", Type: "HTTPS", Value: "1 . ; all of it"},
		"an HTTPS over lines":                   {Name: "x.lan", Type: "HTTPS", Value: "( 1 . )"},
		"a TTL below a second":                  {Name: "x.lan", Type: "A", Value: "10.0.0.1", TTL: 1},
		"a TTL above a week":                    {Name: "x.lan", Type: "A", Value: "10.0.0.1", TTL: 8 * 24 * 3600e9},
		"a text that no message can hold":       {Name: "x.lan", Type: "TXT", Value: strings.Repeat("x", 65_000)},
		"an HTTPS that no message can hold":     {Name: "x.lan", Type: "HTTPS", Value: "1 . key9=" + strings.Repeat("x", 65_000)},
		"an international name that is not one": {Name: "\u0378.lan", Type: "A", Value: "10.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := local.Check(r); !errors.Is(err, fleet.ErrInvalid) || strings.Count(err.Error(), "\n") > 0 {
				t.Errorf("got %v, want fleet.ErrInvalid in one line", err)
			}
			good := fleet.PolicyRecord{Name: "good.lan", Type: "A", Value: "10.0.0.1"}
			z, unusable := local.New([]fleet.PolicyRecord{good, r, good})
			if len(unusable) != 1 || unusable[0] != 1 {
				t.Errorf("unusable: got %v, want [1]", unusable)
			}
			expect(t, z, question{"good.lan A", "good.lan. 300 IN A 10.0.0.1"})
		})
	}
}

// Whatever a record says, it is fleet.ErrInvalid, or it can be looked up and packed and comes back with the same owner.
func FuzzCheck(f *testing.F) {
	f.Add("nas.test", "A", "10.0.0.1")
	f.Add("*.test", "TXT", strings.Repeat(`\"`, 300))
	f.Add("nas.test", "SRV", "0 5 5060 sip.test")
	f.Add("nas.test", "HTTPS", "1 . alpn=h2 ipv4hint=192.0.2.1")
	f.Add("_dns.test", "SVCB", `1 dns.test key65280="\001" mandatory=alpn ech=AAAA`)
	f.Add("a..b", "CNAME", ".")
	f.Add("bücher.test", "PTR", "bücher.test")
	f.Fuzz(func(t *testing.T, name, rrtype, value string) {
		record := fleet.PolicyRecord{Name: name, Type: rrtype, Value: value}
		z, unusable := local.New([]fleet.PolicyRecord{record})
		if err := local.Check(record); err != nil {
			if !errors.Is(err, fleet.ErrInvalid) || len(unusable) != 1 {
				t.Fatalf("got %v and unusable %v, want fleet.ErrInvalid and left out", err, unusable)
			}
			return
		}
		owner := strings.ToLower(dns.Fqdn(name))
		if strings.ContainsFunc(owner, func(r rune) bool { return r > '~' }) {
			return // it has another name in DNS
		}
		answer, found := z.Lookup(owner, dns.StringToType[strings.ToUpper(rrtype)])
		if !found || len(answer.Records) == 0 {
			t.Fatalf("look up %q: got nothing", owner)
		}
		reply := &dns.Msg{Question: []dns.Question{{Name: owner, Qtype: dns.TypeANY, Qclass: dns.ClassINET}}, Answer: answer.Records}
		wire, err := reply.Pack()
		if err != nil {
			t.Fatalf("pack %v: %v", answer.Records, err)
		}
		back := new(dns.Msg)
		if err := back.Unpack(wire); err != nil || len(back.Answer) == 0 || back.Answer[0].Header().Name != owner {
			t.Fatalf("unpack: got %v %v, want owner %q", back.Answer, err, owner)
		}
	})
}
