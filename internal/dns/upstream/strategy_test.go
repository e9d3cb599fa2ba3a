package upstream_test

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/upstream/upstreamtest"
)

// askMany asks for n new names and counts who answered.
func (b *bench) askMany(t *testing.T, n int, label string) map[string]int {
	t.Helper()
	answered := map[string]int{}
	for i := range n {
		answered[b.ask(t, fmt.Sprintf("n%d.%s.test.", i, label)).Address]++
	}
	return answered
}

func TestFailoverAsksInThePolicysOrder(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		first, second := newMoody(t), newMoody(t)
		b := w.use(t, policyOf("failover", first.UDP(), second.UDP()))
		if got := b.askMany(t, 20, "well"); got[first.UDP()] != 20 {
			t.Errorf("both well: got %v, want all from the first", got)
		}
		first.rcode.Store(dns.RcodeRefused)
		if got := b.askMany(t, 20, "refused"); got[second.UDP()] != 20 {
			t.Errorf("first refuses: got %v, want all from the second", got)
		}
		if count, failed := b.told.of(first.UDP()); count != 21 || failed != 1 {
			t.Errorf("first: got %d exchanges told, %d failed; want 21 and 1", count, failed)
		}
		first.rcode.Store(dns.RcodeSuccess)
		b.clock.advance(time.Minute)
		if got := b.askMany(t, 20, "again"); got[first.UDP()] != 20 {
			t.Errorf("first is well again: got %v, want all from the first", got)
		}
	})
}

func TestFastestFollowsTheLatencyAndGoesOnLooking(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		slow, fast := newMoody(t), newMoody(t)
		slow.delay.Store(int64(30 * time.Millisecond))
		b := w.use(t, policyOf("fastest", slow.UDP(), fast.UDP()))
		b.askMany(t, 10, "warm")
		if got := b.askMany(t, 200, "fast"); got[fast.UDP()] < 170 || got[fast.UDP()] == 200 {
			t.Errorf("got %v, want nearly all from the fast one, and a few from the other", got)
		}
		slow.delay.Store(0)
		fast.delay.Store(int64(30 * time.Millisecond))
		eventually(t, "the other one is found to be faster", func() bool { return b.askMany(t, 20, fmt.Sprint(time.Now().UnixNano()))[slow.UDP()] >= 17 })

		slow.rcode.Store(dns.RcodeRefused)
		if got := b.askMany(t, 20, "error"); got[fast.UDP()] != 20 {
			t.Errorf("the fast one refuses: got %v, want all from the other", got)
		}
		if got := b.States()[0].LatencyMS; got < 40 {
			t.Errorf("the fast one refuses: got %v ms, want an error counted as a slow answer", got)
		}
	})
}

func TestASlowUpstreamIsNotWaitedForAloneButSeldomAskedTwice(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		first, second := newMoody(t), newMoody(t)
		b := w.use(t, policyOf("fastest", first.UDP(), second.UDP()))
		b.askMany(t, 150, "warm")
		first.delay.Store(int64(900 * time.Millisecond))
		second.delay.Store(int64(900 * time.Millisecond))
		before := first.Heard.Load() + second.Heard.Load()
		const queries = 60
		var clients sync.WaitGroup
		for i := range queries {
			clients.Go(func() { b.ask(t, fmt.Sprintf("n%d.slow.test.", i)) })
		}
		clients.Wait()
		// One in ten queries pays for another one, and no more than a hundred are saved up.
		twice := first.Heard.Load() + second.Heard.Load() - before - queries
		if twice < 5 || twice > 10+queries/10 {
			t.Errorf("got %d of %d queries asked twice, want some, and at most %d", twice, queries, 10+queries/10)
		}
	})
}

func TestParallelTakesTheFirstGoodAnswerOfTwo(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		silent, failing, good := newMoody(t), newMoody(t), newMoody(t)
		b := w.use(t, policyOf("parallel", good.UDP(), failing.UDP()))
		b.askMany(t, 5, "both")
		eventually(t, "both have heard every query", func() bool { return good.Heard.Load() == 5 && failing.Heard.Load() == 5 })
		failing.rcode.Store(dns.RcodeServerFailure)
		good.delay.Store(int64(20 * time.Millisecond))
		if got := b.askMany(t, 5, "failing"); got[good.UDP()] != 5 {
			t.Errorf("one fails at once: got %v, want all from the good one", got)
		}
		silent.silent.Store(true)
		b.use(t, policyOf("parallel", silent.UDP(), good.UDP()))
		begun := time.Now()
		b.askMany(t, 10, "silent")
		if took := time.Since(begun); took > 1500*time.Millisecond {
			t.Errorf("one is silent: got 10 answers after %v, want nobody to wait for it", took)
		}
		eventually(t, "the silent one is noticed, although it always loses", func() bool { return !b.States()[0].Healthy })
	})
}

