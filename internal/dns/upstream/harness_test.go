package upstream_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/upstream"
	"dnsfleet/internal/dns/upstream/upstreamtest"
	"dnsfleet/internal/fleet"
)

// clock is a clock that tests put forward.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// observer counts exchanges.
type observer struct {
	mu            sync.Mutex // guards the following
	count, failed map[string]int
}

func (o *observer) ObserveExchange(address string, _ time.Duration, failed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.count[address]++
	if failed {
		o.failed[address]++
	}
}

func (o *observer) of(address string) (count, failed int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count[address], o.failed[address]
}

// bench is a Router and what it is watched by.
type bench struct {
	*upstream.Router
	pool    *upstream.Pool
	clock   *clock
	told    *observer
	started bool // asks by Start
	runs    bool
}

func use(t testing.TB, p fleet.Policy) *bench {
	t.Helper()
	b := &bench{clock: &clock{}, told: &observer{count: map[string]int{}, failed: map[string]int{}}}
	b.pool = upstream.NewPool(upstream.Options{Observer: b.told, Now: b.clock.now})
	b.use(t, p)
	t.Cleanup(b.pool.Close)
	return b
}

// way is how a test asks.
type way string

const (
	resolving way = "resolve"
	starting  way = "start"
)

// bothWays runs a test that waits for each answer, and beside it one with Start over the loop.
func bothWays(t *testing.T, test func(t *testing.T, w way)) {
	t.Helper()
	for _, w := range []way{resolving, starting} {
		t.Run(string(w), func(t *testing.T) {
			t.Parallel()
			test(t, w)
		})
	}
}

func (w way) use(t testing.TB, p fleet.Policy) *bench {
	t.Helper()
	b := use(t, p)
	if w == starting {
		b.started = true
		b.run(t)
	}
	return b
}

func (b *bench) use(t testing.TB, p fleet.Policy) {
	t.Helper()
	var unapplied []string
	if b.Router, unapplied = b.pool.Use(p, nil); len(unapplied) > 0 {
		t.Fatalf("unapplied: got %v, want none", unapplied)
	}
}

// ask asks for an address, and expects one.
func (b *bench) ask(t testing.TB, name string) upstream.Result {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel() // as soon as there is an answer
	result, err := b.resolve(ctx, name)
	if err != nil || len(result.Msg.Answer) != 1 {
		t.Fatalf("%s: got %v, %v, want an answer", name, result.Msg, err)
	}
	return result
}

func (w way) resolve(r *upstream.Router, query *dns.Msg) (upstream.Result, error) {
	if w == starting {
		return start(r, query)
	}
	return r.Resolve(context.Background(), query)
}

func (b *bench) resolve(ctx context.Context, name string) (upstream.Result, error) {
	if b.started {
		return start(b.Router, question(name))
	}
	return b.Resolve(ctx, question(name))
}

// start is Resolve by Start.
func start(r *upstream.Router, query *dns.Msg) (upstream.Result, error) {
	packed, err := query.Pack()
	if err != nil {
		return upstream.Result{}, err
	}
	result := upstream.Result{Msg: new(dns.Msg)}
	ended := make(chan error, 2) // for one that is told twice, too
	r.Start(packed, func(answer []byte, address string, err error) {
		if err == nil {
			result.Address = address
			err = result.Msg.Unpack(answer)
		}
		ended <- err
	})
	clear(packed) // it was copied
	err = <-ended
	return result, err
}

func question(name string) *dns.Msg {
	return upstream.NewQuery(dns.Question{Name: name, Qtype: dns.TypeA, Qclass: dns.ClassINET}, false, false)
}

func policyOf(strategy string, addresses ...string) fleet.Policy {
	p := fleet.DefaultPolicy()
	p.UpstreamStrategy = strategy
	p.Upstreams = upstreams(addresses...)
	return p
}

func upstreams(addresses ...string) []fleet.PolicyUpstream {
	all := []fleet.PolicyUpstream{}
	for _, a := range addresses {
		all = append(all, fleet.PolicyUpstream{Address: a})
	}
	return all
}

// moody is a server that does as it is told while it runs.
type moody struct {
	*upstreamtest.Server
	delay  atomic.Int64 // nanoseconds
	silent atomic.Bool
	rcode  atomic.Int64
}

func newMoody(t testing.TB) *moody {
	t.Helper()
	m := &moody{}
	m.Server = upstreamtest.Start(t, upstreamtest.Manner{Packet: func(q []byte, to upstreamtest.Sender) {
		if m.silent.Load() {
			return
		}
		if d := time.Duration(m.delay.Load()); d > 0 {
			upstreamtest.Wait(to.Done, d)
		}
		to.Reply(upstreamtest.Change(q, func(msg *dns.Msg) {
			if msg.Rcode = int(m.rcode.Load()); msg.Rcode != 0 {
				msg.Answer = nil
			}
		}))
	}})
	return m
}

// nobody is an address where nobody listens.
func nobody(t testing.TB) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return "udp://" + conn.LocalAddr().String()
}

// run runs the Pool until the test ends, once.
func (b *bench) run(t testing.TB) {
	t.Helper()
	if b.runs {
		return
	}
	b.runs = true
	run(t, b.pool)
}

// run runs a Pool until the test ends, or the function returned is called.
func run(t testing.TB, p *upstream.Pool) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Errorf("run: got %v, want nil", err)
		}
	})
	end = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(end)
	eventually(t, "the loop runs", p.Looping)
	return end
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("did not happen within 10 s: %s", what)
		case <-tick.C:
		}
	}
}
