package upstream_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/upstream"
	"dnsfleet/internal/dns/upstream/upstreamtest"
	"dnsfleet/internal/dns/upstream/wire"
	"dnsfleet/internal/fleet"
)

func TestTheLongestDomainThatFitsDecides(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		everybody, corp, lab, reverse := newMoody(t), newMoody(t), newMoody(t), newMoody(t)
		p := policyOf("failover", everybody.UDP())
		p.Conditional = []fleet.PolicyConditional{
			{Domain: "corp.example", Upstreams: upstreams(nobody(t), corp.UDP())},
			{Domain: "Lab.Corp.Example.", Upstreams: upstreams(lab.UDP())},
			{Domain: "1.168.192.in-addr.arpa", Upstreams: upstreams(reverse.UDP())},
		}
		b := w.use(t, p)
		for name, want := range map[string]*moody{
			"www.example.":                everybody,
			"example.":                    everybody,
			"notcorp.example.":            everybody,
			"corp.example.net.":           everybody,
			"corp.example.":               corp,
			"WWW.Corp.example.":           corp,
			"a.b.c.corp.example.":         corp,
			"lab.corp.example.":           lab,
			"pc.LAB.corp.example.":        lab,
			"mylab.corp.example.":         corp,
			"5.1.168.192.in-addr.arpa.":   reverse,
			"5.11.168.192.in-addr.arpa.":  everybody,
			"1.168.192.in-addr.arpa.":     reverse,
			".":                           everybody,
			"4.3.2.1.in-addr.arpa.":       everybody,
			`a\.corp.example.`:            everybody,
			`with\.dot.lab.corp.example.`: lab,
		} {
			if got := b.ask(t, name).Address; got != want.UDP() {
				t.Errorf("%s: got asked %s, want %s", name, got, want.UDP())
			}
		}
		states := b.States()
		if len(states) != 5 || states[0].Domain != "" || states[1].Domain != "corp.example" || states[1].Healthy || states[3].Domain != "lab.corp.example" {
			t.Errorf("got %+v, want every upstream with its domain", states)
		}
	})
}

func TestADomainWhoseUpstreamsFailIsNotToldToOthers(t *testing.T) {
	everybody := newMoody(t)
	p := policyOf("failover", everybody.UDP())
	p.Conditional = []fleet.PolicyConditional{
		{Domain: "dead.example", Upstreams: upstreams(nobody(t))},
		{Domain: "later.example", Upstreams: upstreams("quic://dns.example", "udp://127.0.0.1:5353")},
	}
	pool := upstream.NewPool(upstream.Options{})
	defer pool.Close()
	router, unapplied := pool.Use(p, []string{"127.0.0.1:5353"})
	if want := []string{"conditional[1].upstreams[0]", "conditional[1].upstreams[1]"}; !slices.Equal(unapplied, want) {
		t.Errorf("unapplied: got %v, want %v", unapplied, want)
	}
	for _, name := range []string{"www.dead.example.", "www.later.example."} {
		if _, err := router.Resolve(t.Context(), question(name)); !errors.Is(err, upstream.ErrNoAnswer) {
			t.Errorf("%s: got %v, want ErrNoAnswer", name, err)
		}
	}
	if got := everybody.Heard.Load(); got != 0 {
		t.Errorf("got %d queries at the upstream for all others, want none", got)
	}
}

func TestFailuresAreRememberedPerQuestionLongerEachTimeButNeverOverFiveMinutes(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		bad := newMoody(t)
		bad.rcode.Store(dns.RcodeServerFailure)
		b := w.use(t, policyOf("failover", bad.UDP()))
		fails := func() bool { // with an upstream's SERVFAIL, not a remembered one
			t.Helper()
			result, err := b.resolve(t.Context(), "www.test.")
			if err == nil && result.Msg.Rcode == dns.RcodeServerFailure && result.Address == bad.UDP() {
				return true
			}
			if !errors.Is(err, upstream.ErrCachedFailure) {
				t.Fatalf("got %v, %v, want SERVFAIL or ErrCachedFailure", result.Msg, err)
			}
			return false
		}
		for i, lasts := range []int{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
			if !fails() {
				t.Fatalf("failure %d: got a remembered one, want the upstream asked", i+1)
			}
			b.clock.advance(time.Duration(lasts)*time.Second - 300*time.Millisecond)
			if fails() {
				t.Errorf("after failure %d: got asked again before %d s", i+1, lasts)
			}
			if result, err := b.resolve(t.Context(), fmt.Sprintf("n%d.test.", i)); err != nil {
				t.Errorf("another question: got %v, %v, want the upstream asked", result.Msg, err)
			}
			b.clock.advance(300 * time.Millisecond)
		}
		bad.rcode.Store(dns.RcodeSuccess)
		b.ask(t, "www.test.")
		bad.rcode.Store(dns.RcodeServerFailure)
		fails()
		b.clock.advance(1100 * time.Millisecond)
		if !fails() {
			t.Error("after an answer: got the next failure remembered for longer than a second")
		}
	})
}

