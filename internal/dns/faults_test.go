package dns_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/fleet"
)

// Faults that were seen in other resolvers, one test for each.
func TestFaultsSeenInOthersAreNotHere(t *testing.T) {
	for name, test := range map[string]func(t *testing.T){
		"an OPT keeps its bits while the TTLs around it run down":           theOPTKeepsItsBits,
		"a client that sent no OPT gets none":                               noOPTUnasked,
		"a plain client gets no more than 512 bytes":                        noMoreThan512Bytes,
		"AAAA of a local A name does not leave":                             localNamesStayHere,
		"a client's id is not the upstream's":                               idsOfTheirOwn,
		"a blocked answer says that recursion is available":                 recursionIsAvailable,
		"the cache keeps answers with and without DO apart":                 doIsKept,
		"queries are answered while a list is downloaded":                   answersDuringDownloads,
		"one long line costs a list one line":                               oneLongLine,
		"a rule for some types blocks those alone":                          rulesForTypes,
		"a TTL of the cache runs down and is never more than it was":        ttlsRunDown,
		"an answer that comes while the policy changes is not kept by it":   lateAnswersOfOldUpstreams,
		"the upstream's flags are not the client's":                         flagsOfOurOwn,
		"a client learns nothing of what another asked with other letters":  lettersOfTheirOwn,
		"an upstream's OPT, padding and cookie do not reach the client":     nothingOfTheUpstreamsOPT,
		"a name that is blocked is not asked for to see where it leads":     blockedNamesAreNotAsked,
		"a failed list does not empty what was blocked by it":               failedListsStay,
		"a local name hides from the upstream whatever type is asked":       localNamesHideAllTypes,
		"a wildcard of a list is for names below, and so is a plain domain": namesBelow,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

func theOPTKeepsItsBits(t *testing.T) {
	up := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{mustRR("www.test. 300 IN A 192.0.2.1")}
		m.SetEdns0(4096, true)
		_ = w.WriteMsg(m)
	})
	b := start(t, policyOf(up.url()), nil)
	for i, want := range []string{"300", "260", "220"} {
		if i > 0 {
			b.clock.advance(40 * time.Second)
		}
		for _, do := range []bool{true, false} {
			reply := b.ask(t, "udp", queryEDNS("www.test", dns.TypeA, 1232, do))
			opt := reply.IsEdns0()
			if opt == nil || countOPT(reply) != 1 || opt.Version() != 0 || opt.ExtendedRcode() != 0 || opt.Do() != do || opt.UDPSize() != 1232 {
				t.Errorf("answer %d: got %v, want one OPT of version 0, size 1232, DO %v", i, opt, do)
			}
			if got := answers(reply); got != "www.test. "+want+" IN A 192.0.2.1" && do {
				t.Errorf("answer %d: got %s, want a TTL of %s", i, got, want)
			}
		}
	}
}

// askedFor are names of a policy with a bit of everything, by the outcome that asking for them has.
var askedFor = []struct {
	name    string
	outcome fleet.Outcome
}{
	{"www.test", fleet.Upstream},
	{"www.test", fleet.Cached},
	{"nope.test", fleet.Upstream},
	{"nope.test", fleet.Cached},
	{"denied.test", fleet.Blocked},
	{"alias-to-denied.test", fleet.Blocked},
	{"inside.test", fleet.Blocked},
	{"inside.test", fleet.Blocked}, // from the cache
	{"rewritten.test", fleet.Rewritten},
	{"nas.home.arpa", fleet.Local},
	{"alias.home.arpa", fleet.Local},
	{"localhost", fleet.Local},
	{"broken.test", fleet.Servfail},
	{"broken.test", fleet.Servfail}, // from the cache
	{"silly.test", fleet.UpstreamError},
	{"silly.test", fleet.Servfail}, // remembered
}

