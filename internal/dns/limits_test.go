package dns_test

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	engine "dnsfleet/internal/dns"
	"dnsfleet/internal/dns/listen"
	"dnsfleet/internal/fleet"
)

func TestAPublicNameDoesNotLeadInside(t *testing.T) {
	t.Parallel()
	const passes, blocked = false, true
	cases := []struct {
		name   string
		record string // after name, TTL and class
		want   bool
	}{
		{"a private address", "A 192.168.1.1", blocked},
		{"another private address", "A 10.0.0.1", blocked},
		{"one of a provider's network", "A 100.64.0.1", blocked},
		{"this machine", "A 127.0.0.1", blocked},
		{"a link-local address", "A 169.254.169.254", blocked},
		{"a unique local address", "AAAA fd00::1", blocked},
		{"a link-local address of IPv6", "AAAA fe80::1", blocked},
		{"this machine by IPv6", "AAAA ::1", blocked},
		{"a private address within one of IPv6", "AAAA ::ffff:192.168.1.1", blocked},
		{"a private address behind a translator", "AAAA 64:ff9b::c0a8:101", blocked},
		{"an address of documentation", "A 192.0.2.1", passes},
		{"another address of documentation", "A 198.51.100.7", passes},
		{"a third one", "A 203.0.113.9", passes},
		{"an address of documentation of IPv6", "AAAA 2001:db8::1", passes},
		{"an address outside", "A 9.9.9.9", passes},
		{"the address of nothing, by which upstreams block", "A 0.0.0.0", passes},
	}
	zone := map[string]dns.RR{}
	for i, c := range cases {
		name := fmt.Sprintf("n%d.test.", i)
		zone[name] = rr(t, name+" 300 IN "+c.record)
	}
	for _, name := range []string{"app.plex.direct.", "good.test.", "nas.lan.", "host.corp.example."} {
		zone[name] = rr(t, name+" 300 IN A 192.168.1.1")
	}
	up := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if rr := zone[q.Question[0].Name]; rr != nil {
			m.Answer = []dns.RR{rr}
		}
		_ = w.WriteMsg(m)
	})
	policy := policyOf(up.url())
	policy.Rebinding.Allow = []string{"plex.direct"}
	policy.Allow = []string{"good.test"}
	policy.Conditional = []fleet.PolicyConditional{{Domain: "corp.example", Upstreams: []fleet.PolicyUpstream{{Address: up.url()}}}}
	eachWay(t, func(t *testing.T, form func(*dns.Msg) *dns.Msg) {
		b := start(t, policy, nil)
		ask := func(name string, qtype uint16) *dns.Msg {
			return b.ask(t, "udp", form(queryEDNS(name, qtype, 1232, false)))
		}
		for i, c := range cases {
			name := fmt.Sprintf("n%d.test.", i)
			for _, when := range []string{"first", "cached", "cached and known"} {
				reply := ask(name, zone[name].Header().Rrtype)
				if got := edeOf(reply) == 15 && len(reply.Answer) == 0; got != c.want || got == (len(reply.Answer) == 1) {
					t.Errorf("%s (%s), %s: got %s, want blocked %v", c.name, c.record, when, describe(reply), c.want)
				}
				if why := options(reply)[dns.EDNS0EDE]; c.want && !strings.Contains(why, "rebinding") {
					t.Errorf("%s: got reason %q, want that it is for rebinding", c.name, why)
				}
			}
		}
		for _, name := range []string{"app.plex.direct.", "good.test.", "nas.lan.", "host.corp.example."} {
			for range 2 {
				if reply := ask(name, dns.TypeA); len(reply.Answer) != 1 {
					t.Errorf("%s may lead inside: got %s, want its address", name, describe(reply))
				}
			}
		}
		off := policy
		off.Rebinding = fleet.PolicyRebinding{Protect: new(false)}
		b.apply(t, off, 2)
		if reply := ask("n0.test", dns.TypeA); len(reply.Answer) != 1 {
			t.Errorf("without protection: got %s, want its address", describe(reply))
		}
		b.apply(t, policy, 3)
		if reply := ask("n0.test", dns.TypeA); len(reply.Answer) != 0 {
			t.Errorf("with protection again: got %s, want none of the address that is cached", describe(reply))
		}
	})
}

