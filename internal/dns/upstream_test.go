package dns_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	engine "dnsfleet/internal/dns"
	"dnsfleet/internal/fleet"
)

func TestATruncatedAnswerIsAskedForAgainOverTCP(t *testing.T) {
	up := serveUpstream(t, zoneHandler(t, manyRecords(200)...))
	b := start(t, policyOf(up.url()), nil)
	reply := b.ask(t, "tcp", query("many.test", dns.TypeA))
	if len(reply.Answer) != 200 {
		t.Errorf("got %d records, want 200", len(reply.Answer))
	}
	if count, failed := b.exchanges.of(up.url()); count != 1 || failed != 0 || up.asked.Load() != 2 {
		t.Errorf("got %d exchanges, %d failed, %d questions; want 1, 0, 2", count, failed, up.asked.Load())
	}
}

// forger answers each question over UDP with wrong answers first, then with the right one.
func forger(t testing.TB) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	other, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		buffer := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			q := new(dns.Msg)
			if q.Unpack(buffer[:n]) != nil {
				continue
			}
			send := func(via net.PacketConn, change func(*dns.Msg)) {
				reply := new(dns.Msg).SetReply(q)
				reply.Answer = []dns.RR{mustRR("www.test. 300 IN A 6.6.6.6")}
				change(reply)
				wire, _ := reply.Pack()
				_, _ = via.WriteTo(wire, from)
			}
			send(conn, func(m *dns.Msg) { m.Id++ })
			send(conn, func(m *dns.Msg) { m.Question[0].Name = "evil.test." })
			send(conn, func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA })
			send(conn, func(m *dns.Msg) { m.Response = false })
			send(conn, func(m *dns.Msg) { m.Question = nil })
			send(other, func(*dns.Msg) {})
			_, _ = conn.WriteTo([]byte("garbage"), from)
			send(conn, func(m *dns.Msg) { m.Answer = []dns.RR{mustRR("www.test. 300 IN A 192.0.2.1")} })
		}
	})
	t.Cleanup(func() {
		_ = conn.Close()
		_ = other.Close()
		done.Wait()
	})
	return "udp://" + conn.LocalAddr().String()
}

func TestAWrongAnswerIsPassedOverWhileTheRightOneIsAwaited(t *testing.T) {
	b := start(t, policyOf(forger(t)), nil)
	if reply := b.ask(t, "udp", query("www.test", dns.TypeA)); answers(reply) != "www.test. 300 IN A 192.0.2.1" {
		t.Errorf("got %s, want the right answer", describe(reply))
	}
}

func TestQuestionsLeaveWithIdsAndPortsOfTheirOwn(t *testing.T) {
	var mu sync.Mutex
	ids, ports := map[uint16]bool{}, map[string]bool{}
	up := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		mu.Lock()
		ids[q.Id], ports[w.RemoteAddr().String()] = true, true
		mu.Unlock()
		zoneHandler(t)(w, q)
	})
	b := start(t, policyOf(up.url()), nil)
	for i := range 200 {
		q := query(fmt.Sprintf("n%d.test", i), dns.TypeA)
		q.Id = 7
		b.ask(t, "udp", q)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(ids) < 190 || len(ports) < 180 || ids[7] && len(ids) == 1 {
		t.Errorf("200 questions: got %d ids and %d ports, want nearly 200 of each", len(ids), len(ports))
	}
}

