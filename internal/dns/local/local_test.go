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
		{"A", "A", "10.0.0.1", "x.test. 300 IN A 10.0.0.1"},
		{"AAAA in small letters", "aaaa", "fd00::1", "x.test. 300 IN AAAA fd00::1"},
		{"CNAME", "CNAME", "Y.test", "x.test. 300 IN CNAME y.test."},
		{"PTR", "PTR", "y.test", "x.test. 300 IN PTR y.test."},
		{"TXT with quotes", "TXT", `say "hi" \o/`, `x.test. 300 IN TXT "say \"hi\" \\o/"`},
		{"MX", "MX", "10 mail.test", "x.test. 300 IN MX 10 mail.test."},
		{"SRV", "SRV", "0 5 5060 sip.test", "x.test. 300 IN SRV 0 5 5060 sip.test."},
	} {
		t.Run(c.name, func(t *testing.T) {
			zone, unusable := local.New([]fleet.PolicyRecord{{Name: "X.test", Type: c.rrtype, Value: c.value}})
			answer, found := zone.Lookup("x.test.", dns.StringToType[strings.ToUpper(c.rrtype)])
			if len(unusable) != 0 || !found || len(answer.Records) != 1 {
				t.Fatalf("got %v, unusable %v; want one record", answer, unusable)
			}
			if got := strings.Join(strings.Fields(answer.Records[0].String()), " "); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestAliasesThatGoRoundEnd(t *testing.T) {
	zone, _ := local.New([]fleet.PolicyRecord{{Name: "a.test", Type: "CNAME", Value: "b.test"}, {Name: "b.test", Type: "CNAME", Value: "a.test"}})
	answer, found := zone.Lookup("a.test.", dns.TypeA)
	if !found || len(answer.Records) > 8 || answer.Chase != "" {
		t.Errorf("got %+v, want a bounded answer", answer)
	}
}

// Whatever a record says, it is fleet.ErrInvalid, or it can be looked up and packed and comes back with the same owner.
func FuzzCheck(f *testing.F) {
	f.Add("nas.test", "A", "10.0.0.1")
	f.Add("nas.test", "TXT", strings.Repeat(`\"`, 300))
	f.Add("nas.test", "SRV", "0 5 5060 sip.test")
	f.Add("a..b", "CNAME", ".")
	f.Fuzz(func(t *testing.T, name, rrtype, value string) {
		record := fleet.PolicyRecord{Name: name, Type: rrtype, Value: value}
		zone, unusable := local.New([]fleet.PolicyRecord{record})
		if err := local.Check(record); err != nil {
			if !errors.Is(err, fleet.ErrInvalid) || len(unusable) != 1 {
				t.Fatalf("got %v and unusable %v, want fleet.ErrInvalid and left out", err, unusable)
			}
			return
		}
		owner := strings.ToLower(dns.Fqdn(name))
		answer, found := zone.Lookup(owner, dns.StringToType[strings.ToUpper(rrtype)])
		if !found || len(answer.Records) == 0 {
			t.Fatalf("look up %q: got nothing", owner)
		}
		reply := &dns.Msg{Answer: answer.Records}
		wire, err := reply.Pack()
		if err != nil {
			if len(value) < 60_000 { // a text may be larger than a message
				t.Fatalf("pack %v: %v", answer.Records, err)
			}
			return
		}
		back := new(dns.Msg)
		if err := back.Unpack(wire); err != nil || len(back.Answer) == 0 {
			t.Fatalf("unpack: got %v %v", back.Answer, err)
		}
	})
}