func TestBalanceSpreadsByHealth(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		all := []*moody{newMoody(t), newMoody(t), newMoody(t)}
		b := w.use(t, policyOf("balance", all[0].UDP(), all[1].UDP(), all[2].UDP()))
		got := b.askMany(t, 300, "well")
		for _, m := range all {
			if n := got[m.UDP()]; n < 60 || n > 140 {
				t.Errorf("all well: got %v, want about 100 each", got)
				break
			}
		}
		all[0].rcode.Store(dns.RcodeRefused)
		if got := b.askMany(t, 100, "refused"); got[all[0].UDP()] != 0 || got[all[1].UDP()] < 20 || got[all[2].UDP()] < 20 {
			t.Errorf("one refuses: got %v, want the others to share", got)
		}
	})
}

func TestAnUpstreamThatIsOutIsAskedNoMoreUntilAProbeFindsItBack(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		for _, strategy := range []string{"failover", "fastest", "parallel", "balance"} {
			t.Run(strategy, func(t *testing.T) {
				t.Parallel()
				bad, good := newMoody(t), newMoody(t)
				bad.rcode.Store(dns.RcodeRefused)
				b := w.use(t, policyOf(strategy, bad.UDP(), good.UDP()))
				for round := 0; b.States()[0].Failures < 3; round++ {
					b.clock.advance(time.Minute) // beyond every rest
					b.askMany(t, 1, fmt.Sprintf("out%d", round))
					eventually(t, "the exchanges are over", func() bool {
						count, _ := b.told.of(bad.UDP())
						// Whoever loses a race is heard when the answer is there already.
						raced := strategy != "parallel" || count == round+1
						return b.States()[1].LatencyMS > 0 && raced && int64(count) == bad.Heard.Load()
					})
				}
				b.clock.advance(time.Hour)
				before, _ := b.told.of(bad.UDP())
				b.askMany(t, 20, "others")
				if after, _ := b.told.of(bad.UDP()); after != before {
					t.Errorf("got %d client queries, want none while it is out", after-before)
				}
				if s := b.States()[0]; s.Healthy || s.LastError == "" {
					t.Errorf("got %+v, want unhealthy with the reason", s)
				}
				b.run(t)
				heard := bad.Heard.Load()
				eventually(t, "it is probed", func() bool { return bad.Heard.Load() > heard })
				if b.States()[0].Healthy {
					t.Error("a probe that is refused: got healthy")
				}
				bad.rcode.Store(dns.RcodeSuccess)
				b.clock.advance(time.Minute)
				eventually(t, "it is back", func() bool { return b.States()[0].Healthy })
				if after, _ := b.told.of(bad.UDP()); after != before {
					t.Errorf("got %d exchanges told of, want no probe among them", after-before)
				}
			})
		}
	})
}

func TestAServerOfOneZoneIsBackWhenItAnswersAtAll(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		var closes atomic.Bool
		closes.Store(true)
		only := upstreamtest.Start(t, upstreamtest.Manner{Stream: func(conn net.Conn, heard func([]byte)) {
			q, err := upstreamtest.ReadFrame(conn)
			if err != nil || closes.Load() {
				return
			}
			heard(q)
			_ = upstreamtest.WriteFrame(conn, upstreamtest.Change(q, func(m *dns.Msg) { m.Rcode, m.Answer = dns.RcodeRefused, nil }))
		}})
		b := w.use(t, policyOf("failover", only.TCP()))
		for i := range 3 {
			b.clock.advance(10 * time.Minute)
			_, _ = b.resolve(t.Context(), fmt.Sprintf("n%d.test.", i))
		}
		if s := b.States()[0]; s.Healthy || s.Failures < 3 {
			t.Fatalf("got %+v, want it out", s)
		}
		closes.Store(false) // and refuses what it is asked about the root
		b.run(t)
		eventually(t, "it is back", func() bool { return b.States()[0].Healthy })
	})
}