func TestTheNextUpstreamAnswersWhenOneFails(t *testing.T) {
	closed, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := "udp://" + closed.LocalAddr().String()
	_ = closed.Close()
	failing := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure))
	})
	good := serveUpstream(t, zoneHandler(t, "a.test. 300 IN A 192.0.2.1", "b.test. 300 IN A 192.0.2.2"))
	b := start(t, policyOf(dead, failing.url(), good.url()), nil)

	for _, name := range []string{"a.test", "b.test"} {
		if reply := b.ask(t, "udp", query(name, dns.TypeA)); len(reply.Answer) != 1 {
			t.Fatalf("%s: got %s, want an answer", name, describe(reply))
		}
	}
	if count, failed := b.exchanges.of(dead); count != 1 || failed != 1 {
		t.Errorf("the dead upstream: got %d exchanges, %d failed; want 1, 1, then to be tried last", count, failed)
	}
	states := b.Upstreams()
	if len(states) != 3 || states[0].Healthy || states[0].LastError == "" || !states[1].Healthy || !states[2].Healthy {
		t.Errorf("states: got %+v, want only the first unhealthy, with its error", states)
	}
	last := b.events.all()[1]
	if last.Upstream != good.url() {
		t.Errorf("event: got upstream %q, want %q", last.Upstream, good.url())
	}
	b.clock.advance(time.Minute)
	b.ask(t, "udp", query("c.test", dns.TypeA))
	if count, _ := b.exchanges.of(dead); count != 2 {
		t.Errorf("after a minute: got %d exchanges with the dead upstream, want it tried first again", count)
	}
}

func TestALostPacketIsSentAgain(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		buffer := make([]byte, 4096)
		for i := 0; ; i++ {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			q := new(dns.Msg)
			if i == 0 || q.Unpack(buffer[:n]) != nil {
				continue // lost
			}
			reply := new(dns.Msg).SetReply(q)
			reply.Answer = []dns.RR{mustRR("www.test. 300 IN A 192.0.2.1")}
			wire, _ := reply.Pack()
			_, _ = conn.WriteTo(wire, from)
		}
	})
	defer done.Wait()
	defer conn.Close()
	b := start(t, policyOf("udp://"+conn.LocalAddr().String()), nil)
	if reply := b.ask(t, "udp", query("www.test", dns.TypeA)); len(reply.Answer) != 1 {
		t.Errorf("got %s, want an answer", describe(reply))
	}
}

func TestIdenticalQueriesShareOneExchange(t *testing.T) {
	up := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		<-time.After(200 * time.Millisecond) // long enough for all to arrive
		zoneHandler(t, "www.test. 300 IN A 192.0.2.1")(w, q)
	})
	b := start(t, policyOf(up.url()), nil)
	var clients sync.WaitGroup
	for range 50 {
		clients.Go(func() {
			if reply := b.ask(t, "udp", query("www.test", dns.TypeA)); len(reply.Answer) != 1 {
				t.Errorf("got %s, want an answer", describe(reply))
			}
		})
	}
	clients.Wait()
	if got := up.asked.Load(); got != 1 {
		t.Errorf("upstream was asked %d times, want once", got)
	}
	if count, _ := b.exchanges.of(up.url()); count != 1 {
		t.Errorf("exchanges: got %d, want 1", count)
	}
	if got := b.events.outcomes(); got[fleet.Upstream]+got[fleet.Cached] != 50 || got[fleet.Upstream] == 0 {
		t.Errorf("outcomes: got %v, want 50 of upstream and cached", got)
	}
}

