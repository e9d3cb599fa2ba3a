package dns_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	engine "dnsfleet/internal/dns"
	"dnsfleet/internal/fleet"
)

// manyRecords is a name with more addresses than fit in one datagram.
func manyRecords(n int) []string {
	var zone []string
	for i := range n {
		zone = append(zone, fmt.Sprintf("many.test. 300 IN A 192.0.2.%d", i+1))
	}
	return zone
}

func TestUDPAnswersFitWhatTheClientTakes(t *testing.T) {
	up := serveUpstream(t, zoneHandler(t, manyRecords(200)...))
	b := start(t, policyOf(up.url()), nil)
	for _, c := range []struct {
		name      string
		query     *dns.Msg
		limit     int
		truncated bool
	}{
		{"a client without OPT gets 512 bytes", query("many.test", dns.TypeA), 512, true},
		{"a client that offers 900 gets 900", queryEDNS("many.test", dns.TypeA, 900, false), 900, true},
		{"a client that offers 100 gets 512", queryEDNS("many.test", dns.TypeA, 100, false), 512, true},
		{"a client that offers 65535 gets 1232", queryEDNS("many.test", dns.TypeA, 65535, false), 1232, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw := exchangeRaw(t, b.addr, c.query)
			reply := new(dns.Msg)
			if err := reply.Unpack(raw); err != nil {
				t.Fatalf("unpack: %v", err)
			}
			if len(raw) > c.limit || len(raw) < c.limit-100 || reply.Truncated != c.truncated {
				t.Errorf("got %d bytes, TC %v; want nearly %d, TC %v", len(raw), reply.Truncated, c.limit, c.truncated)
			}
			if got, want := reply.IsEdns0() != nil, c.query.IsEdns0() != nil; got != want {
				t.Errorf("OPT: got %v, want %v", got, want)
			}
		})
	}
	if got := b.ask(t, "tcp", query("many.test", dns.TypeA)); len(got.Answer) != 200 || got.Truncated {
		t.Errorf("over tcp: got %d records, TC %v; want all 200", len(got.Answer), got.Truncated)
	}
}

func exchangeRaw(t testing.TB, addr string, q *dns.Msg) []byte {
	t.Helper()
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	wire, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(wire); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	buffer := make([]byte, 65535)
	n, err := conn.Read(buffer)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return buffer[:n]
}

func TestTheAnswerKeepsWhatTheClientWrote(t *testing.T) {
	up := serveUpstream(t, zoneHandler(t, "www.test. 300 IN A 192.0.2.1"))
	b := start(t, policyOf(up.url()), nil)
	for _, when := range []string{"from the upstream", "from the cache"} {
		q := queryEDNS("wWw.TeSt", dns.TypeA, 1232, true)
		q.CheckingDisabled = true
		reply := b.ask(t, "udp", q)
		if reply.Question[0].Name != "wWw.TeSt." {
			t.Errorf("%s: question: got %s, want the client's letters", when, reply.Question[0].Name)
		}
		if !reply.RecursionDesired || !reply.CheckingDisabled || !reply.IsEdns0().Do() {
			t.Errorf("%s: got RD %v CD %v DO %v, want all set", when, reply.RecursionDesired, reply.CheckingDisabled, reply.IsEdns0().Do())
		}
	}
	plain := b.ask(t, "udp", query("www.test", dns.TypeA))
	if plain.CheckingDisabled || b.events.outcomes()[fleet.Upstream] != 2 {
		t.Errorf("without DO and CD: got CD %v, %v; want an answer of its own", plain.CheckingDisabled, b.events.outcomes())
	}
}

func TestTheAnswerLeavesFromTheAddressThatWasAsked(t *testing.T) {
	b := start(t, policyOf(), func(o *engine.Options) { o.Listen = []string{":0"} })
	_, port, err := net.SplitHostPort(b.addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "127.0.0.2"} { // a connected socket takes answers from there only
		b.addr = net.JoinHostPort(host, port)
		if reply := b.ask(t, "udp", query("localhost", dns.TypeA)); len(reply.Answer) != 1 {
			t.Errorf("%s: got %s, want an answer", host, describe(reply))
		}
	}
}

func TestSeveralAddressesAreServed(t *testing.T) {
	b := start(t, policyOf(), func(o *engine.Options) { o.Listen = []string{"127.0.0.1:0", " 127.0.0.2:0"} })
	if got := b.Addrs(); len(got) != 2 {
		t.Fatalf("got %v, want two addresses", got)
	}
	for _, addr := range b.Addrs() {
		b.addr = addr
		for _, network := range []string{"udp", "tcp"} {
			if reply := b.ask(t, network, query("localhost", dns.TypeA)); len(reply.Answer) != 1 {
				t.Errorf("%s %s: got %s, want an answer", network, addr, describe(reply))
			}
		}
	}
}