func TestANYIsAnsweredWithNextToNothing(t *testing.T) {
	t.Parallel()
	up := serveUpstream(t, zoneHandler(t, "www.test. 300 IN A 192.0.2.1"))
	policy := policyOf(up.url())
	policy.Deny = []string{"denied.test"}
	e := startEverywhere(t, policy, nil)
	e.exchange(t, "udp", query("www.test", dns.TypeA))
	for _, how := range transports {
		for _, q := range []*dns.Msg{query("WWW.test", dns.TypeANY), queryEDNS("other.test", dns.TypeANY, 4096, true)} {
			reply, size := e.sized(t, how, q)
			want := q.Question[0].Name + ` 3600 IN HINFO "RFC8482" ""`
			if answers(reply) != want || size > 120 {
				t.Errorf("%s over %s: got %s in %d bytes, want %s", q.Question[0].Name, how, describe(reply), size, want)
			}
		}
		if reply := e.exchange(t, how, query("denied.test", dns.TypeANY)); reply.Rcode != dns.RcodeNameError {
			t.Errorf("a blocked name over %s: got %s, want NXDOMAIN", how, describe(reply))
		}
	}
	if got := up.asked.Load(); got != 1 {
		t.Errorf("the upstream was asked %d times, want only for the address", got)
	}
}

// limited is an engine that lets a client ask ten times at once, and one who asks it.
func limited(t *testing.T, slip int) (b *bench, send func(client netip.Addr, protocol listen.Protocol, q *dns.Msg) *dns.Msg) {
	t.Helper()
	frozen := time.Now()
	policy := policyOf()
	policy.Deny = []string{"denied.test"}
	policy.RateLimit = fleet.PolicyRateLimit{QueriesPerSecond: 5, Burst: 10, Slip: &slip}
	ahead := new(clock)
	b = start(t, policy, func(o *engine.Options) {
		o.AllowClients = []netip.Prefix{prefix("0.0.0.0/0"), prefix("::/0")}
		o.Now = func() time.Time { return frozen.Add(time.Duration(ahead.ahead.Load())) }
	})
	b.clock = ahead
	reader := b.NewReader()
	return b, func(client netip.Addr, protocol listen.Protocol, q *dns.Msg) *dns.Msg {
		t.Helper()
		raw := packed(t, q)
		out := reader.Handle(&listen.Message{Raw: raw, Client: client, Protocol: protocol, Lane: 1, Arrived: time.Now()}, make([]byte, 0, 4096))
		reader.BatchDone()
		if out == nil {
			return nil
		}
		reply := new(dns.Msg)
		if err := reply.Unpack(out); err != nil {
			t.Fatal(err)
		}
		if reply.Truncated && (len(out) > len(raw) || len(reply.Answer)+len(reply.Ns) != 0) {
			t.Errorf("got %d bytes for %d, %s; want no more than were sent, and no records", len(out), len(raw), describe(reply))
		}
		return reply
	}
}

func TestAClientThatAsksTooMuchIsHeldBack(t *testing.T) {
	t.Parallel()
	neighbour := netip.MustParseAddr("192.168.1.21")
	for name, c := range map[string]struct {
		slip    int
		answers string // to 16 queries at once: + is an answer, t says to come over TCP, - is none
	}{
		"every second is told to come over TCP": {2, "++++++++++-t-t-t"},
		"every one is told to come over TCP":    {1, "++++++++++tttttt"},
		"none is told anything":                 {0, "++++++++++------"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, q := range []*dns.Msg{query("localhost", dns.TypeA), queryEDNS("denied.test", dns.TypeA, 1232, true)} {
				b, send := limited(t, c.slip)
				burst := func(client netip.Addr, protocol listen.Protocol, n int) (got string) {
					for range n {
						switch reply := send(client, protocol, q); {
						case reply == nil:
							got += "-"
						case reply.Truncated:
							got += "t"
						default:
							got += "+"
						}
					}
					return got
				}
				if got := burst(lan, listen.UDP, 16); got != c.answers {
					t.Errorf("16 at once: got %s, want %s", got, c.answers)
				}
				if got := burst(neighbour, listen.UDP, 3); got != "+++" {
					t.Errorf("a neighbour: got %s, want answers", got)
				}
				if got := burst(lan, listen.TCP, 12); got != "++++++++++--" {
					t.Errorf("over TCP, where nobody else can have asked in its name: got %s, want ten answers, then none", got)
				}
				if got := burst(netip.MustParseAddr("127.0.0.1"), listen.UDP, 40); got != strings.Repeat("+", 40) {
					t.Errorf("loopback: got %s, want answers", got)
				}
				b.clock.advance(time.Second)
				if got := burst(lan, listen.UDP, 5); got != "+++++" {
					t.Errorf("a second later: got %s, want five answers", got)
				}
				if got := b.events.outcomes()[fleet.RateLimited]; got != 8 {
					t.Errorf("rate_limited: got %d, want 8", got)
				}
			}
		})
	}
}

