package dns_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	engine "dnsfleet/internal/dns"
	"dnsfleet/internal/fleet"
)

func TestADomainIsForwardedToUpstreamsOfItsOwn(t *testing.T) {
	everybody := serveUpstream(t, zoneHandler(t, "www.test. 300 IN A 192.0.2.1", "pc.corp.test. 300 IN A 192.0.2.2"))
	corp := serveUpstream(t, zoneHandler(t, "pc.corp.test. 300 IN A 10.0.0.1", "5.0.0.10.in-addr.arpa. 300 IN PTR pc.corp.test."))
	p := policyOf(everybody.url())
	b := start(t, p, nil)
	expect := func(name string, qtype uint16, want string) {
		t.Helper()
		if got := answers(b.ask(t, "udp", query(name, qtype))); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	expect("pc.corp.test", dns.TypeA, "pc.corp.test. 300 IN A 192.0.2.2")
	own := []fleet.PolicyUpstream{{Address: corp.url()}, {Address: "udp://" + b.addr}, {Address: "quic://dns.example"}}
	p.Conditional = []fleet.PolicyConditional{{Domain: "Corp.Test.", Upstreams: own}, {Domain: "0.0.10.in-addr.arpa", Upstreams: own[:1]}}
	if got, want := b.apply(t, p, 2), []string{"conditional[0].upstreams[1]", "conditional[0].upstreams[2]"}; !slices.Equal(got, want) {
		t.Errorf("unapplied: got %v, want %v", got, want)
	}
	expect("pc.corp.test", dns.TypeA, "pc.corp.test. 300 IN A 10.0.0.1") // not what was cached of before
	expect("5.0.0.10.in-addr.arpa", dns.TypePTR, "5.0.0.10.in-addr.arpa. 300 IN PTR pc.corp.test.")
	expect("www.test", dns.TypeA, "www.test. 300 IN A 192.0.2.1")
	if states := b.Upstreams(); len(states) != 3 || states[1].Domain != "corp.test" {
		t.Errorf("upstreams: got %+v, want each with its domain", states)
	}
	p.Conditional[0].Upstreams = []fleet.PolicyUpstream{{Address: corp.url()}, {Address: "gopher://x"}}
	if err := engine.CheckPolicy(p); !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), "conditional[0].upstreams[1]") {
		t.Errorf("check: got %v, want ErrInvalid that names conditional[0].upstreams[1]", err)
	}
}

func TestAQuestionThatFailedIsNotAskedAgainAtOnce(t *testing.T) {
	up := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeRefused)) })
	b := start(t, policyOf(up.url()), nil)
	for i, want := range []struct {
		ede     uint16
		outcome fleet.Outcome
		asked   int64
	}{
		{dns.ExtendedErrorCodeNetworkError, fleet.UpstreamError, 1},
		{dns.ExtendedErrorCodeCachedError, fleet.Servfail, 1},
		{dns.ExtendedErrorCodeNetworkError, fleet.UpstreamError, 2},
	} {
		reply := b.ask(t, "udp", queryEDNS("www.test", dns.TypeA, 1232, false))
		events := b.events.all()
		if got := events[len(events)-1]; reply.Rcode != dns.RcodeServerFailure || edeOf(reply) != int(want.ede) || got.Outcome != want.outcome || up.asked.Load() != want.asked {
			t.Errorf("query %d: got %s, outcome %s, upstream asked %d times; want SERVFAIL with EDE %d, %s, %d", i, describe(reply), got.Outcome, up.asked.Load(), want.ede, want.outcome, want.asked)
		}
		if i == 1 {
			b.clock.advance(2 * time.Second)
		}
	}
}
