package dns_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	engine "dnsfleet/internal/dns"
	"dnsfleet/internal/fleet"
)

// moody answers www.test with its address, and counts; while it sulks it says nothing until it is told to.
type moody struct {
	*upstreamServer
	sulks   atomic.Bool
	pleased chan struct{} // closed when those that wait are to be answered
}

func serveMoody(t *testing.T) *moody {
	t.Helper()
	m := &moody{pleased: make(chan struct{})}
	ended := make(chan struct{})
	m.upstreamServer = serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if m.sulks.Load() {
			select {
			case <-m.pleased:
			case <-ended:
				return
			}
		}
		zoneHandler(t, "www.test. 60 IN A 192.0.2.1", "other.test. 60 IN A 192.0.2.2")(w, q)
	})
	t.Cleanup(func() { close(ended) }) // before the server waits for those that wait
	return m
}

// The client response timer of RFC 8767.
func TestAnExpiredAnswerIsServedBeforeAClientGivesUp(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, form func(*dns.Msg) *dns.Msg) {
		up := serveMoody(t)
		b := start(t, policyOf(up.url()), nil)
		timed := func() (*dns.Msg, time.Duration) {
			begun := time.Now()
			reply := b.ask(t, "udp", form(queryEDNS("www.test", dns.TypeA, 1232, false)))
			return reply, time.Since(begun)
		}
		timed()
		b.clock.advance(61 * time.Second)
		up.sulks.Store(true)
		const stale = "NOERROR [www.test. 30 IN A 192.0.2.1] ede=3"
		if reply, took := timed(); describe(reply) != stale || took < 1500*time.Millisecond || took > 2800*time.Millisecond {
			t.Errorf("upstream silent: got %s after %v, want %s after 1.8 s", describe(reply), took, stale)
		}
		eventually(t, "the upstream is given up", func() bool {
			_, failed := b.exchanges.of(up.url())
			_, took := timed()
			return failed > 0 && took < 500*time.Millisecond
		})
		if reply, took := timed(); describe(reply) != stale || took > time.Second {
			t.Errorf("upstream silent a moment ago: got %s after %v, want %s at once", describe(reply), took, stale)
		}
	})
}

func TestALateAnswerTakesThePlaceOfTheExpiredOne(t *testing.T) {
	t.Parallel()
	up := serveMoody(t)
	b := start(t, policyOf(up.url()), nil)
	b.ask(t, "udp", query("www.test", dns.TypeA))
	b.clock.advance(61 * time.Second)
	up.sulks.Store(true)
	if reply := b.ask(t, "udp", queryEDNS("www.test", dns.TypeA, 1232, false)); edeOf(reply) != 3 {
		t.Errorf("upstream silent: got %s, want the stale answer", describe(reply))
	}
	close(up.pleased) // after the client was answered, before the exchange ends
	eventually(t, "the fresh answer is cached", func() bool {
		return describe(b.ask(t, "udp", queryEDNS("www.test", dns.TypeA, 1232, false))) == "NOERROR [www.test. 60 IN A 192.0.2.1] ede=-1"
	})
	events := b.events.all()
	if got := events[len(events)-1].Outcome; got != fleet.Cached && got != fleet.Upstream {
		t.Errorf("got %s, want cached or upstream", got)
	}
}

func TestAnExpiredAnswerIsServedOnlyAsFarAsThePolicySays(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change  func(p *fleet.Policy) // before the upstream goes
		later   func(p *fleet.Policy) // after
		advance time.Duration
		want    string
	}{
		"within serve-stale": {nil, nil, time.Hour, "NOERROR [www.test. 30 IN A 192.0.2.1] ede=3"},
		"past serve-stale":   {nil, nil, 25 * time.Hour, "SERVFAIL [] ede=23"},
		"with serve-stale off": {
			func(p *fleet.Policy) { p.Cache.ServeStale = 0 }, nil, 61 * time.Second, "SERVFAIL [] ede=23",
		},
		"blocked meanwhile": {nil, func(p *fleet.Policy) { p.Deny = []string{"www.test"} }, time.Hour, "NXDOMAIN [] ede=15"},
		"its address blocked meanwhile": {
			nil, func(p *fleet.Policy) { p.Deny = []string{"192.0.2.1"} }, time.Hour, "NXDOMAIN [] ede=15",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachWay(t, func(t *testing.T, form func(*dns.Msg) *dns.Msg) {
				up := serveUpstream(t, zoneHandler(t, "www.test. 60 IN A 192.0.2.1"))
				p := policyOf(up.url())
				if c.change != nil {
					c.change(&p)
				}
				b := start(t, p, nil)
				b.ask(t, "udp", query("www.test", dns.TypeA))
				up.stop()
				if c.later != nil {
					c.later(&p)
					b.apply(t, p, 2)
				}
				b.clock.advance(c.advance)
				if got := describe(b.ask(t, "udp", form(queryEDNS("www.test", dns.TypeA, 1232, false)))); got != c.want {
					t.Errorf("got %s, want %s", got, c.want)
				}
			})
		})
	}
}