func bitOfEverything(t *testing.T) *everywhere {
	t.Helper()
	zone := zoneHandler(t, "www.test. 300 IN A 192.0.2.1", "inside.test. 300 IN A 192.168.1.1", "many.test. 300 IN A 192.0.2.1")
	up := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		switch q.Question[0].Name {
		case "broken.test.":
			m := new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
			m.SetEdns0(1232, true)
			_ = w.WriteMsg(m)
		case "silly.test.":
			_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeRefused))
		case "alias-to-denied.test.":
			m := new(dns.Msg).SetReply(q)
			m.Answer = []dns.RR{mustRR("alias-to-denied.test. 300 IN CNAME denied.test."), mustRR("denied.test. 300 IN A 192.0.2.6")}
			_ = w.WriteMsg(m)
		default:
			zone(w, q)
		}
	})
	p := policyOf(up.url())
	p.Deny = []string{"denied.test"}
	p.Records = []fleet.PolicyRecord{
		{Name: "nas.home.arpa", Type: "A", Value: "192.168.1.10"}, {Name: "alias.home.arpa", Type: "CNAME", Value: "www.test"},
	}
	p.Lists = []fleet.PolicyList{listOf(t, "mine", "||rewritten.test^$dnsrewrite=192.0.2.99")}
	e := startEverywhere(t, p, nil)
	if err := e.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e
}

// lastOutcome waits for the event after the first n.
func (b *bench) lastOutcome(t testing.TB, n int) fleet.Outcome {
	t.Helper()
	eventually(t, "the query's event", func() bool { return len(b.events.all()) > n })
	return b.events.all()[n].Outcome
}

func noOPTUnasked(t *testing.T) {
	for _, how := range []string{"udp", "tcp", "dot", "doh"} {
		e := bitOfEverything(t)
		for _, c := range askedFor {
			mark := len(e.events.all())
			reply := e.exchange(t, how, query(c.name, dns.TypeA))
			if len(reply.Extra) != 0 {
				t.Errorf("%s, %s over %s: got %v, want no OPT or other additional record", c.name, c.outcome, how, reply.Extra)
			}
			if got := e.lastOutcome(t, mark); got != c.outcome {
				t.Errorf("%s over %s: got %s, want %s", c.name, how, got, c.outcome)
			}
		}
	}
}

