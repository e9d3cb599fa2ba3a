package dns_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	engine "dnsfleet/internal/dns"
	"dnsfleet/internal/fleet"
)

// recorder keeps every event, and announces each.
type recorder struct {
	mu     sync.Mutex // guards the following
	events []fleet.QueryEvent
	news   chan struct{}
	quiet  atomic.Bool // keep nothing
}

func newRecorder() *recorder { return &recorder{news: make(chan struct{}, 1<<16)} }

func (r *recorder) Record(_ int, lent *fleet.QueryEvent) {
	if r.quiet.Load() {
		return
	}
	e := *lent
	e.QName = strings.Clone(e.QName)
	r.mu.Lock()
	r.events = append(r.events, e)
	r.mu.Unlock()
	select {
	case r.news <- struct{}{}:
	default:
	}
}

func (r *recorder) all() []fleet.QueryEvent {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// outcomes counts what was recorded.
func (r *recorder) outcomes() map[fleet.Outcome]int {
	counts := map[fleet.Outcome]int{}
	for _, e := range r.all() {
		counts[e.Outcome]++
	}
	return counts
}

// exchanges counts what upstreams were asked.
type exchanges struct {
	mu            sync.Mutex // guards the following
	count, failed map[string]int
}

func newExchanges() *exchanges { return &exchanges{count: map[string]int{}, failed: map[string]int{}} }

func (x *exchanges) ObserveExchange(address string, _ time.Duration, failed bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.count[address]++
	if failed {
		x.failed[address]++
	}
}

func (x *exchanges) of(address string) (count, failed int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.count[address], x.failed[address]
}

// clock is a clock that tests put forward.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// bench is an engine that serves on loopback.
type bench struct {
	*engine.Engine
	addr      string
	events    *recorder
	exchanges *exchanges
	clock     *clock
	applied   fleet.Policy
	stop      func()
}

// start serves the policy until the test ends.
func start(t testing.TB, policy fleet.Policy, change func(*engine.Options)) *bench {
	t.Helper()
	b := startWithout(t, change)
	b.applied = policy
	if _, err := b.Apply(t.Context(), fleet.NewPolicyDoc(policy, 1, time.Now())); err != nil {
		t.Fatalf("apply policy: %v", err)
	}
	return b
}

// startWithout serves without a policy.
func startWithout(t testing.TB, change func(*engine.Options)) *bench {
	t.Helper()
	b := &bench{events: newRecorder(), exchanges: newExchanges(), clock: &clock{}}
	options := engine.Options{
		Listen: []string{"127.0.0.1:0"}, DataDir: t.TempDir(), Recorder: b.events, Exchanges: b.exchanges,
		Now: b.clock.now, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&options)
	}
	var err error
	if b.Engine, err = engine.New(options); err != nil {
		t.Fatalf("new engine: %v", err)
	}
	if err := b.Bind(t.Context()); err != nil {
		t.Fatalf("bind: %v", err)
	}
	if addrs := b.Addrs(); len(addrs) > 0 {
		b.addr = addrs[0]
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: got %v, want nil", err)
		}
	})
	t.Cleanup(b.stop)
	return b
}

// policyOf is a policy with these upstreams and no lists.
func policyOf(upstreams ...string) fleet.Policy {
	p := fleet.DefaultPolicy()
	p.Upstreams, p.Lists = []fleet.PolicyUpstream{}, []fleet.PolicyList{}
	for _, u := range upstreams {
		p.Upstreams = append(p.Upstreams, fleet.PolicyUpstream{Address: u})
	}
	return p
}

// ask sends one question and returns the answer.
func (b *bench) ask(t testing.TB, network string, q *dns.Msg) *dns.Msg {
	t.Helper()
	client := &dns.Client{Net: network, Timeout: 6 * time.Second, UDPSize: dns.MaxMsgSize}
	reply, _, err := client.ExchangeContext(t.Context(), q, b.addr)
	if err != nil {
		t.Fatalf("ask %s over %s: %v", q.Question[0].String(), network, err)
	}
	return reply
}

func query(name string, qtype uint16) *dns.Msg {
	return new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
}