func TestThatNobodyAnsweredIsForgottenWhenAnUpstreamComesBack(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		only := newMoody(t)
		only.rcode.Store(dns.RcodeRefused)
		b := w.use(t, policyOf("failover", only.UDP()))
		for range 5 {
			if _, err := b.resolve(t.Context(), "www.test."); !errors.Is(err, upstream.ErrNoAnswer) {
				t.Fatalf("got %v, want ErrNoAnswer", err)
			}
			if _, err := b.resolve(t.Context(), "WWW.test."); !errors.Is(err, upstream.ErrCachedFailure) {
				t.Fatalf("got %v, want ErrCachedFailure", err)
			}
			b.clock.advance(17 * time.Second)
		}
		if _, err := b.resolve(t.Context(), "www.test."); !errors.Is(err, upstream.ErrNoAnswer) {
			t.Fatalf("got %v, want ErrNoAnswer", err)
		}
		only.rcode.Store(dns.RcodeSuccess)
		b.clock.advance(2 * time.Second) // of 32
		b.ask(t, "other.test.")
		b.ask(t, "www.test.")
	})
}

func TestWireAndMessagesGiveTheSameAnswers(t *testing.T) {
	s := upstreamtest.Start(t, upstreamtest.Manner{})
	for _, address := range []string{s.UDP(), s.TCP()} {
		b := use(t, policyOf("failover", address))
		query, err := question("www.test.").Pack()
		if err != nil {
			t.Fatal(err)
		}
		wire.SetID(query, 4711)
		answer, from, err := b.ExchangeWire(t.Context(), query)
		if err != nil || from != address || !wire.Answers(answer, query) {
			t.Fatalf("got % x from %s, %v, want an answer to this query", answer, from, err)
		}
		if wire.ID(query) != 4711 {
			t.Error("the caller's query was changed")
		}
		msg := new(dns.Msg)
		if err := msg.Unpack(answer); err != nil {
			t.Fatal(err)
		}
		want := b.ask(t, "www.test.").Msg
		want.Id = msg.Id
		if msg.String() != want.String() {
			t.Errorf("got\n%v\nwant\n%v", msg, want)
		}
	}
}

func TestEncryptedUpstreamsAreVerifiedByTheNameInThePolicy(t *testing.T) {
	ca := upstreamtest.NewAuthority(t)
	s := upstreamtest.Start(t, upstreamtest.Manner{})
	config := &tls.Config{Certificates: []tls.Certificate{ca.Certificate(t, time.Now().Add(time.Hour), "dns.test")}}
	dot, doh := s.ServeTLS(t, config), s.ServeHTTPS(t, config, s.DoH)
	_, dotPort, _ := net.SplitHostPort(dot)
	_, dohPort, _ := net.SplitHostPort(doh)
	boot := []string{"127.0.0.1"}
	for what, c := range map[string]struct {
		upstream fleet.PolicyUpstream
		trusted  bool
		want     bool
	}{
		"DoT by name":                   {fleet.PolicyUpstream{Address: "tls://dns.test:" + dotPort, Bootstrap: boot}, true, true},
		"DoT by address and name":       {fleet.PolicyUpstream{Address: "tls://" + dot + "#dns.test"}, true, true},
		"DoH by name":                   {fleet.PolicyUpstream{Address: "https://dns.test:" + dohPort, Bootstrap: boot}, true, true},
		"DoT by another name":           {fleet.PolicyUpstream{Address: "tls://evil.test:" + dotPort, Bootstrap: boot}, true, false},
		"DoT by address":                {fleet.PolicyUpstream{Address: "tls://" + dot}, true, false},
		"DoH by another name":           {fleet.PolicyUpstream{Address: "https://evil.test:" + dohPort + "/dns-query", Bootstrap: boot}, true, false},
		"DoT by an authority not known": {fleet.PolicyUpstream{Address: "tls://" + dot + "#dns.test"}, false, false},
		"DoH by an authority not known": {fleet.PolicyUpstream{Address: "https://dns.test:" + dohPort, Bootstrap: boot}, false, false},
	} {
		o := upstream.Options{}
		if c.trusted {
			o.RootCAs = ca.Pool
		}
		pool := upstream.NewPool(o)
		router, _ := pool.Use(fleet.Policy{Upstreams: []fleet.PolicyUpstream{c.upstream}}, nil)
		result, err := router.Resolve(t.Context(), question("www.test."))
		if got := err == nil; got != c.want {
			t.Errorf("%s: got %v, %v, want an answer: %v", what, result.Msg, err, c.want)
		}
		pool.Close()
	}
}