func noMoreThan512Bytes(t *testing.T) {
	long := strings.Repeat(`"`+strings.Repeat("x", 200)+`" `, 8)
	up := serveUpstream(t, zoneHandler(t, append(manyRecords(200), "text.test. 300 IN TXT "+long, "mid.test. 300 IN TXT "+long[:203*3])...))
	p := policyOf(up.url())
	for i := range 60 {
		p.Records = append(p.Records, fleet.PolicyRecord{Name: "own.home.arpa", Type: "A", Value: fmt.Sprintf("192.168.1.%d", i+1)})
	}
	var addresses []netip.Addr
	for i := range 60 {
		addresses = append(addresses, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
	}
	p.Deny, p.BlockMode = []string{"denied.test"}, fleet.BlockMode{Addresses: addresses}
	e := startEverywhere(t, p, nil)
	for _, c := range []struct {
		name  string
		qtype uint16
		whole int // records
	}{
		{"many.test", dns.TypeA, 200},
		{"text.test", dns.TypeTXT, 1},
		{"mid.test", dns.TypeTXT, 1},
		{"own.home.arpa", dns.TypeA, 60},
		{"denied.test", dns.TypeA, 60},
	} {
		for _, when := range []string{"first", "again"} {
			reply, size := e.sized(t, "udp", query(c.name, c.qtype))
			if size > 512 || !reply.Truncated || len(reply.Answer) >= c.whole {
				t.Errorf("%s, %s: got %d bytes, %d records, TC %v, want no more than 512, less than all, and TC", c.name, when, size, len(reply.Answer), reply.Truncated)
			}
			reply, size = e.sized(t, "udp", queryEDNS(c.name, c.qtype, 4096, false))
			if whole := len(reply.Answer) == c.whole; size > 1232 || reply.Truncated == whole {
				t.Errorf("%s with EDNS, %s: got %d bytes, %d of %d records, TC %v; want no more than 1232, and TC unless all are there", c.name, when, size, len(reply.Answer), c.whole, reply.Truncated)
			}
			for _, how := range []string{"tcp", "dot", "doh"} {
				if reply := e.exchange(t, how, query(c.name, c.qtype)); reply.Truncated || len(reply.Answer) != c.whole {
					t.Errorf("%s over %s: got %d records, TC %v; want all %d", c.name, how, len(reply.Answer), reply.Truncated, c.whole)
				}
			}
		}
	}
}

func localNamesStayHere(t *testing.T) {
	up := serveUpstream(t, zoneHandler(t))
	p := policyOf(up.url())
	p.Records = []fleet.PolicyRecord{
		{Name: "nas.home.arpa", Type: "A", Value: "192.168.1.10"},
		{Name: "host.example.com", Type: "A", Value: "192.168.1.11"},
		{Name: "*.wild.example.com", Type: "A", Value: "192.168.1.12"},
	}
	b := start(t, p, nil)
	for _, name := range []string{"nas.home.arpa", "host.example.com", "any.wild.example.com", "HOST.example.COM"} {
		reply := b.ask(t, "udp", query(name, dns.TypeAAAA))
		if reply.Rcode != dns.RcodeSuccess || len(reply.Answer) != 0 || len(reply.Ns) != 1 || reply.Ns[0].Header().Rrtype != dns.TypeSOA {
			t.Errorf("%s: got %s %v, want NODATA with an SOA", name, describe(reply), reply.Ns)
		}
	}
	if got := up.asked.Load(); got != 0 {
		t.Errorf("the upstream was asked %d times, want never", got)
	}
}

func localNamesHideAllTypes(t *testing.T) {
	up := serveUpstream(t, zoneHandler(t))
	p := policyOf(up.url())
	p.Records = []fleet.PolicyRecord{{Name: "host.example.com", Type: "A", Value: "192.168.1.11"}}
	b := start(t, p, nil)
	for _, qtype := range []uint16{dns.TypeHTTPS, dns.TypeSVCB, dns.TypeTXT, dns.TypeMX, dns.TypeCNAME, dns.TypeNS, dns.TypeSOA, dns.TypeDS, dns.TypeSRV, 65000, dns.TypeANY} {
		if reply := b.ask(t, "udp", query("host.example.com", qtype)); reply.Rcode != dns.RcodeSuccess {
			t.Errorf("type %d: got %s, want NOERROR", qtype, describe(reply))
		}
	}
	if got := up.asked.Load(); got != 0 {
		t.Errorf("the upstream was asked %d times, want never", got)
	}
}

func idsOfTheirOwn(t *testing.T) {
	var mu sync.Mutex
	same := 0
	up := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		mu.Lock()
		if q.Question[0].Name == fmt.Sprintf("n%d.test.", q.Id) {
			same++
		}
		mu.Unlock()
		zoneHandler(t)(w, q)
	})
	b := start(t, policyOf(up.url()), nil)
	for i := range 100 {
		q := query(fmt.Sprintf("n%d.test", 1000+i), dns.TypeA)
		q.Id = uint16(1000 + i)
		if reply := b.ask(t, []string{"udp", "tcp"}[i%2], q); reply.Id != q.Id {
			t.Errorf("id: got %d, want the client's %d", reply.Id, q.Id)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if same > 3 {
		t.Errorf("%d of 100 questions left with the client's id, want hardly any", same)
	}
}

func recursionIsAvailable(t *testing.T) {
	for _, mode := range []fleet.BlockMode{{Mode: "nxdomain"}, {Mode: "zero"}, {Mode: "refused"}, {Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.80")}}} {
		p := policyOf()
		p.Deny, p.BlockMode = []string{"denied.test"}, mode
		e := startEverywhere(t, p, nil)
		for _, how := range []string{"udp", "tcp", "dot", "doh"} {
			for _, rd := range []bool{true, false} {
				for _, q := range []*dns.Msg{query("denied.test", dns.TypeA), queryEDNS("x.denied.test", dns.TypeAAAA, 1232, true), query("denied.test", dns.TypeANY)} {
					q.RecursionDesired = rd
					reply := e.exchange(t, how, q)
					if !reply.RecursionAvailable || reply.Authoritative || reply.RecursionDesired != rd || reply.AuthenticatedData || reply.Zero {
						t.Errorf("%v, %s, RD %v: got %v, want RA and RD as it came, and no AA, AD or Z", mode, how, rd, reply.MsgHdr)
					}
				}
			}
		}
	}
}

func doIsKept(t *testing.T) {
	signature := mustRR("www.test. 300 IN RRSIG A 8 2 300 20300101000000 20200101000000 1 test. AAAA")
	up := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{mustRR("www.test. 300 IN A 192.0.2.1")}
		if opt := q.IsEdns0(); opt != nil {
			m.SetEdns0(1232, opt.Do())
			if opt.Do() {
				m.Answer = append(m.Answer, signature)
			}
		}
		_ = w.WriteMsg(m)
	})
	b := start(t, policyOf(up.url()), nil)
	for i, do := range []bool{false, true, false, true} {
		reply := b.ask(t, "udp", queryEDNS("www.test", dns.TypeA, 1232, do))
		if want := map[bool]int{false: 1, true: 2}[do]; len(reply.Answer) != want || reply.IsEdns0().Do() != do {
			t.Errorf("query %d, DO %v: got %s and DO %v, want %d records", i, do, answers(reply), reply.IsEdns0().Do(), want)
		}
	}
	if got := b.events.outcomes(); got[fleet.Upstream] != 2 || got[fleet.Cached] != 2 {
		t.Errorf("outcomes: got %v, want two upstream, then two cached", got)
	}
}