func TestTTLsAgeAndExpiredAnswersServeWhenUpstreamsFail(t *testing.T) {
	up := serveUpstream(t, zoneHandler(t, "www.test. 100 IN A 192.0.2.1"))
	b := start(t, policyOf(up.url()), nil)
	for _, step := range []struct {
		advance time.Duration
		ttl     string
		outcome fleet.Outcome
		ede     int
	}{
		{0, "100", fleet.Upstream, -1},
		{40 * time.Second, "60", fleet.Cached, -1},
		{59 * time.Second, "1", fleet.Cached, -1},
		{2 * time.Second, "100", fleet.Upstream, -1},
	} {
		b.clock.advance(step.advance)
		reply := b.ask(t, "udp", queryEDNS("www.test", dns.TypeA, 1232, false))
		if got, want := describe(reply), fmt.Sprintf("NOERROR [www.test. %s IN A 192.0.2.1] ede=%d", step.ttl, step.ede); got != want {
			t.Errorf("after %v: got %s, want %s", step.advance, got, want)
		}
		events := b.events.all()
		if got := events[len(events)-1].Outcome; got != step.outcome {
			t.Errorf("after %v: got outcome %s, want %s", step.advance, got, step.outcome)
		}
	}
	up.stop()
	b.clock.advance(101 * time.Second)
	reply := b.ask(t, "udp", queryEDNS("www.test", dns.TypeA, 1232, false))
	if got, want := describe(reply), "NOERROR [www.test. 30 IN A 192.0.2.1] ede=3"; got != want {
		t.Errorf("upstream gone: got %s, want %s", got, want)
	}
	if got := b.events.outcomes()[fleet.Stale]; got != 1 {
		t.Errorf("stale: got %d, want 1", got)
	}
	b.clock.advance(25 * time.Hour)
	if reply := b.ask(t, "udp", queryEDNS("www.test", dns.TypeA, 1232, false)); reply.Rcode != dns.RcodeServerFailure || edeOf(reply) != 23 {
		t.Errorf("a day later: got %s, want SERVFAIL with EDE 23", describe(reply))
	}
	if stats := b.Cache(); stats.Hits != 2 || stats.Misses != 4 {
		t.Errorf("cache: got %d hits %d misses, want 2 and 4", stats.Hits, stats.Misses)
	}
}

func TestAStaleAnswerComesBeforeAClientLosesPatience(t *testing.T) {
	hang := make(chan struct{})
	var answered atomic.Bool
	up := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if answered.Swap(true) {
			<-hang
			return
		}
		zoneHandler(t, "www.test. 100 IN A 192.0.2.1")(w, q)
	})
	defer close(hang)
	b := start(t, policyOf(up.url(), up.url(), up.url()), nil) // three time-outs would take 4.5 s
	b.ask(t, "udp", query("www.test", dns.TypeA))
	b.clock.advance(101 * time.Second)
	begun := time.Now()
	reply := b.ask(t, "udp", query("www.test", dns.TypeA))
	if took := time.Since(begun); took > 4*time.Second || answers(reply) != "www.test. 30 IN A 192.0.2.1" {
		t.Errorf("got %s after %v, want the stale answer before the upstream times out", describe(reply), took)
	}
}

func TestUpstreamsByNameAreReachedThroughTheDialer(t *testing.T) {
	up := serveUpstream(t, zoneHandler(t, "www.test. 300 IN A 192.0.2.1"))
	_, port, _ := net.SplitHostPort(up.addr)
	var dialed sync.Map
	p := policyOf("resolver.example:" + port)
	b := start(t, p, func(o *engine.Options) {
		o.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			dialed.Store(address, true)
			return new(net.Dialer).DialContext(ctx, network, up.addr)
		}
	})
	if reply := b.ask(t, "udp", query("www.test", dns.TypeA)); len(reply.Answer) != 1 {
		t.Errorf("got %s, want an answer", describe(reply))
	}
	if _, found := dialed.Load("resolver.example:" + port); !found {
		t.Error("the dialer was not asked for the name")
	}
	p.Upstreams = []fleet.PolicyUpstream{{Address: "tcp://other.example:" + port, Bootstrap: []string{"127.0.0.1"}}}
	if _, err := b.Apply(t.Context(), fleet.NewPolicyDoc(p, 2, time.Now())); err != nil {
		t.Fatal(err)
	}
	if reply := b.ask(t, "udp", query("www.test", dns.TypeA)); len(reply.Answer) != 1 {
		t.Errorf("with bootstrap addresses: got %s, want an answer", describe(reply))
	}
	if _, found := dialed.Load("127.0.0.1:" + port); !found {
		t.Error("the bootstrap address was not dialed")
	}
}
