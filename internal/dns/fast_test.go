package dns_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	engine "dnsfleet/internal/dns"
	"dnsfleet/internal/dns/listen"
	"dnsfleet/internal/fleet"
)

// differ is an engine that knows a bit of everything and has no place for queries that wait.
func differ(t testing.TB) *bench {
	t.Helper()
	up := zoneUpstream(t,
		"www.test. 300 IN A 192.0.2.1", "www.test. 300 IN A 192.0.2.2", "www.test. 300 IN AAAA 2001:db8::1", "www.test. 60 IN MX 10 mail.test.",
		"alias.test. 60 IN CNAME www.test.", "tracked.test. 60 IN CNAME ads.test.", "inside.test. 60 IN A 192.168.7.7",
		"good.ads.test. 60 IN A 192.0.2.9", "big.test. 60 IN TXT "+strings.Repeat(`"`+strings.Repeat("x", 200)+`" `, 8),
	)
	policy := policyOf(up.url())
	policy.Allow = []string{"good.ads.test"}
	policy.Deny = []string{"denied.test"}
	policy.Records = []fleet.PolicyRecord{{Name: "nas.home.arpa", Type: "A", Value: "192.168.1.10"}}
	policy.Lists = []fleet.PolicyList{listOf(t, "mine", "||ads.test^", "||rewritten.test^$dnsrewrite=192.0.2.99", "||only4.test^$dnstype=A")}
	var frozen atomic.Pointer[time.Time] // so that no TTL moves on between two answers
	b := start(t, policy, func(o *engine.Options) {
		o.Now = func() time.Time {
			if at := frozen.Load(); at != nil {
				return *at
			}
			return time.Now()
		}
	})
	eventually(t, "the list is loaded", func() bool { return b.Ready() == nil && b.Blocklist().Blocked > 0 })
	frozen.Store(new(time.Now()))
	for _, name := range []string{"www.test", "alias.test", "tracked.test", "inside.test", "good.ads.test", "big.test", "nope.test", "only4.test"} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeMX, dns.TypeTXT} {
			b.ask(t, "tcp", queryEDNS(name, qtype, 1232, false))
			b.ask(t, "tcp", queryEDNS(name, qtype, 1232, true))
		}
	}
	b.Crowd()
	return b
}

var lan = netip.MustParseAddr("192.168.1.20")

// last is what is recorded by f.
func (r *recorder) last(f func()) string {
	r.mu.Lock()
	before := len(r.events)
	r.mu.Unlock()
	f()
	r.mu.Lock()
	defer r.mu.Unlock()
	var lines []string
	for _, e := range r.events[before:] {
		lines = append(lines, fmt.Sprint(e.QName, e.QType, e.QClass, e.Outcome, e.RCode, e.Upstream, e.List, e.Client, e.Protocol))
	}
	return strings.Join(lines, "\n")
}

// canonical is a reply as text, without what may differ: the order of records, compression, and how old a cookie is.
func canonical(t testing.TB, raw []byte) string {
	t.Helper()
	if raw == nil {
		return "no answer"
	}
	m := new(dns.Msg)
	if err := m.Unpack(raw); err != nil {
		t.Fatalf("unpack % x: %v", raw, err)
	}
	var sections []string
	for _, rrs := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		var lines []string
		for _, rr := range rrs {
			if opt, is := rr.(*dns.OPT); is {
				for _, o := range opt.Option {
					switch o := o.(type) {
					case *dns.EDNS0_COOKIE:
						o.Cookie = o.Cookie[:min(len(o.Cookie), 24)]
					case *dns.EDNS0_PADDING:
						o.Padding = o.Padding[:0]
					}
				}
				slices.SortFunc(opt.Option, func(a, b dns.EDNS0) int { return int(a.Option()) - int(b.Option()) })
			}
			lines = append(lines, rr.String())
		}
		slices.Sort(lines)
		sections = append(sections, strings.Join(lines, "\n"))
	}
	return fmt.Sprintf("%+v %+v\n%s", m.MsgHdr, m.Question, strings.Join(sections, "\n--\n"))
}

func (b *bench) compare(t testing.TB, raw []byte, protocol listen.Protocol) (fast bool) {
	t.Helper()
	var quick, thorough []byte
	quickEvents := b.events.last(func() { quick, fast = b.Fast(slices.Clone(raw), lan, protocol) })
	if !fast {
		if quickEvents != "" {
			t.Fatalf("% x: the fast way recorded %q, but left the query", raw, quickEvents)
		}
		return false
	}
	thoroughEvents := b.events.last(func() { thorough = b.Slow(slices.Clone(raw), lan, protocol) })
	if got, want := canonical(t, quick), canonical(t, thorough); got != want {
		t.Fatalf("% x:\nfast: %s\nslow: %s", raw, got, want)
	}
	if quickEvents != thoroughEvents {
		t.Fatalf("% x:\nfast recorded %s\nslow recorded %s", raw, quickEvents, thoroughEvents)
	}
	if protocol == listen.UDP && quick != nil {
		limit := 512
		m := new(dns.Msg)
		if m.Unpack(raw) == nil && m.IsEdns0() != nil {
			limit = 1232
		}
		if len(quick) > limit {
			t.Fatalf("% x: got %d bytes over udp", raw, len(quick))
		}
	}
	return true
}

