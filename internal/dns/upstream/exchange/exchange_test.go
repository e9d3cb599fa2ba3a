package exchange_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/upstream/exchange"
	"dnsfleet/internal/dns/upstream/upstreamtest"
	"dnsfleet/internal/dns/upstream/wire"
)

// patient is a deadline that only a bug reaches.
const patient = 10 * time.Second

func query(t testing.TB, name string) exchange.Query {
	t.Helper()
	packed := make([]byte, 256)
	end, err := dns.PackDomainName(name, packed, 0, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	q := wire.AppendQuery(nil, packed[:end], dns.TypeA, dns.ClassINET, false, false)
	wire.SetID(q, 7)
	return exchange.Query{Wire: q, Deadline: time.Now().Add(patient), Budget: exchange.NewBudget(3)}
}

func target(t testing.TB, addr string) exchange.Target {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return exchange.Target{Host: host, Port: port}
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(patient)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("did not happen within %v: %s", patient, what)
		case <-tick.C:
		}
	}
}

// echo answers datagrams with no records, as fast as it can, and tells where each came from.
func echo(t testing.TB, heard func(port, id uint16)) string {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		buffer := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			heard(from.Port(), wire.ID(buffer))
			buffer[2] |= 0x80
			_, _ = conn.WriteToUDPAddrPort(buffer[:n], from)
		}
	})
	t.Cleanup(func() {
		_ = conn.Close()
		done.Wait()
	})
	return conn.LocalAddr().String()
}

func TestNobodyCanGuessIdsAndPorts(t *testing.T) {
	const queries = 10000
	var mu sync.Mutex // guards the following
	ports, ids := map[uint16]bool{}, map[uint16]bool{}
	near, last := 0, uint16(0)
	addr := echo(t, func(port, id uint16) {
		mu.Lock()
		defer mu.Unlock()
		ports[port], ids[id] = true, true
		if id-last < 16 {
			near++
		}
		last = id
	})
	udp := exchange.NewUDP(target(t, addr), nil)
	defer udp.Close()
	var clients sync.WaitGroup
	for i := range 20 {
		clients.Go(func() {
			for j := range queries / 20 {
				answer, err := udp.Exchange(t.Context(), query(t, fmt.Sprintf("n%d.%d.test.", i, j)))
				if err != nil || wire.ID(answer.Wire) != 7 {
					t.Errorf("got % x, %v, want an answer with the id of the query", answer.Wire, err)
					return
				}
			}
		})
	}
	clients.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(ports) < 8000 || len(ids) < 9000 || near > 20 {
		t.Errorf("%d queries: got %d ports, %d ids, %d ids right after one near them; want at least 8000, 9000 and hardly any", queries, len(ports), len(ids), near)
	}
}

func TestTCPAnswersInAnyOrderOverOneConnection(t *testing.T) {
	const queries = 50
	s := upstreamtest.Start(t, upstreamtest.Manner{Stream: func(conn net.Conn, heard func([]byte)) {
		for {
			var all [][]byte
			for range queries {
				q, err := upstreamtest.ReadFrame(conn)
				if err != nil {
					return
				}
				heard(q)
				all = append([][]byte{q}, all...)
			}
			for _, q := range all {
				if upstreamtest.WriteFrame(conn, upstreamtest.Right(q)) != nil {
					return
				}
			}
		}
	}})
	tcp := exchange.NewStream(target(t, s.Addr), nil)
	defer tcp.Close()
	for range 3 {
		var clients sync.WaitGroup
		for i := range queries {
			clients.Go(func() {
				q := query(t, fmt.Sprintf("n%d.test.", i))
				answer, err := tcp.Exchange(t.Context(), q)
				if err != nil || !wire.Answers(answer.Wire, q.Wire) {
					t.Errorf("got % x, %v, want the answer to this query", answer.Wire, err)
				}
			})
		}
		clients.Wait()
	}
	if got := s.Conns.Load(); got != 1 {
		t.Errorf("got %d connections, want 1", got)
	}
}