func TestTheADBitIsOnlyForThoseWhoKnowIt(t *testing.T) {
	up := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		reply := new(dns.Msg).SetReply(q)
		reply.Answer = []dns.RR{mustRR("www.test. 300 IN A 192.0.2.1")}
		reply.AuthenticatedData = true
		_ = w.WriteMsg(reply)
	})
	b := start(t, policyOf(up.url()), nil)
	knows := query("www.test", dns.TypeA)
	knows.AuthenticatedData = true
	if reply := b.ask(t, "udp", query("www.test", dns.TypeA)); reply.AuthenticatedData {
		t.Error("a client that sent neither AD nor DO: got AD, want none")
	}
	if reply := b.ask(t, "udp", knows); !reply.AuthenticatedData {
		t.Error("a client that sent AD: got none, want AD")
	}
}

func TestTCPAnswersSeveralQueriesOnOneConnection(t *testing.T) {
	release := make(chan struct{})
	up := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		<-release
		zoneHandler(t, "slow.test. 300 IN A 192.0.2.1")(w, q)
	})
	b := start(t, policyOf(up.url()), nil)
	conn, err := dns.Dial("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, name := range []string{"slow.test", "localhost"} {
		if err := conn.WriteMsg(query(name, dns.TypeA)); err != nil {
			t.Fatal(err)
		}
	}
	first, err := conn.ReadMsg()
	if err != nil || first.Question[0].Name != "localhost." {
		t.Fatalf("first answer: got %v %v, want the one that waits for nobody", first, err)
	}
	close(release)
	second, err := conn.ReadMsg()
	if err != nil || answers(second) != "slow.test. 300 IN A 192.0.2.1" {
		t.Fatalf("second answer: got %v %v, want slow.test", second, err)
	}
}