func answersDuringDownloads(t *testing.T) {
	hang := make(chan struct{})
	asked := make(chan struct{}, 8)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "0.0.0.0 half.test")
		w.(http.Flusher).Flush()
		asked <- struct{}{}
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	defer web.Close()
	defer close(hang)
	up := serveUpstream(t, zoneHandler(t, "www.test. 300 IN A 192.0.2.1"))
	p := policyOf(up.url())
	p.Lists = []fleet.PolicyList{listOf(t, "quick", "ads.test"), {Name: "slow", URL: web.URL}}
	b := start(t, p, nil)
	<-asked
	begun := time.Now()
	eventually(t, "the quick list is in force", func() bool { return b.Blocklist().Blocked == 1 })
	for i := range 20 {
		if reply := b.ask(t, "udp", query(fmt.Sprintf("n%d.ads.test", i), dns.TypeA)); reply.Rcode != dns.RcodeNameError {
			t.Errorf("blocked: got %s, want NXDOMAIN", describe(reply))
		}
		b.ask(t, "udp", query("www.test", dns.TypeA))
		b.Check("ads.test")
	}
	p.Deny = []string{"later.test"}
	b.apply(t, p, 2)
	if reply := b.ask(t, "udp", query("later.test", dns.TypeA)); reply.Rcode != dns.RcodeNameError {
		t.Errorf("a policy that was applied meanwhile: got %s, want it in force", describe(reply))
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("took %v beside a download that hangs, want no time", took)
	}
	if got := b.events.outcomes(); got[fleet.Blocked] != 21 {
		t.Errorf("outcomes: got %v, want 21 blocked", got)
	}
}

func oneLongLine(t *testing.T) {
	p := policyOf("udp://127.0.0.1:1")
	p.Lists = []fleet.PolicyList{listOf(t, "mine", "before.test", strings.Repeat("x", 3<<20), "0.0.0.0 "+strings.Repeat("long.test ", 200_000), "after.test")}
	b := start(t, p, nil)
	if err := b.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"before.test", "after.test"} {
		if reply := b.ask(t, "udp", queryEDNS(name, dns.TypeA, 1232, false)); edeOf(reply) != 15 {
			t.Errorf("%s: got %s, want it blocked", name, describe(reply))
		}
	}
	if got := b.Blocklist().Lists[0]; got.Ignored == 0 || got.Entries < 2 || got.Error != "" {
		t.Errorf("list: got %+v, want two entries or more, the long line ignored, no error", got)
	}
}

