package doh_test

import (
	"testing"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/listen/doh"
)

func reply(t testing.TB, rcode int, answer, authority []string) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion("www.example.", dns.TypeA)
	m.Response, m.Rcode, m.Compress = true, rcode, true
	m.SetEdns0(1232, true) // its TTL is none
	for _, section := range []struct {
		to    *[]dns.RR
		texts []string
	}{{&m.Answer, answer}, {&m.Ns, authority}} {
		for _, text := range section.texts {
			rr, err := dns.NewRR(text)
			if err != nil {
				t.Fatal(err)
			}
			*section.to = append(*section.to, rr)
		}
	}
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func TestFreshness(t *testing.T) {
	const soa = "example. 900 IN SOA ns.example. host.example. 1 2 3 4 "
	a := []string{"www.example. 300 IN CNAME a.example.", "a.example. 60 IN A 192.0.2.1", "a.example. 3600 IN A 192.0.2.2"}
	cut := reply(t, dns.RcodeSuccess, a, nil)
	truncated := reply(t, dns.RcodeSuccess, a, nil)
	truncated[2] |= 2
	for _, c := range []struct {
		name    string
		message []byte
		want    int
	}{
		{"the lowest TTL of the answer counts", reply(t, dns.RcodeSuccess, a, nil), 60},
		{"that of the authority does not", reply(t, dns.RcodeSuccess, a, []string{"example. 5 IN NS ns.example."}), 60},
		{"no such name keeps for the minimum of the zone", reply(t, dns.RcodeNameError, nil, []string{soa + "120"}), 120},
		{"but not longer than its SOA", reply(t, dns.RcodeNameError, nil, []string{soa + "86400"}), 900},
		{"no data is the same", reply(t, dns.RcodeSuccess, nil, []string{soa + "30"}), 30},
		{"no data without SOA does not keep", reply(t, dns.RcodeSuccess, nil, []string{"example. 5 IN NS ns.example."}), 0},
		{"a failure does not keep", reply(t, dns.RcodeServerFailure, a, nil), 0},
		{"a refusal does not keep", reply(t, dns.RcodeRefused, nil, []string{soa + "30"}), 0},
		{"a TTL with the highest bit is none", reply(t, dns.RcodeSuccess, []string{"www.example. 2147483648 IN A 192.0.2.1"}, nil), 0},
		{"a truncated answer does not keep", truncated, 0},
		{"an answer that is cut does not keep", cut[:len(cut)-20], 0},
		{"nothing does not keep", nil, 0},
		{"a name that leaves the message does not keep", append(append([]byte{0, 1, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0}, 63), "abc"...), 0},
	} {
		if got := doh.Freshness(c.message); got != time.Duration(c.want)*time.Second {
			t.Errorf("%s: got %v, want %d s", c.name, got, c.want)
		}
	}
}

// Freshness never panics, and never says more than what the answer holds by another parser.
func FuzzFreshness(f *testing.F) {
	f.Add(reply(f, dns.RcodeSuccess, []string{"www.example. 300 IN A 192.0.2.1"}, nil))
	f.Add(reply(f, dns.RcodeNameError, nil, []string{"example. 900 IN SOA ns.example. host.example. 1 2 3 4 120"}))
	f.Add([]byte{0, 1, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0xC0})
	f.Fuzz(func(t *testing.T, message []byte) {
		got := doh.Freshness(message)
		if got < 0 || got > (1<<31-1)*time.Second {
			t.Fatalf("got %v, want what a TTL can be", got)
		}
		m := new(dns.Msg)
		if m.Unpack(message) != nil || got == 0 {
			return
		}
		for _, rr := range m.Answer {
			if got > time.Duration(rr.Header().Ttl)*time.Second {
				t.Errorf("got %v, want at most %d s", got, rr.Header().Ttl)
			}
		}
		if len(m.Answer) == 0 && len(m.Ns) == 0 {
			t.Errorf("got %v without a record", got)
		}
	})
}