func TestAnIdleConnectionIsClosedAndTheNextQueryOpensAnother(t *testing.T) {
	closed := make(chan struct{}, 10)
	s := upstreamtest.Start(t, upstreamtest.Manner{Stream: func(conn net.Conn, _ func([]byte)) {
		for {
			q, err := upstreamtest.ReadFrame(conn)
			if err != nil {
				closed <- struct{}{}
				return
			}
			_ = upstreamtest.WriteFrame(conn, upstreamtest.Right(q))
		}
	}})
	before := runtime.NumGoroutine()
	tcp := exchange.NewStream(target(t, s.Addr), nil)
	tcp.SetIdle(100 * time.Millisecond)
	for range 2 {
		if _, err := tcp.Exchange(t.Context(), query(t, "www.test.")); err != nil {
			t.Fatal(err)
		}
		<-closed
	}
	if got := s.Conns.Load(); got != 2 {
		t.Errorf("got %d connections, want 2", got)
	}
	eventually(t, "no goroutine more than before", func() bool { return runtime.NumGoroutine() <= before })
}

func TestAQueryThatAnOldConnectionTakesDownIsSentOnceMore(t *testing.T) {
	s := upstreamtest.Start(t, upstreamtest.Manner{Stream: func(conn net.Conn, heard func([]byte)) {
		q, err := upstreamtest.ReadFrame(conn)
		if err != nil {
			return
		}
		heard(q)
		_ = upstreamtest.WriteFrame(conn, upstreamtest.Right(q))
		if q, err = upstreamtest.ReadFrame(conn); err == nil {
			heard(q) // and closes
		}
	}})
	tcp := exchange.NewStream(target(t, s.Addr), nil)
	defer tcp.Close()
	for i := range 5 {
		name := fmt.Sprintf("n%d.test.", i)
		if _, err := tcp.Exchange(t.Context(), query(t, name)); err != nil {
			t.Fatalf("query %d: %v", i, err)
		}
		if got, want := s.HeardOf(name), min(i, 1)+1; got != want {
			t.Errorf("query %d: got sent %d times, want %d", i, got, want)
		}
	}
}

func TestConnectionsAndQueriesOnThemAreBounded(t *testing.T) {
	s := upstreamtest.Start(t, upstreamtest.Manner{Stream: func(conn net.Conn, heard func([]byte)) {
		for {
			q, err := upstreamtest.ReadFrame(conn)
			if err != nil {
				return
			}
			heard(q)
		}
	}})
	tcp := exchange.NewStream(target(t, s.Addr), nil)
	defer tcp.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var busy, ended atomic.Int64
	var clients sync.WaitGroup
	const queries, room = 4200, 4 * 1024
	for range queries {
		clients.Go(func() {
			_, err := tcp.Exchange(ctx, query(t, "www.test."))
			if errors.Is(err, exchange.ErrBusy) {
				busy.Add(1)
			} else if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want busy or canceled", err)
			}
			ended.Add(1)
		})
	}
	eventually(t, "all are refused that there is no room for, and the others wait", func() bool {
		return busy.Load() == queries-room && s.Heard.Load() == room
	})
	if got := s.Conns.Load(); got != 4 {
		t.Errorf("got %d connections, want 4", got)
	}
	cancel()
	clients.Wait()
}

func TestAnExchangeEndsWithItsContext(t *testing.T) {
	s := upstreamtest.Start(t, upstreamtest.Manner{
		Packet: func([]byte, upstreamtest.Sender) {},
		Stream: func(conn net.Conn, _ func([]byte)) {
			_, _ = conn.Read(make([]byte, 1))
			_, _ = conn.Read(make([]byte, 4096))
			_, _ = conn.Read(make([]byte, 1))
		},
	})
	udp, tcp := exchange.NewUDP(target(t, s.Addr), nil), exchange.NewStream(target(t, s.Addr), nil)
	defer udp.Close()
	defer tcp.Close()
	for name, e := range map[string]exchange.Exchanger{"udp": udp, "tcp": tcp} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		begun := time.Now()
		_, err := e.Exchange(ctx, query(t, "www.test."))
		cancel()
		if took := time.Since(begun); err == nil || !exchange.Timeout(err) || took > patient/2 {
			t.Errorf("%s: got %v after %v, want the end of the context", name, err, took)
		}
	}
}