func rulesForTypes(t *testing.T) {
	up := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		switch q.Question[0].Qtype {
		case dns.TypeA:
			m.Answer = []dns.RR{mustRR(q.Question[0].Name + " 300 IN A 192.0.2.1")}
		case dns.TypeAAAA:
			m.Answer = []dns.RR{mustRR(q.Question[0].Name + " 300 IN AAAA 2001:db8::1")}
		case dns.TypeHTTPS:
			m.Answer = []dns.RR{mustRR(q.Question[0].Name + " 300 IN HTTPS 1 . alpn=h2")}
		}
		_ = w.WriteMsg(m)
	})
	p := policyOf(up.url())
	p.Lists = []fleet.PolicyList{listOf(t, "mine", "||only4.test^$dnstype=A", "||not4.test^$dnstype=~A", "||two.test^$dnstype=AAAA|HTTPS", "||all.test^")}
	b := start(t, p, nil)
	if err := b.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][3]bool{ // blocked for A, AAAA, HTTPS
		"only4.test": {true, false, false}, "x.only4.test": {true, false, false}, "not4.test": {false, true, true},
		"two.test": {false, true, true}, "all.test": {true, true, true}, "none.test": {},
	} {
		for range 2 {
			for i, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS} {
				reply := b.ask(t, "udp", queryEDNS(name, qtype, 1232, false))
				if got := edeOf(reply) == 15; got != want[i] || got == (len(reply.Answer) > 0) {
					t.Errorf("%s %s: got %s, want blocked %v", name, dns.TypeToString[qtype], describe(reply), want[i])
				}
			}
		}
	}
}

func ttlsRunDown(t *testing.T) {
	up := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{mustRR("www.test. 90 IN CNAME x.test."), mustRR("x.test. 300 IN A 192.0.2.1")}
		_ = w.WriteMsg(m)
	})
	b := start(t, policyOf(up.url()), nil)
	for _, want := range []string{"90 300", "59 269", "28 238"} {
		reply := b.ask(t, "udp", query("www.test", dns.TypeA))
		if len(reply.Answer) != 2 {
			t.Fatalf("got %s, want two records", describe(reply))
		}
		if got := fmt.Sprint(reply.Answer[0].Header().Ttl, reply.Answer[1].Header().Ttl); got != want {
			t.Errorf("TTLs: got %s, want %s", got, want)
		}
		b.clock.advance(31 * time.Second)
	}
	if got := up.asked.Load(); got != 1 {
		t.Errorf("the upstream was asked %d times, want once", got)
	}
}

func lateAnswersOfOldUpstreams(t *testing.T) {
	release, asked := make(chan struct{}), make(chan struct{})
	slow := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		close(asked)
		<-release
		zoneHandler(t, "www.test. 300 IN A 192.0.2.1")(w, q)
	})
	fresh := serveUpstream(t, zoneHandler(t, "www.test. 300 IN A 192.0.2.2"))
	b := start(t, policyOf(slow.url()), nil)
	done := make(chan *dns.Msg, 1)
	go func() { done <- b.ask(t, "udp", query("www.test", dns.TypeA)) }()
	<-asked
	b.apply(t, policyOf(fresh.url()), 2)
	close(release)
	<-done
	if got := answers(b.ask(t, "udp", query("www.test", dns.TypeA))); got != "www.test. 300 IN A 192.0.2.2" {
		t.Errorf("got %s, want the new upstream's answer", got)
	}
}

func flagsOfOurOwn(t *testing.T) {
	up := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Authoritative, m.RecursionAvailable, m.Zero, m.CheckingDisabled = true, false, true, true
		m.RecursionDesired = false
		m.Answer = []dns.RR{mustRR("www.test. 300 IN A 192.0.2.1")}
		_ = w.WriteMsg(m)
	})
	e := startEverywhere(t, policyOf(up.url()), nil)
	for _, how := range []string{"udp", "tcp", "udp"} {
		reply := e.exchange(t, how, query("www.test", dns.TypeA))
		if reply.Authoritative || !reply.RecursionAvailable || reply.Zero || reply.CheckingDisabled || !reply.RecursionDesired || reply.Truncated {
			t.Errorf("%s: got %+v, want only QR, RD and RA", how, reply.MsgHdr)
		}
	}
}