func TestPopularAnswersAreAskedForAheadOfTheirEnd(t *testing.T) {
	t.Parallel()
	up := serveMoody(t)
	p := policyOf(up.url())
	b := start(t, p, nil)
	ask := func(name string) { b.ask(t, "udp", query(name, dns.TypeA)) }
	ask("www.test")
	ask("other.test") // once only
	for range 2 {
		b.clock.advance(16 * time.Second)
		ask("www.test")
	}
	b.clock.advance(13 * time.Second) // 15 s are left
	b.Sweep(t.Context())
	eventually(t, "the popular answer is asked for again", func() bool { return up.asked.Load() == 3 })
	eventually(t, "it is in the cache", func() bool { _, failed := b.exchanges.of(up.url()); return failed == 0 && b.Cache().LRU.Entries == 2 })
	stats := b.Refresh()
	if stats.LastSweepTime == nil || stats.LastSweepCount != 1 || stats.Refreshed24h != 1 || stats.Sweeps24h < 1 || stats.BatchSize == 0 || stats.StatsWindowSec != 86400 {
		t.Errorf("stats: got %+v, want one sweep that asked for one answer", stats)
	}
	b.clock.advance(20 * time.Second) // the first answer has ended
	ask("www.test")
	events := b.events.all()
	if got := events[len(events)-1].Outcome; got != fleet.Cached || up.asked.Load() != 3 {
		t.Errorf("after the first answer's end: got %s, %d questions; want cached, 3", got, up.asked.Load())
	}
	ask("other.test")
	if got := up.asked.Load(); got != 4 {
		t.Errorf("a name that nobody asked for again: got %d questions, want it asked only now", got)
	}

	p.Deny = []string{"www.test"}
	b.apply(t, p, 2)
	b.clock.advance(30 * time.Second)
	b.Sweep(t.Context())
	if got := up.asked.Load(); got != 4 {
		t.Errorf("a popular name that is blocked now: got %d questions, want none more", got)
	}
	b.clock.advance(48 * time.Hour)
	b.Sweep(t.Context())
	if stats := b.Refresh(); stats.LastSweepRemovedCount == 0 || b.Cache().LRU.Entries != 0 {
		t.Errorf("two days later: got %+v and %d entries, want those removed that are of no use", stats, b.Cache().LRU.Entries)
	}
}

func TestARestartKeepsTheCacheForTheSameUpstreams(t *testing.T) {
	t.Parallel()
	up := serveUpstream(t, zoneHandler(t, "www.test. 300 IN A 192.0.2.1"))
	other := serveUpstream(t, zoneHandler(t, "www.test. 300 IN A 192.0.2.2"))
	dir := t.TempDir()
	in := func(o *engine.Options) { o.DataDir = dir }
	first := start(t, policyOf(up.url()), in)
	for _, name := range []string{"www.test", "nope.test"} {
		first.ask(t, "udp", query(name, dns.TypeA))
		first.ask(t, "udp", queryEDNS(name, dns.TypeA, 1232, true))
	}
	first.stop()
	up.stop()

	second := start(t, policyOf(up.url()), in)
	for _, do := range []bool{false, true} {
		reply := second.ask(t, "udp", queryEDNS("www.test", dns.TypeA, 1232, do))
		if len(reply.Answer) != 1 || reply.Answer[0].Header().Ttl > 300 || reply.Answer[0].Header().Ttl < 200 || reply.IsEdns0().Do() != do {
			t.Errorf("after a restart, DO %v: got %s, want the cached answer", do, describe(reply))
		}
		if reply := second.ask(t, "udp", queryEDNS("nope.test", dns.TypeA, 1232, do)); reply.Rcode != dns.RcodeNameError {
			t.Errorf("after a restart, DO %v: got %s, want NXDOMAIN", do, describe(reply))
		}
	}
	if got := second.events.outcomes(); got[fleet.Cached] != 4 {
		t.Errorf("outcomes: got %v, want all cached", got)
	}
	second.stop()

	third := start(t, policyOf(other.url()), in)
	if got := answers(third.ask(t, "udp", query("www.test", dns.TypeA))); got != "www.test. 300 IN A 192.0.2.2" {
		t.Errorf("with other upstreams: got %s, want their answer", got)
	}
}

// The rules in force judge what was cached before the restart.
func TestARestartBlocksWhatIsBlockedNow(t *testing.T) {
	t.Parallel()
	up := serveUpstream(t, zoneHandler(t, "www.test. 300 IN A 192.0.2.1"))
	dir := t.TempDir()
	in := func(o *engine.Options) { o.DataDir = dir }
	p := policyOf(up.url())
	first := start(t, p, in)
	first.ask(t, "udp", query("www.test", dns.TypeA))
	first.stop()
	p.Deny = []string{"www.test"}
	second := start(t, p, in)
	if reply := second.ask(t, "udp", queryEDNS("www.test", dns.TypeA, 1232, false)); edeOf(reply) != 15 {
		t.Errorf("got %s, want it blocked", describe(reply))
	}
}