func TestWhatIsNoQueryIsNotSent(t *testing.T) {
	s := upstreamtest.Start(t, upstreamtest.Manner{})
	b := use(t, policyOf("failover", s.UDP()))
	for what, query := range map[string][]byte{"nothing": nil, "a response": upstreamtest.Right(mustPack(t)), "too long": append(mustPack(t), make([]byte, 1300)...)} {
		if _, _, err := b.ExchangeWire(t.Context(), query); !errors.Is(err, upstream.ErrUnforwardable) {
			t.Errorf("%s: got %v, want ErrUnforwardable", what, err)
		}
	}
	if got := s.Heard.Load(); got != 0 {
		t.Errorf("got %d queries sent, want none", got)
	}
}

func mustPack(t testing.TB) []byte {
	t.Helper()
	query, err := question("www.test.").Pack()
	if err != nil {
		t.Fatal(err)
	}
	return query
}

func TestAnotherPolicyKeepsWhatItSharesAndClosesTheRest(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		kept, gone := upstreamtest.Start(t, upstreamtest.Manner{}), upstreamtest.Start(t, upstreamtest.Manner{})
		b := w.use(t, policyOf("failover", kept.TCP(), gone.TCP()))
		b.ask(t, "www.test.")
		before := b.Router
		b.use(t, policyOf("failover", gone.TCP()))
		b.ask(t, "www.test.")
		b.use(t, policyOf("balance", kept.TCP()))
		b.ask(t, "www.test.")
		b.use(t, policyOf("failover", kept.TCP()))
		b.ask(t, "www.test.")
		if got := kept.Conns.Load(); got != 2 {
			t.Errorf("got %d connections, want 2: one kept from balance to failover", got)
		}
		begun := time.Now()
		eventually(t, "the connection is closed to whom the policy names no longer", func() bool { return gone.Open.Load() == 0 })
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("got it closed after %v, want it long before it is idle", took)
		}
		if s := b.States()[0]; s.LastOK.IsZero() {
			t.Errorf("got %+v, want what was known of it", s)
		}
		if result, err := before.Resolve(t.Context(), question("late.test.")); err != nil {
			t.Errorf("a query by the policy before: got %v, %v, want an answer", result.Msg, err)
		}
	})
}

func TestPolicies(t *testing.T) {
	pool := upstream.NewPool(upstream.Options{})
	defer pool.Close()
	p := policyOf("luck", "udp://127.0.0.1:5353", "quic://dns.example", "nonsense://", "127.0.0.1:5354")
	p.Upstreams = append(p.Upstreams, fleet.PolicyUpstream{Address: "tls://self.test:5353", Bootstrap: []string{"127.0.0.1"}})
	router, unapplied := pool.Use(p, []string{":5353"})
	if want := []string{"upstream_strategy", "upstreams[0]", "upstreams[1]", "upstreams[2]", "upstreams[4]"}; !slices.Equal(unapplied, want) {
		t.Errorf("unapplied: got %v, want %v", unapplied, want)
	}
	if states := router.States(); len(states) != 1 || states[0].Address != "127.0.0.1:5354" {
		t.Errorf("got %+v, want the one that can be used", states)
	}
	router, _ = pool.Use(fleet.Policy{}, nil)
	if _, err := router.Resolve(t.Context(), question("www.test.")); !errors.Is(err, upstream.ErrNoAnswer) || !strings.Contains(err.Error(), "no upstream") {
		t.Errorf("no upstreams: got %v, want ErrNoAnswer that says so", err)
	}
	if states := router.States(); states == nil || len(states) != 0 {
		t.Errorf("no upstreams: got states %v, want an empty list", states)
	}
}

// echo answers datagrams with no records, as fast as it can.
func echo(b *testing.B) string {
	b.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		buffer := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			buffer[2] |= 0x80
			_, _ = conn.WriteToUDPAddrPort(buffer[:n], from)
		}
	})
	b.Cleanup(func() {
		_ = conn.Close()
		done.Wait()
	})
	return "udp://" + conn.LocalAddr().String()
}

func BenchmarkForward(b *testing.B) {
	addresses := []string{echo(b), echo(b)}
	msg := question("www.test.")
	query := mustPack(b)
	for _, strategy := range []string{"failover", "fastest", "parallel"} {
		bench := use(b, policyOf(strategy, addresses...))
		b.Run(strategy+"/wire", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := bench.ExchangeWire(context.Background(), query); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(strategy+"/messages", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := bench.Resolve(context.Background(), msg); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