func lettersOfTheirOwn(t *testing.T) {
	up := serveUpstream(t, zoneHandler(t, "www.test. 300 IN A 192.0.2.1"))
	b := start(t, policyOf(up.url()), nil)
	for _, name := range []string{"wWw.tEsT.", "WWW.TEST.", "www.test."} {
		reply := b.ask(t, "udp", query(name, dns.TypeA))
		if reply.Question[0].Name != name || len(reply.Answer) != 1 || !strings.EqualFold(reply.Answer[0].Header().Name, name) {
			t.Errorf("%s: got %v %s, want it as it was asked", name, reply.Question, describe(reply))
		}
	}
	if got := up.asked.Load(); got != 1 {
		t.Errorf("the upstream was asked %d times, want once for all letters", got)
	}
}

func nothingOfTheUpstreamsOPT(t *testing.T) {
	up := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{mustRR("www.test. 300 IN A 192.0.2.1")}
		m.SetEdns0(4096, true)
		m.IsEdns0().Option = []dns.EDNS0{
			&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "01020304050607080102030405060708"},
			&dns.EDNS0_PADDING{Padding: make([]byte, 100)}, &dns.EDNS0_EDE{InfoCode: 6, ExtraText: "theirs"},
			&dns.EDNS0_NSID{Code: dns.EDNS0NSID, Nsid: "abcd"},
		}
		_ = w.WriteMsg(m)
	})
	e := startEverywhere(t, policyOf(up.url()), nil)
	for _, how := range []string{"udp", "tcp", "dot"} {
		for range 2 {
			if reply := e.exchange(t, how, queryEDNS("www.test", dns.TypeA, 1232, false)); len(options(reply)) != 0 || countOPT(reply) != 1 {
				t.Errorf("%s: got %v, want one OPT without options", how, reply.Extra)
			}
		}
	}
}

func blockedNamesAreNotAsked(t *testing.T) {
	up := serveUpstream(t, zoneHandler(t))
	p := policyOf(up.url())
	p.Deny = []string{"denied.test", `/^track[0-9]+\./`}
	b := start(t, p, nil)
	for _, name := range []string{"denied.test", "DENIED.test", "a.b.denied.test", "track7.example"} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeANY, dns.TypeTXT} {
			b.ask(t, "udp", query(name, qtype))
		}
	}
	if got, blocked := up.asked.Load(), b.events.outcomes()[fleet.Blocked]; got != 0 || blocked != 20 {
		t.Errorf("the upstream was asked %d times, and %d blocked; want never, and 20", got, blocked)
	}
}

func failedListsStay(t *testing.T) {
	path, url := writeList(t, "ads.test\n")
	p := policyOf("udp://127.0.0.1:1")
	p.Lists = []fleet.PolicyList{{Name: "mine", URL: url}}
	b := start(t, p, nil)
	if err := b.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("<!DOCTYPE html><html><body>Sign in to the network</body></html>\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = b.Reload(t.Context())
	if got := b.Check("ads.test"); !got.Blocked {
		t.Errorf("after a page of a sign-in: got %+v, want it blocked still", got)
	}
	if got := b.Blocklist().Lists[0]; got.Error == "" || got.Entries != 1 {
		t.Errorf("list: got %+v, want its entry, and why the new copy was held back", got)
	}
}

func namesBelow(t *testing.T) {
	p := policyOf("udp://127.0.0.1:1")
	p.Lists = []fleet.PolicyList{listOf(t, "mine", "*.wild.test", "plain.test", "0.0.0.0 hosts.test")}
	b := start(t, p, nil)
	if err := b.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"x.wild.test": true, "plain.test": true, "x.plain.test": true, "hosts.test": true, "a.b.hosts.test": true,
		"notplain.test": false, "test": false, "plain.test.example": false,
	} {
		if got := b.Check(name).Blocked; got != want {
			t.Errorf("%s: got blocked %v, want %v", name, got, want)
		}
	}
}