func queryEDNS(name string, qtype uint16, size uint16, do bool) *dns.Msg {
	q := query(name, qtype)
	q.SetEdns0(size, do)
	return q
}

// edeOf is the extended error of an answer, -1 for none.
func edeOf(m *dns.Msg) int {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if ede, ok := o.(*dns.EDNS0_EDE); ok {
				return int(ede.InfoCode)
			}
		}
	}
	return -1
}

// upstreamServer is a real resolver on loopback, whose answers the test writes.
type upstreamServer struct {
	addr  string
	asked atomic.Int64
	stop  func()
}

// serveUpstream answers over UDP and TCP on one port until the test ends.
func serveUpstream(t testing.TB, handler func(w dns.ResponseWriter, q *dns.Msg)) *upstreamServer {
	t.Helper()
	l, pc := listenBoth(t)
	u := &upstreamServer{addr: l.Addr().String()}
	counted := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		u.asked.Add(1)
		handler(w, q)
	})
	var stops []func()
	for _, s := range []*dns.Server{{Listener: l, Handler: counted}, {PacketConn: pc, Handler: counted}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		done := make(chan error, 1)
		go func() { done <- s.ActivateAndServe() }()
		<-started // Shutdown refuses a server that has not started
		stops = append(stops, func() {
			_ = s.Shutdown()
			<-done
		})
	}
	u.stop = sync.OnceFunc(func() {
		for _, stop := range stops {
			stop()
		}
	})
	t.Cleanup(u.stop)
	return u
}

// listenBoth takes a port that is free for TCP and UDP.
func listenBoth(t testing.TB) (net.Listener, net.PacketConn) {
	t.Helper()
	for range 20 {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("listen: %v", err)
		}
		pc, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", l.Addr().String())
		if err == nil {
			return l, pc
		}
		_ = l.Close()
	}
	t.Fatal("listen: got no port that is free for both")
	return nil, nil
}

func (u *upstreamServer) url() string { return "udp://" + u.addr }

// zoneHandler answers from records in zone-file text; other names do not exist, other types are NODATA.
func zoneHandler(t testing.TB, records ...string) func(dns.ResponseWriter, *dns.Msg) {
	t.Helper()
	var zone []dns.RR
	for _, text := range records {
		zone = append(zone, rr(t, text))
	}
	return func(w dns.ResponseWriter, q *dns.Msg) {
		reply := new(dns.Msg).SetReply(q)
		reply.RecursionAvailable = true
		reply.Rcode = dns.RcodeNameError
		for _, rr := range zone {
			if !strings.EqualFold(rr.Header().Name, q.Question[0].Name) {
				continue
			}
			reply.Rcode = dns.RcodeSuccess
			if rr.Header().Rrtype == q.Question[0].Qtype {
				reply.Answer = append(reply.Answer, rr)
			}
		}
		if len(reply.Answer) == 0 {
			reply.Ns = []dns.RR{mustRR("test. 300 IN SOA ns.test. host.test. 1 1 1 1 60")}
		}
		if opt := q.IsEdns0(); opt != nil {
			reply.SetEdns0(1232, opt.Do())
		}
		if w.RemoteAddr().Network() == "udp" {
			reply.Truncate(1232)
		}
		_ = w.WriteMsg(reply)
	}
}

func rr(t testing.TB, text string) dns.RR {
	t.Helper()
	record, err := dns.NewRR(text)
	if err != nil {
		t.Fatalf("record %q: %v", text, err)
	}
	return record
}

func mustRR(text string) dns.RR {
	record, err := dns.NewRR(text)
	if err != nil {
		panic(err)
	}
	return record
}

func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("did not happen within 10 s: %s", what)
		case <-tick.C:
		}
	}
}

func answers(m *dns.Msg) string {
	var parts []string
	for _, rr := range m.Answer {
		parts = append(parts, strings.Join(strings.Fields(rr.String()), " "))
	}
	return strings.Join(parts, " | ")
}

func describe(m *dns.Msg) string {
	return fmt.Sprintf("%s [%s] ede=%d", dns.RcodeToString[m.Rcode], answers(m), edeOf(m))
}

func containsAll(text string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return false
		}
	}
	return true
}