func TestAValidCookieExemptsFromTheRateLimit(t *testing.T) {
	t.Parallel()
	_, send := limited(t, 0)
	asking := func(cookie string) *dns.Msg { return withCookie(query("localhost", dns.TypeA), cookie) }
	server := cookieOf(send(lan, listen.UDP, asking(clientCookie)))
	for range 20 {
		send(lan, listen.UDP, query("localhost", dns.TypeA))
	}
	forged, err := hex.DecodeString(server)
	if err != nil || len(forged) != 24 {
		t.Fatalf("cookie: got %q, %v", server, err)
	}
	forged[23] ^= 1
	for name, c := range map[string]struct {
		client netip.Addr
		cookie string
		want   bool
	}{
		"its own cookie":                    {lan, server, true},
		"no more than the client's part":    {lan, clientCookie, false},
		"a forged cookie":                   {lan, hex.EncodeToString(forged), false},
		"the cookie with another's address": {netip.MustParseAddr("192.168.1.99"), server, false},
	} {
		if c.client != lan {
			for range 20 {
				send(c.client, listen.UDP, query("localhost", dns.TypeA))
			}
		}
		if reply := send(c.client, listen.UDP, asking(c.cookie)); (reply != nil) != c.want {
			t.Errorf("%s: got answered %v, want %v", name, reply != nil, c.want)
		}
	}
}

func TestNobodyIsLimitedUnlessThePolicySaysSo(t *testing.T) {
	t.Parallel()
	b := start(t, policyOf(), nil)
	reader := b.NewReader()
	raw := packed(t, query("localhost", dns.TypeA))
	for i := range 5000 {
		if reader.Handle(&listen.Message{Raw: raw, Client: lan, Protocol: listen.UDP, Lane: 1, Arrived: time.Now()}, make([]byte, 0, 512)) == nil {
			t.Fatalf("query %d: got no answer", i)
		}
	}
}

// A flood of names that an upstream is silent about takes no more places than there are: the rest is dropped and counted,
// what needs no upstream is answered meanwhile, and afterwards everything is as before.
func TestAFloodIsShedAndCounted(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	good := serveUpstream(t, zoneHandler(t, "www.good.test. 300 IN A 192.0.2.1"))
	policy := policyOf("udp://" + silent.LocalAddr().String())
	policy.Conditional = []fleet.PolicyConditional{{Domain: "good.test", Upstreams: []fleet.PolicyUpstream{{Address: good.url()}}}}
	policy.Deny = []string{"denied.test"}
	const places, flood = 100, 20_000
	e := startEverywhere(t, policy, func(o *engine.Options) { o.MaxInFlight = places })
	e.exchange(t, "udp", query("www.good.test", dns.TypeA))
	before := measure()
	mark := len(e.events.all())
	counted := func(outcome fleet.Outcome) (n int) {
		for _, event := range e.events.all()[mark:] {
			if event.Outcome == outcome {
				n++
			}
		}
		return n
	}

	conn, err := net.Dial("udp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	slowest := time.Duration(0)
	for i := range flood {
		q := query(fmt.Sprintf("n%d.test", i), dns.TypeA)
		if i%3 == 1 {
			odd(q)
		}
		_, _ = conn.Write(packed(t, q))
		if i%200 == 0 { // stay behind the reader: the kernel's queue is not what is tested
			begun := time.Now()
			for name, want := range map[string]int{"www.good.test": 1, "denied.test": 0, "localhost": 1} {
				if reply := e.exchange(t, "udp", query(name, dns.TypeA)); len(reply.Answer) != want {
					t.Errorf("%s meanwhile: got %s, want %d records", name, describe(reply), want)
				}
			}
			slowest = max(slowest, time.Since(begun))
		}
	}
	if reply := e.exchange(t, "tcp", query("www.good.test", dns.TypeA)); len(reply.Answer) != 1 {
		t.Errorf("over TCP meanwhile: got %s, want the cached answer", describe(reply))
	}
	if slowest > time.Second {
		t.Errorf("three answers that need no upstream took %v, want no time", slowest)
	}
	if after := measure(); after.heap > before.heap+20<<20 || after.goroutines > before.goroutines+3*places {
		t.Errorf("during the flood: got %d KiB and %d goroutines more, want less than 20 MiB and %d", (int64(after.heap)-int64(before.heap))>>10, after.goroutines-before.goroutines, 3*places)
	}
	eventually(t, "all that was sent is counted once", func() bool {
		return counted(fleet.Dropped)+counted(fleet.UpstreamError)+counted(fleet.Servfail) == flood
	})
	if got := counted(fleet.Dropped); got < flood-places*40 {
		t.Errorf("dropped: got %d, want nearly all %d", got, flood)
	}
	eventually(t, "there is room again", func() bool {
		return len(e.exchange(t, "udp", query("www.good.test", dns.TypeA)).Answer) == 1 && runtime.NumGoroutine() <= before.goroutines+4
	})
}