func TestBothWaysGiveTheSameAnswer(t *testing.T) {
	b := differ(t)
	names := []string{
		"www.test", "WwW.TeSt", "alias.test", "tracked.test", "inside.test", "ads.test", "eu.ads.test", "good.ads.test",
		"denied.test", "only4.test", "nope.test", "unknown.test", "rewritten.test", "nas.home.arpa", "big.test", "localhost", ".",
	}
	fast := map[string]bool{}
	for _, mode := range []fleet.BlockMode{{Mode: "nxdomain"}, {Mode: "zero"}, {Mode: "refused"}, {Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.80")}}} {
		policy := b.applied
		policy.BlockMode = mode
		b.apply(t, policy, 2)
		for _, paused := range []bool{false, true} {
			if paused {
				b.Pause(0)
			} else {
				b.Resume()
			}
			for _, name := range names {
				for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeMX, dns.TypeTXT, dns.TypeHTTPS} {
					for i, q := range queries(name, qtype) {
						raw, err := q.Pack()
						if err != nil {
							t.Fatal(err)
						}
						for _, protocol := range []listen.Protocol{listen.UDP, listen.TCP, listen.DoT} {
							for range 2 { // the second time the cached answer has been judged
								if b.compare(t, raw, protocol) && !paused && i == 0 {
									fast[name] = true
								}
							}
						}
					}
				}
			}
		}
	}
	for _, name := range []string{"www.test", "alias.test", "tracked.test", "inside.test", "ads.test", "eu.ads.test", "good.ads.test", "denied.test", "nope.test"} {
		if !fast[name] {
			t.Errorf("%s: never took the fast way", name)
		}
	}
}

// queries are all forms in which a client may ask for the same.
func queries(name string, qtype uint16) []*dns.Msg {
	var all []*dns.Msg
	add := func(q *dns.Msg, change func(*dns.Msg)) {
		if change != nil {
			change(q)
		}
		all = append(all, q)
	}
	add(query(name, qtype), nil)
	add(query(name, qtype), func(m *dns.Msg) { m.RecursionDesired, m.CheckingDisabled = false, true })
	add(query(name, qtype), func(m *dns.Msg) { m.AuthenticatedData = true })
	for _, size := range []uint16{0, 512, 700, 1232, 4096, 65535} {
		add(queryEDNS(name, qtype, size, size > 600), nil)
	}
	add(queryEDNS(name, qtype, 1232, false), func(m *dns.Msg) {
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}, &dns.EDNS0_PADDING{Padding: make([]byte, 20)}}
	})
	return all
}

// The fast way answers what fuzzing finds as the other does, or leaves it.
func FuzzBothWaysGiveTheSameAnswer(f *testing.F) {
	b := differ(f)
	for _, name := range []string{"www.test", "ads.test", "alias.test", "nope.test", "big.test", "tracked.test"} {
		for _, q := range queries(name, dns.TypeA) {
			raw, err := q.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(raw, byte(0))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, protocol byte) {
		b.compare(t, raw, []listen.Protocol{listen.UDP, listen.TCP, listen.DoT, listen.DoH}[protocol%4])
	})
}

// A query that is cached or blocked costs no memory.
func TestTheFastWayAllocatesNothing(t *testing.T) {
	b := differ(t)
	reader := b.NewReader()
	out := make([]byte, 0, 4096)
	for _, name := range []string{"www.test", "alias.test", "ads.test", "deep.below.ads.test", "nope.test"} {
		q := queryEDNS(name, dns.TypeA, 1232, false)
		q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}}
		raw, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		m := listen.Message{Raw: raw, Client: lan, Protocol: listen.UDP, Lane: 1, Arrived: time.Now()}
		b.events.quiet.Store(true)
		allocs := testing.AllocsPerRun(100, func() {
			reader.Handle(&m, out)
			reader.BatchDone()
		})
		if reader.Handle(&m, out) == nil {
			t.Errorf("%s: got no answer", name)
		}
		b.events.quiet.Store(false)
		if allocs != 0 {
			t.Errorf("%s: got %v allocations for a query, want none", name, allocs)
		}
	}
}

func BenchmarkHandle(b *testing.B) {
	e := differ(b)
	reader := e.NewReader()
	e.events.quiet.Store(true)
	for _, name := range []string{"www.test", "deep.below.ads.test"} {
		raw, err := queryEDNS(name, dns.TypeA, 1232, false).Pack()
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			m := listen.Message{Raw: raw, Client: lan, Protocol: listen.UDP, Lane: 1, Arrived: time.Now()}
			out := make([]byte, 0, 4096)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				reader.Handle(&m, out)
				if n++; n%32 == 0 {
					reader.BatchDone()
				}
			}
		})
	}
}

var _ engine.Recorder = (*recorder)(nil)
