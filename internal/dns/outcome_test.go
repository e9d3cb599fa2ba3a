package dns_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"

	engine "dnsfleet/internal/dns"
	"dnsfleet/internal/fleet"
)

func writeList(t testing.TB, text string) (path, url string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "list.txt")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, "file://" + path
}

func TestEveryQueryHasOneOutcome(t *testing.T) {
	up := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		switch q.Question[0].Name {
		case "broken.test.":
			_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure))
		case "refused.test.":
			_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeRefused))
		default:
			zoneHandler(t, "www.test. 300 IN A 192.0.2.1", "good.ads.test. 60 IN A 192.0.2.2")(w, q)
		}
	})
	_, list := writeList(t, "0.0.0.0 ads.test\n")
	p := policyOf(up.url())
	p.Lists = []fleet.PolicyList{{Name: "mine", URL: list}}
	p.Deny, p.Allow = []string{"denied.test", `/^track[0-9]+\./`}, []string{"good.ads.test"}
	p.Records = []fleet.PolicyRecord{
		{Name: "nas.home.arpa", Type: "A", Value: "192.168.1.10"},
		{Name: "alias.home.arpa", Type: "CNAME", Value: "nas.home.arpa"},
		{Name: "out.home.arpa", Type: "CNAME", Value: "www.test"},
	}
	b := start(t, p, nil)
	if err := b.Reload(t.Context()); err != nil {
		t.Fatalf("reload: %v", err)
	}

	chaos := query("version.bind", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	notify := new(dns.Msg).SetNotify("www.test.")
	future := queryEDNS("www.test", dns.TypeA, 1232, false)
	future.IsEdns0().SetVersion(1)

	for _, c := range []struct {
		name    string
		query   *dns.Msg
		outcome fleet.Outcome
		rcode   int
		answers string
		list    string
		ede     int
	}{
		{"a name is answered by the upstream", queryEDNS("www.test", dns.TypeA, 1232, false), fleet.Upstream, 0, "www.test. 300 IN A 192.0.2.1", "", -1},
		{"the same name again is cached", queryEDNS("WWW.test", dns.TypeA, 1232, false), fleet.Cached, 0, "www.test. 300 IN A 192.0.2.1", "", -1},
		{"a name that does not exist is an upstream's answer", query("nope.test", dns.TypeA), fleet.Upstream, dns.RcodeNameError, "", "", -1},
		{"a name that does not exist is cached", query("nope.test", dns.TypeA), fleet.Cached, dns.RcodeNameError, "", "", -1},
		{"another type of a name is NODATA", query("www.test", dns.TypeAAAA), fleet.Upstream, 0, "", "", -1},
		{"a listed name is blocked", queryEDNS("ads.test", dns.TypeA, 1232, false), fleet.Blocked, dns.RcodeNameError, "", "mine", 15},
		{"a name below a listed one is blocked", queryEDNS("eu.ads.test", dns.TypeAAAA, 1232, false), fleet.Blocked, dns.RcodeNameError, "", "mine", 15},
		{"an allowed name below a listed one is answered", query("good.ads.test", dns.TypeA), fleet.Upstream, 0, "good.ads.test. 60 IN A 192.0.2.2", "", -1},
		{"a denied name is blocked by no list", queryEDNS("x.denied.test", dns.TypeA, 1232, false), fleet.Blocked, dns.RcodeNameError, "", "", 15},
		{"a name that an expression matches is blocked", query("track7.test", dns.TypeA), fleet.Blocked, dns.RcodeNameError, "", "", -1},
		{"a local record is answered", query("nas.home.arpa", dns.TypeA), fleet.Local, 0, "nas.home.arpa. 300 IN A 192.168.1.10", "", -1},
		{"AAAA of a local A name is NODATA and stays here", query("nas.home.arpa", dns.TypeAAAA), fleet.Local, 0, "", "", -1},
		{"a local alias is followed", query("alias.home.arpa", dns.TypeA), fleet.Local, 0, "alias.home.arpa. 300 IN CNAME nas.home.arpa. | nas.home.arpa. 300 IN A 192.168.1.10", "", -1},
		{"a local alias is followed to the outside", query("out.home.arpa", dns.TypeA), fleet.Local, 0, "out.home.arpa. 300 IN CNAME www.test. | www.test. 300 IN A 192.0.2.1", "", -1},
		{"localhost is local", query("localhost", dns.TypeA), fleet.Local, 0, "localhost. 3600 IN A 127.0.0.1", "", -1},
		{"an onion name does not leave", query("x.onion", dns.TypeA), fleet.Local, dns.RcodeNameError, "", "", -1},
		{"SERVFAIL of the upstream is passed on", query("broken.test", dns.TypeA), fleet.Servfail, dns.RcodeServerFailure, "", "", -1},
		{"a failure is cached for a moment", queryEDNS("broken.test", dns.TypeAAAA, 1232, false), fleet.Servfail, dns.RcodeServerFailure, "", "", -1},
		{"no usable answer is an upstream error", queryEDNS("refused.test", dns.TypeA, 1232, false), fleet.UpstreamError, dns.RcodeServerFailure, "", "", 23},
		{"a class other than IN is refused", chaos, fleet.Refused, dns.RcodeRefused, "", "", -1},
		{"a zone transfer is refused", query("www.test", dns.TypeAXFR), fleet.Refused, dns.RcodeRefused, "", "", -1},
		{"an opcode other than QUERY is not implemented", notify, fleet.Invalid, dns.RcodeNotImplemented, "", "", -1},
		{"an EDNS version above 0 is BADVERS", future, fleet.Invalid, dns.RcodeBadVers, "", "", -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(b.events.all())
			reply := b.ask(t, "udp", c.query)
			events := b.events.all()[before:]
			if len(events) != 1 {
				t.Fatalf("events: got %d, want 1", len(events))
			}
			e := events[0]
			if e.Outcome != c.outcome || e.List != c.list || e.RCode != c.rcode || e.Protocol != "udp" || e.Client != netip.MustParseAddr("127.0.0.1") {
				t.Errorf("event: got %s list %q rcode %d %s %s, want %s list %q rcode %d udp 127.0.0.1",
					e.Outcome, e.List, e.RCode, e.Protocol, e.Client, c.outcome, c.list, c.rcode)
			}
			if reply.Rcode != c.rcode || answers(reply) != c.answers || edeOf(reply) != c.ede {
				t.Errorf("answer: got %s, want %s [%s] ede=%d", describe(reply), dns.RcodeToString[c.rcode], c.answers, c.ede)
			}
			if !reply.RecursionAvailable {
				t.Error("RA: got 0, want 1")
			}
			if got, want := reply.IsEdns0() != nil, c.query.IsEdns0() != nil; got != want {
				t.Errorf("OPT in the answer: got %v, want %v", got, want)
			}
			if len(reply.Answer) == 0 && (reply.Rcode == dns.RcodeNameError || reply.Rcode == 0) && len(reply.Ns) != 1 {
				t.Errorf("authority of a negative answer: got %v, want one SOA", reply.Ns)
			}
		})
	}
}

