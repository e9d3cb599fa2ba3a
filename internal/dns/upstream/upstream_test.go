package upstream_test

import (
	"errors"
	"testing"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/upstream"
	"dnsfleet/internal/fleet"
)

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		address string
		want    error
	}{
		{"9.9.9.9", nil},
		{"9.9.9.9:5353", nil},
		{"udp://9.9.9.9:53", nil},
		{"tcp://9.9.9.9", nil},
		{"udp://[2620:fe::fe]:53", nil},
		{"2620:fe::fe", nil},
		{"[2620:fe::fe]", nil},
		{"dns.quad9.net", nil},
		{"dns.quad9.net:53", nil},
		{"tls://dns.quad9.net", upstream.ErrUnsupported},
		{"https://dns.quad9.net/dns-query", upstream.ErrUnsupported},
		{"quic://dns.example", upstream.ErrUnsupported},
		{"", fleet.ErrInvalid},
		{"udp://", fleet.ErrInvalid},
		{"https://", fleet.ErrInvalid},
		{"udp://host:0", fleet.ErrInvalid},
		{"udp://host:65536", fleet.ErrInvalid},
		{"udp://host:port", fleet.ErrInvalid},
		{"udp://a b", fleet.ErrInvalid},
		{"udp://host/path", fleet.ErrInvalid},
		{"gopher://host", fleet.ErrInvalid},
	} {
		t.Run(c.address, func(t *testing.T) {
			err := upstream.Check(fleet.PolicyUpstream{Address: c.address})
			if !errors.Is(err, c.want) || errors.Is(err, upstream.ErrUnsupported) != errors.Is(c.want, upstream.ErrUnsupported) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestOwn(t *testing.T) {
	for _, c := range []struct {
		name, address, listener string
		want                    bool
	}{
		{"the listener itself", "udp://127.0.0.1:53", "127.0.0.1:53", true},
		{"loopback of a listener on every address", "127.0.0.1", ":53", true},
		{"loopback of a listener on every IPv6 address", "[::1]:53", "[::]:53", true},
		{"another port", "127.0.0.1:5353", "127.0.0.1:53", false},
		{"another address", "127.0.0.2", "127.0.0.1:53", false},
		{"a name", "localhost", "127.0.0.1:53", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := upstream.Own(fleet.PolicyUpstream{Address: c.address}, []string{c.listener}); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// Whatever an upstream sends, a reply is taken only with the query's id and question, as a response.
func FuzzAnswers(f *testing.F) {
	query := upstream.NewQuery(dns.Question{Name: "www.example.", Qtype: dns.TypeA, Qclass: dns.ClassINET}, false, false)
	query.Id = 0x1234
	good := new(dns.Msg).SetReply(query)
	wire, _ := good.Pack()
	f.Add(wire)
	f.Add([]byte{0x12, 0x34, 0x80, 5, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		reply := new(dns.Msg)
		if err := reply.Unpack(raw); err != nil && !reply.Truncated {
			return
		}
		if !upstream.Answers(reply, query) {
			return
		}
		if raw[0] != 0x12 || raw[1] != 0x34 || raw[2]&0x80 == 0 {
			t.Fatalf("took % x, which has another id or is a query", raw)
		}
		if len(reply.Question) == 0 && (reply.Rcode == dns.RcodeSuccess || len(reply.Answer) > 0) {
			t.Fatalf("took % x, an answer without its question", raw)
		}
	})
}