func TestHostilePacketsAreSurvivedAndCounted(t *testing.T) {
	b := start(t, policyOf("udp://127.0.0.1:1"), nil)
	random := rand.New(rand.NewPCG(1, 2))
	valid, _ := queryEDNS("www.localhost", dns.TypeA, 1232, true).Pack()
	conn, err := net.Dial("udp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sent := 0
	for i := range 3000 {
		packet := hostile(random, valid, i)
		if len(packet) == 0 {
			continue
		}
		if _, err := conn.Write(packet); err != nil {
			t.Fatal(err)
		}
		if !(len(packet) > 2 && packet[2]&0x80 != 0) {
			sent++
		}
		if i%50 == 0 { // stay behind the reader: the kernel's queue is not what is tested
			b.ask(t, "udp", query("localhost", dns.TypeA))
			sent++
		}
	}
	for _, stream := range [][]byte{{0xFF, 0xFF, 1}, {0, 0}, {0, 3, 1, 2, 3}, append([]byte{0, byte(len(valid))}, valid[:5]...)} {
		c, err := net.Dial("tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(stream)
		_ = c.Close()
	}
	if reply := b.ask(t, "udp", query("localhost", dns.TypeA)); len(reply.Answer) != 1 {
		t.Errorf("afterwards: got %s, want an answer", describe(reply))
	}
	if reply := b.ask(t, "tcp", query("localhost", dns.TypeA)); len(reply.Answer) != 1 {
		t.Errorf("afterwards over tcp: got %s, want an answer", describe(reply))
	}
	udp := 0
	eventually(t, "every packet that is no response has one event", func() bool {
		udp = 0
		for _, e := range b.events.all() {
			if e.Protocol == "udp" {
				udp++
			}
		}
		return udp == sent+1
	})
}

// hostile makes noise, broken headers, cut messages and flipped bits of a valid query.
func hostile(random *rand.Rand, valid []byte, i int) []byte {
	packet := make([]byte, random.IntN(120)+1)
	for j := range packet {
		packet[j] = byte(random.Uint32())
	}
	switch i % 6 {
	case 1:
		return valid[:random.IntN(len(valid))]
	case 2:
		flipped := append([]byte(nil), valid...)
		flipped[random.IntN(len(flipped))] ^= 1 << random.IntN(8)
		return flipped
	case 3: // compression loop
		return append(append([]byte{1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, 0xC0, 12), 0, 1, 0, 1)
	case 4: // counts that lie
		lie := append([]byte(nil), valid...)
		binary.BigEndian.PutUint16(lie[4+2*random.IntN(4):], uint16(random.Uint32()))
		return lie
	case 5: // a response
		response := append([]byte(nil), valid...)
		response[2] |= 0x80
		return response
	}
	return packet
}

func TestAnswersAreNotLargerThanAskedForByNoise(t *testing.T) {
	b := start(t, policyOf(), nil)
	random := rand.New(rand.NewPCG(3, 4))
	conn, err := net.Dial("udp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	packet := make([]byte, 40)
	buffer := make([]byte, 65535)
	for range 100 {
		for j := range packet {
			packet[j] = byte(random.Uint32())
		}
		packet[2] &= 0x7F
		if _, err := conn.Write(packet); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := conn.Read(buffer)
		if err != nil || n > len(packet) || buffer[2]&0x80 == 0 || buffer[3]&0x80 == 0 {
			t.Fatalf("got %d bytes % x, %v; want a short response with RA", n, buffer[:min(n, 12)], err)
		}
	}
}

func TestNothingIsLeftRunningAfterRun(t *testing.T) {
	before := runtime.NumGoroutine()
	up := serveUpstream(t, zoneHandler(t, "www.test. 300 IN A 192.0.2.1"))
	p := policyOf(up.url())
	_, list := writeList(t, "ads.test\n")
	p.Lists = []fleet.PolicyList{{Name: "mine", URL: list}}
	b := start(t, p, nil)
	conn, err := dns.Dial("tcp", b.addr) // idle: it must not keep Run
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var clients sync.WaitGroup
	for range 20 {
		clients.Go(func() { b.ask(t, "udp", query("www.test", dns.TypeA)) })
	}
	clients.Wait()
	begun := time.Now()
	b.stop()
	if took := time.Since(begun); took > 1900*time.Millisecond {
		t.Errorf("stop with an idle connection took %v, want less than the grace", took)
	}
	up.stop()
	eventually(t, "no goroutine more than before", func() bool { return runtime.NumGoroutine() <= before })
	if _, err := net.Dial("tcp", b.addr); err == nil {
		t.Error("the port still answers")
	}
}

func TestQueriesUnderWayAreFinishedAtTheEnd(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	up := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		close(asked)
		<-release
		zoneHandler(t, "slow.test. 300 IN A 192.0.2.1")(w, q)
	})
	b := start(t, policyOf(up.url()), nil)
	answered := make(chan *dns.Msg, 1)
	go func() { answered <- b.ask(t, "udp", query("slow.test", dns.TypeA)) }()
	<-asked
	stopped := make(chan struct{})
	go func() {
		b.stop()
		close(stopped)
	}()
	eventually(t, "the port is given up", func() bool {
		c, err := net.Dial("tcp", b.addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	close(release)
	if reply := <-answered; len(reply.Answer) != 1 {
		t.Errorf("got %s, want the answer", describe(reply))
	}
	<-stopped
}

func TestAQueryThatHangsDoesNotKeepTheEnd(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	b := start(t, policyOf("udp://"+silent.LocalAddr().String()), nil)
	conn, err := net.Dial("udp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	wire, _ := query("www.test", dns.TypeA).Pack()
	_, _ = conn.Write(wire)
	if _, _, err := silent.ReadFrom(make([]byte, 512)); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	b.stop()
	if took := time.Since(begun); took > 4*time.Second {
		t.Errorf("stop took %v, want about 2 s", took)
	}
	if got := b.events.outcomes()[fleet.UpstreamError]; got != 1 {
		t.Errorf("upstream_error: got %d, want the hanging query counted once", got)
	}
}

func TestManyClientsAtOnceLoseNothing(t *testing.T) {
	up := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		reply := new(dns.Msg).SetReply(q)
		reply.Answer = []dns.RR{mustRR(q.Question[0].Name + " 300 IN A 192.0.2.1")}
		_ = w.WriteMsg(reply)
	})
	p := policyOf(up.url())
	p.Deny = []string{"denied.test"}
	b := start(t, p, nil)
	var clients sync.WaitGroup
	for client := range 8 {
		clients.Go(func() {
			for i := range 50 {
				name := fmt.Sprintf("n%d.%s", i, []string{"www.test", "denied.test"}[(client+i)%2])
				b.ask(t, []string{"udp", "tcp"}[i%10/9], query(name, dns.TypeA))
			}
		})
	}
	clients.Wait()
	total, blocked := 0, 0
	for outcome, n := range b.events.outcomes() {
		total += n
		if outcome == fleet.Blocked {
			blocked = n
		}
	}
	if total != 400 || blocked != 200 {
		t.Errorf("got %v, want 400 in all, 200 blocked", b.events.outcomes())
	}
}

func TestATrickleDoesNotKeepAConnection(t *testing.T) {
	b := start(t, policyOf(), nil)
	conns := make([]net.Conn, 0, 200)
	for range 200 {
		c, err := net.Dial("tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte{0})
		conns = append(conns, c)
	}
	if reply := b.ask(t, "tcp", query("localhost", dns.TypeA)); len(reply.Answer) != 1 {
		t.Errorf("beside 200 that trickle: got %s, want an answer", describe(reply))
	}
	_ = conns[0].SetReadDeadline(time.Now().Add(8 * time.Second))
	if _, err := conns[0].Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !strings.Contains(fmt.Sprint(err), "reset") {
		t.Errorf("a connection that sends no more: got %v, want it closed", err)
	}
	for _, c := range conns {
		_ = c.Close()
	}
}

func BenchmarkCachedQuery(b *testing.B) {
	up := serveUpstream(b, zoneHandler(b, "www.test. 3600 IN A 192.0.2.1"))
	served := start(b, policyOf(up.url()), func(o *engine.Options) { o.Recorder = nil })
	conn, err := dns.Dial("udp", served.addr)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	q := queryEDNS("www.test", dns.TypeA, 1232, false)
	for b.Loop() {
		if err := conn.WriteMsg(q); err != nil {
			b.Fatal(err)
		}
		if _, err := conn.ReadMsg(); err != nil {
			b.Fatal(err)
		}
	}
}