func TestWithoutPolicyTheAnswerIsNotReady(t *testing.T) {
	b := startWithout(t, nil)
	reply := b.ask(t, "udp", queryEDNS("www.test", dns.TypeA, 1232, false))
	if reply.Rcode != dns.RcodeServerFailure || edeOf(reply) != 14 {
		t.Errorf("got %s, want SERVFAIL with EDE 14", describe(reply))
	}
	if err := b.Ready(); err == nil {
		t.Error("ready: got nil, want an error that says what is missing")
	}
}

func TestAClientThatIsNotAllowedIsRefused(t *testing.T) {
	b := start(t, policyOf(), func(o *engine.Options) { o.AllowClients = []netip.Prefix{prefix("10.0.0.0/8")} })
	for _, network := range []string{"udp", "tcp"} {
		reply := b.ask(t, network, query("localhost", dns.TypeA))
		if reply.Rcode != dns.RcodeRefused || len(reply.Answer) != 0 {
			t.Errorf("%s: got %s, want REFUSED", network, describe(reply))
		}
	}
	if got := b.events.outcomes()[fleet.Refused]; got != 2 {
		t.Errorf("refused: got %d, want 2", got)
	}
}

func TestTheDefaultClientsAreOnlyNearOnes(t *testing.T) {
	allowed := func(text string) bool {
		for _, p := range engine.DefaultAllowClients() {
			if p.Contains(netip.MustParseAddr(text)) {
				return true
			}
		}
		return false
	}
	for address, want := range map[string]bool{
		"127.0.0.1": true, "192.168.7.7": true, "100.64.0.1": true, "169.254.1.1": true, "::1": true, "fe80::1": true, "fd00::1": true,
		"8.8.8.8": false, "100.128.0.1": false, "172.32.0.1": false, "2001:db8::1": false,
	} {
		if got := allowed(address); got != want {
			t.Errorf("%s allowed: got %v, want %v", address, got, want)
		}
	}
}

