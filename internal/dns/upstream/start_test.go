package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/upstream"
	"dnsfleet/internal/dns/upstream/exchange"
	"dnsfleet/internal/dns/upstream/upstreamtest"
	"dnsfleet/internal/dns/upstream/wire"
	"dnsfleet/internal/fleet"
)

func packed(t testing.TB, name string) []byte {
	t.Helper()
	query, err := question(name).Pack()
	if err != nil {
		t.Fatal(err)
	}
	return query
}

func TestStartAnswersManyAtOnce(t *testing.T) {
	const callers, queries = 20, 200
	servers := []*upstreamtest.Server{upstreamtest.Start(t, upstreamtest.Manner{}), upstreamtest.Start(t, upstreamtest.Manner{})}
	for _, strategy := range []string{"failover", "fastest", "balance", "parallel"} {
		var bursts atomic.Int64
		pool := upstream.NewPool(upstream.Options{Burst: func() { bursts.Add(1) }})
		router, _ := pool.Use(policyOf(strategy, servers[0].UDP(), servers[1].UDP()), nil)
		end := run(t, pool)
		var told atomic.Int64
		var answers sync.WaitGroup
		answers.Add(callers * queries)
		for i := range callers {
			go func() {
				query := []byte(nil)
				slots := make(chan struct{}, 5)
				for j := range queries {
					query = append(query[:0], packed(t, fmt.Sprintf("n%d.%d.test.", i, j))...)
					wire.SetID(query, uint16(i*queries+j))
					own := append([]byte(nil), query...)
					slots <- struct{}{}
					router.Start(query, func(answer []byte, address string, err error) {
						told.Add(1)
						if err != nil || !wire.Answers(answer, own) || address != servers[0].UDP() && address != servers[1].UDP() {
							t.Errorf("%s: got % x from %q, %v, want an answer to % x", strategy, answer, address, err, own)
						}
						answers.Done()
						<-slots
					})
				}
			}()
		}
		answers.Wait()
		end()
		pool.Close()
		if told.Load() != callers*queries || bursts.Load() == 0 {
			t.Errorf("%s: got %d answers and %d bursts, want %d and some", strategy, told.Load(), bursts.Load(), callers*queries)
		}
	}
}