func TestABootstrapAddressStandsInForTheName(t *testing.T) {
	s := upstreamtest.Start(t, upstreamtest.Manner{})
	_, port, _ := net.SplitHostPort(s.Addr)
	var mu sync.Mutex
	dialed := map[string]int{}
	to := exchange.Target{Host: "resolver.invalid", Port: port, Bootstrap: []string{"127.0.0.7", "127.0.0.1"}, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		mu.Lock()
		dialed[address]++
		mu.Unlock()
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	tcp, udp := exchange.NewStream(to, nil), exchange.NewUDP(to, nil)
	defer tcp.Close()
	defer udp.Close()
	if _, err := tcp.Exchange(t.Context(), query(t, "www.test.")); err != nil {
		t.Errorf("tcp: %v", err)
	}
	if _, err := udp.Exchange(t.Context(), query(t, "www.test.")); err == nil {
		t.Error("udp: got an answer from an address where nobody listens")
	}
	if _, err := udp.Exchange(t.Context(), query(t, "www.test.")); err != nil {
		t.Errorf("udp, after the first address has failed: %v", err)
	}
	if dialed["127.0.0.7:"+port] != 1 || dialed["127.0.0.1:"+port] != 1 || len(dialed) != 2 {
		t.Errorf("got dialed %v, want each address once", dialed)
	}
}

func TestANameIsLookedUpOnceAndAgainWhenItsAddressFails(t *testing.T) {
	s := upstreamtest.Start(t, upstreamtest.Manner{})
	_, port, _ := net.SplitHostPort(s.Addr)
	var dials atomic.Int64
	udp := exchange.NewUDP(exchange.Target{Host: "resolver.test", Port: port, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		address := s.Addr
		if dials.Add(1) == 1 {
			address = "127.0.0.7:" + port // where nobody listens
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}}, nil)
	defer udp.Close()
	if _, err := udp.Exchange(t.Context(), query(t, "www.test.")); err == nil {
		t.Error("got an answer from an address where nobody listens")
	}
	for range 5 {
		if _, err := udp.Exchange(t.Context(), query(t, "www.test.")); err != nil {
			t.Error(err)
		}
	}
	if got := dials.Load(); got != 2 {
		t.Errorf("got %d look-ups, want 2", got)
	}
}

func TestABudgetEndsRetries(t *testing.T) {
	s := upstreamtest.Start(t, upstreamtest.Manner{Packet: func(q []byte, to upstreamtest.Sender) {
		to.Reply(upstreamtest.Wrong(q, func(m *dns.Msg) { m.Truncated = true }))
	}})
	udp := exchange.NewUDP(target(t, s.Addr), nil)
	defer udp.Close()
	q := query(t, "www.test.")
	q.Budget = exchange.NewBudget(1)
	if _, err := udp.Exchange(t.Context(), q); !errors.Is(err, exchange.ErrBudget) {
		t.Errorf("got %v, want ErrBudget", err)
	}
	if got := s.Heard.Load(); got != 1 {
		t.Errorf("got %d queries, want 1", got)
	}
}

func BenchmarkExchange(b *testing.B) {
	addr := echo(b, func(uint16, uint16) {})
	udp := exchange.NewUDP(target(b, addr), nil)
	defer udp.Close()
	q := query(b, "www.test.")
	b.Run("udp", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			q.Deadline, q.Budget = time.Now().Add(patient), exchange.NewBudget(3)
			if _, err := udp.Exchange(context.Background(), q); err != nil {
				b.Fatal(err)
			}
		}
	})
	s := upstreamtest.Start(b, upstreamtest.Manner{Message: func(q []byte) []byte { q[2] |= 0x80; return q }})
	tcp := exchange.NewStream(target(b, s.Addr), nil)
	defer tcp.Close()
	b.Run("tcp", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			q.Deadline, q.Budget = time.Now().Add(patient), exchange.NewBudget(3)
			if _, err := tcp.Exchange(context.Background(), q); err != nil {
				b.Fatal(err)
			}
		}
	})
}