func TestQueriesBeyondTheBoundAreDroppedAndCounted(t *testing.T) {
	release := make(chan struct{})
	asked := make(chan struct{}, 8)
	up := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		asked <- struct{}{}
		<-release
		zoneHandler(t, "slow.test. 60 IN A 192.0.2.1")(w, q)
	})
	b := start(t, policyOf(up.url()), func(o *engine.Options) { o.MaxInFlight = 1 })
	answered := make(chan *dns.Msg, 1)
	go func() { answered <- b.ask(t, "udp", query("slow.test", dns.TypeA)) }()
	<-asked

	conn, err := net.Dial("udp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	wire, _ := query("other.test", dns.TypeA).Pack()
	if _, err := conn.Write(wire); err != nil {
		t.Fatal(err)
	}
	<-b.events.news
	if got := b.events.all()[0]; got.Outcome != fleet.Dropped || got.QName != "other.test." {
		t.Errorf("event: got %s of %q, want dropped of other.test.", got.Outcome, got.QName)
	}
	if reply := b.ask(t, "udp", query("localhost", dns.TypeA)); len(reply.Answer) != 1 {
		t.Errorf("what needs no upstream: got %s, want an answer all the same", describe(reply))
	}
	close(release)
	if reply := <-answered; answers(reply) != "slow.test. 60 IN A 192.0.2.1" {
		t.Errorf("the query under way: got %s, want its answer", describe(reply))
	}
}

func TestAFaultOfWhoObservesCostsNoAnswer(t *testing.T) {
	up := serveUpstream(t, zoneHandler(t, "www.test. 300 IN A 192.0.2.1"))
	b := start(t, policyOf(up.url()), func(o *engine.Options) { o.Exchanges = panicking{} })
	if reply := b.ask(t, "udp", query("www.test", dns.TypeA)); len(reply.Answer) != 1 {
		t.Errorf("got %s, want the answer", describe(reply))
	}
	if reply := b.ask(t, "udp", query("localhost", dns.TypeA)); len(reply.Answer) != 1 {
		t.Errorf("next query: got %s, want an answer", describe(reply))
	}
	if got := b.events.outcomes(); got[fleet.Upstream] != 1 || got[fleet.Local] != 1 {
		t.Errorf("outcomes: got %v, want one upstream and one local", got)
	}
}

type panicking struct{}

func (panicking) ObserveExchange(string, time.Duration, bool) { panic("a fault that nobody foresaw") }

func TestATakenPortIsAnErrorThatNamesIt(t *testing.T) {
	b := start(t, policyOf(), nil)
	second, err := engine.New(engine.Options{Listen: []string{b.addr}})
	if err != nil {
		t.Fatal(err)
	}
	err = second.Bind(context.Background())
	if err == nil || !containsAll(err.Error(), b.addr, "in use") {
		t.Errorf("got %v, want an error that names %s", err, b.addr)
	}
	if _, err := engine.New(engine.Options{Listen: []string{"nonsense"}}); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("listen on nonsense: got %v, want fleet.ErrInvalid", err)
	}
}

func TestOffServesNoDNSButKeepsThePolicy(t *testing.T) {
	_, list := writeList(t, "ads.test\n")
	p := policyOf()
	p.Lists = []fleet.PolicyList{{Name: "mine", URL: list}}
	b := start(t, p, func(o *engine.Options) { o.Listen = []string{"off"} })
	if got := b.Addrs(); len(got) != 0 {
		t.Errorf("addresses: got %v, want none", got)
	}
	eventually(t, "the list is loaded", func() bool { return b.Ready() == nil && b.Blocklist().Blocked == 1 })
	if got := b.Check("x.ads.test."); !got.Blocked || got.List != "mine" || got.Rule != "ads.test" || got.Reason != "list" {
		t.Errorf("check: got %+v, want blocked by ads.test of mine", got)
	}
}