func TestStartKeepsIdsAndPortsUnguessable(t *testing.T) {
	const queries = 10000
	var mu sync.Mutex
	ids := map[uint16]bool{}
	near, last := 0, uint16(0)
	s := upstreamtest.Start(t, upstreamtest.Manner{Packet: func(q []byte, to upstreamtest.Sender) {
		mu.Lock()
		id := wire.ID(q)
		ids[id] = true
		if id-last < 16 {
			near++
		}
		last = id
		mu.Unlock()
		q[2] |= 0x80
		to.Reply(q)
	}})
	b := starting.use(t, policyOf("failover", s.UDP()))
	query := packed(t, "www.test.")
	wire.SetID(query, 7)
	slots := make(chan struct{}, 50)
	for range queries {
		slots <- struct{}{}
		b.Start(query, func(answer []byte, _ string, err error) {
			if err != nil || wire.ID(answer) != 7 {
				t.Errorf("got % x, %v, want an answer with the id of the query", answer, err)
			}
			<-slots
		})
	}
	for range cap(slots) {
		slots <- struct{}{}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(ids) < 9000 || near > 20 {
		t.Errorf("%d queries: got %d ids, %d right after one near them; want at least 9000 and hardly any", queries, len(ids), near)
	}
}

func TestStartTakesNoGoroutineWhileAnUpstreamDoesWell(t *testing.T) {
	s := upstreamtest.Start(t, upstreamtest.Manner{})
	held := upstreamtest.Start(t, upstreamtest.Manner{Packet: func([]byte, upstreamtest.Sender) {}})
	b := starting.use(t, policyOf("failover", held.UDP(), s.UDP()))
	before := runtime.NumGoroutine()
	var ended sync.WaitGroup
	const queries = 150 // which a socket has room for
	ended.Add(queries)
	begun := time.Now()
	for i := range queries {
		b.Start(packed(t, fmt.Sprintf("n%d.test.", i)), func(_ []byte, address string, err error) {
			if err != nil || address != s.UDP() {
				t.Errorf("got %q, %v, want the answer of the second upstream", address, err)
			}
			ended.Done()
		})
	}
	eventually(t, "all were sent", func() bool { return held.Heard.Load() == queries })
	if got := runtime.NumGoroutine() - before; got > 50 && time.Since(begun) < time.Second {
		t.Errorf("%d queries under way: got %d goroutines more, want hardly any", queries, got)
	}
	ended.Wait()
}

func TestStartIsBoundedAgainstSilence(t *testing.T) {
	const queries, room = 10000, 2 * 4096 // on sockets of the upstream, and in goroutines
	s := upstreamtest.Start(t, upstreamtest.Manner{Packet: func([]byte, upstreamtest.Sender) {}})
	b := starting.use(t, policyOf("failover", s.UDP()))
	var ended sync.WaitGroup
	var underWay, most, failed atomic.Int64
	ended.Add(queries)
	for i := range queries {
		query := packed(t, fmt.Sprintf("n%d.test.", i))
		begun := time.Now()
		most.Store(max(most.Load(), underWay.Add(1)))
		b.Start(query, func(_ []byte, _ string, err error) {
			underWay.Add(-1)
			if errors.Is(err, upstream.ErrNoAnswer) {
				failed.Add(1)
			} else if !errors.Is(err, exchange.ErrBusy) {
				t.Errorf("got %v, want no answer or too many", err)
			}
			if took := time.Since(begun); took > upstream.Timeout+5*time.Second {
				t.Errorf("got the end after %v, want within %v", took, upstream.Timeout)
			}
			ended.Done()
		})
	}
	ended.Wait()
	if most.Load() > room+room/20 || failed.Load() < 1000 {
		t.Errorf("got up to %d under way and %d without an answer, want at most %d and at least 1000", most.Load(), failed.Load(), room)
	}
}

func TestStartHedgesWithinItsCredit(t *testing.T) {
	first, second := newMoody(t), newMoody(t)
	b := starting.use(t, policyOf("fastest", first.UDP(), second.UDP()))
	b.askMany(t, 150, "warm")
	slow, quick := first, second
	if b.States()[0].LatencyMS > b.States()[1].LatencyMS {
		slow, quick = second, first
	}
	slow.delay.Store(int64(700 * time.Millisecond))
	begun := time.Now()
	if got := b.ask(t, "one.test.").Address; got != quick.UDP() {
		t.Errorf("got the answer of %s, want that of %s, which was asked for slowness", got, quick.UDP())
	}
	if took := time.Since(begun); took > 600*time.Millisecond {
		t.Errorf("got an answer after %v, want it before the slow one's", took)
	}
	count, failed := b.told.of(slow.UDP())
	eventually(t, "the slow one's late answer is told of", func() bool {
		now, nowFailed := b.told.of(slow.UDP())
		return now == count+1 && nowFailed == failed
	})
}

func TestWhatIsNoQueryIsNotStarted(t *testing.T) {
	s := upstreamtest.Start(t, upstreamtest.Manner{})
	b := starting.use(t, policyOf("failover", s.UDP()))
	for what, query := range map[string][]byte{"nothing": nil, "a response": upstreamtest.Right(mustPack(t)), "too long": append(mustPack(t), make([]byte, 1300)...)} {
		ended := make(chan error, 1)
		b.Start(query, func(_ []byte, _ string, err error) { ended <- err })
		if err := <-ended; !errors.Is(err, upstream.ErrUnforwardable) {
			t.Errorf("%s: got %v, want ErrUnforwardable", what, err)
		}
	}
	b.use(t, fleet.Policy{})
	ended := make(chan error, 1)
	b.Start(mustPack(t), func(_ []byte, _ string, err error) { ended <- err })
	if err := <-ended; !errors.Is(err, upstream.ErrNoAnswer) {
		t.Errorf("no upstreams: got %v, want ErrNoAnswer", err)
	}
	if got := s.Heard.Load(); got != 0 {
		t.Errorf("got %d queries sent, want none", got)
	}
}

func TestStartWorksBeforeRunAndAfterItAndEndsWithIt(t *testing.T) {
	before := runtime.NumGoroutine()
	well := upstreamtest.Start(t, upstreamtest.Manner{})
	silent := upstreamtest.Start(t, upstreamtest.Manner{Packet: func([]byte, upstreamtest.Sender) {}})
	for _, strategy := range []string{"failover", "fastest", "parallel"} {
		pool := upstream.NewPool(upstream.Options{})
		router, _ := pool.Use(policyOf(strategy, well.UDP()), nil)
		if result, err := start(router, question("before.test.")); err != nil {
			t.Errorf("before Run: got %v, %v, want an answer", result.Msg, err)
		}
		end := run(t, pool)
		quiet, _ := pool.Use(policyOf(strategy, silent.UDP(), "udp://"+silent.Addr+"/"), nil)
		const queries = 200
		errs := make(chan error, 2*queries)
		heard := silent.Heard.Load()
		for i := range queries {
			quiet.Start(packed(t, fmt.Sprintf("n%d.test.", i)), func(_ []byte, _ string, err error) { errs <- err })
		}
		eventually(t, "all were sent", func() bool { return silent.Heard.Load() >= heard+queries })
		begun := time.Now()
		end()
		for range queries {
			if err := <-errs; !errors.Is(err, upstream.ErrNoAnswer) {
				t.Fatalf("%s: got %v, want ErrNoAnswer", strategy, err)
			}
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("%s: got the end %v after that of Run, want it at once", strategy, took)
		}
		router, _ = pool.Use(policyOf(strategy, well.UDP()), nil)
		if result, err := start(router, question("after.test.")); err != nil {
			t.Errorf("after Run: got %v, %v, want an answer", result.Msg, err)
		}
		pool.Close()
		if len(errs) > 0 {
			t.Errorf("%s: got %d told twice", strategy, len(errs))
		}
	}
	well.Close()
	silent.Close()
	eventually(t, "no goroutine more than before", func() bool { return runtime.NumGoroutine() <= before })
}

func TestTheBudgetHoldsForStart(t *testing.T) {
	truncated := upstreamtest.Manner{Packet: func(q []byte, to upstreamtest.Sender) {
		to.Reply(upstreamtest.Wrong(q, func(m *dns.Msg) { m.Truncated = true }))
	}, Message: func(q []byte) []byte {
		return upstreamtest.Change(q, func(m *dns.Msg) { m.Rcode, m.Answer = dns.RcodeServerFailure, nil })
	}}
	for _, strategy := range []string{"failover", "fastest", "balance"} {
		a, c := upstreamtest.Start(t, truncated), upstreamtest.Start(t, truncated)
		b := starting.use(t, policyOf(strategy, a.UDP(), c.UDP()))
		result, err := b.resolve(context.Background(), "www.test.")
		if err != nil || result.Msg.Rcode != dns.RcodeServerFailure {
			t.Errorf("%s: got %v, %v, want SERVFAIL", strategy, result.Msg, err)
		}
		if got := a.Heard.Load() + c.Heard.Load(); got != 3 {
			t.Errorf("%s: got %d queries, want 3", strategy, got)
		}
	}
}
