package listen_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dnsfleet/internal/dns/listen"
)

// onBothPaths runs a test with batches and without.
func onBothPaths(t *testing.T, test func(t *testing.T, o listen.Options)) {
	t.Helper()
	t.Run("in batches", func(t *testing.T) { test(t, listen.Options{}) })
	t.Run("one by one", func(t *testing.T) { test(t, listen.Options{Portable: true}) })
}

func TestABatchMayHaveGaps(t *testing.T) {
	onBothPaths(t, func(t *testing.T, o listen.Options) {
		s := serve(t, o, handle(func(m *listen.Message, out []byte) []byte {
			switch idOf(m.Raw) % 4 {
			case 0:
				return nil
			case 1:
				m.Later().Send(nil)
				return nil
			case 2:
				m.Later().Send(answer(nil, m.Raw))
				return []byte("not sent") // the answer came another way
			}
			return answer(out, m.Raw)
		}))
		conn := dial(t, "udp", s.addr())
		for i := range 200 {
			send(t, conn, query(uint16(i), i))
		}
		var got, want []uint16
		for i := range 200 {
			if i%4 >= 2 {
				want = append(want, uint16(i))
				raw := receive(t, conn)
				if len(raw) != 12+int(idOf(raw)) {
					t.Errorf("answer %d: got %d bytes, want %d", idOf(raw), len(raw), 12+int(idOf(raw)))
				}
				got = append(got, idOf(raw))
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("got answers to %v, want %v", got, want)
		}
	})
}

func TestAMessageSaysWhereItComesFrom(t *testing.T) {
	for _, c := range []struct {
		name, listen, network, addr, client string
	}{
		{"an IPv4 client on an IPv4 address", "127.0.0.1:0", "udp", "127.0.0.1", "127.0.0.1"},
		{"an IPv6 client on an IPv6 address", "[::1]:0", "udp", "::1", "::1"},
		{"an IPv4 client on all addresses is no mapped one", ":0", "udp", "127.0.0.1", "127.0.0.1"},
		{"an IPv6 client on all addresses", ":0", "udp", "::1", "::1"},
		{"an IPv4 client of TCP on all addresses", ":0", "tcp", "127.0.0.1", "127.0.0.1"},
		{"an IPv6 client of TCP", "[::1]:0", "tcp", "::1", "::1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			onBothPaths(t, func(t *testing.T, o listen.Options) {
				messages := make(chan listen.Message, 1)
				o.UDPAndTCP = []string{c.listen}
				s := serve(t, o, handle(func(m *listen.Message, out []byte) []byte {
					messages <- listen.Message{Client: m.Client, Protocol: m.Protocol, Lane: m.Lane, Arrived: m.Arrived}
					return echo(m, out)
				}))
				_, port, _ := net.SplitHostPort(s.addr())
				before := time.Now()
				wantAnswer(t, dial(t, c.network, net.JoinHostPort(c.addr, port)), 7)
				m := <-messages
				if m.Client != netip.MustParseAddr(c.client) || m.Protocol.String() != c.network {
					t.Errorf("got %v by %v, want %s by %s", m.Client, m.Protocol, c.client, c.network)
				}
				if m.Arrived.Before(before) || time.Since(m.Arrived) > soon {
					t.Errorf("arrived: got %v, want just now", m.Arrived)
				}
				if own := m.Lane > 0 && m.Lane < s.Lanes(); own != (c.network == "udp") || m.Lane < 0 {
					t.Errorf("lane: got %d of %d", m.Lane, s.Lanes())
				}
			})
		})
	}
}

func TestAnAnswerLeavesFromTheAddressThatWasAsked(t *testing.T) {
	for _, c := range []struct {
		name, listen string
		hosts        []string
	}{
		{"all addresses", ":0", []string{"127.0.0.1", "127.0.0.2", "127.0.0.3", "::1"}},
		{"all IPv4 addresses", "0.0.0.0:0", []string{"127.0.0.1", "127.0.0.2"}},
		{"all IPv6 addresses", "[::]:0", []string{"::1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			onBothPaths(t, func(t *testing.T, o listen.Options) {
				o.UDPAndTCP = []string{c.listen}
				s := serve(t, o, handle(func(m *listen.Message, out []byte) []byte {
					switch idOf(m.Raw) {
					case 1:
						return echo(m, out)
					case 2:
						m.Later().Send(echo(m, nil))
					default:
						var outbox listen.Outbox
						outbox.Add(m.Later(), echo(m, nil))
						outbox.Flush()
					}
					return nil
				}))
				_, port, _ := net.SplitHostPort(s.addr())
				for _, host := range c.hosts { // a connected socket takes answers from there only
					conn := dial(t, "udp", net.JoinHostPort(host, port))
					for id := range uint16(3) {
						wantAnswer(t, conn, id+1)
					}
				}
			})
		})
	}
}

func TestIPv4AloneIsNotBothFamilies(t *testing.T) {
	s := serve(t, listen.Options{UDPAndTCP: []string{"0.0.0.0:0"}}, handle(echo))
	_, port, _ := net.SplitHostPort(s.addr())
	if conn, err := net.Dial("tcp", net.JoinHostPort("::1", port)); err == nil {
		_ = conn.Close()
		t.Error("::1: got a connection, want none")
	}
}

func TestAnAnswerMayBeLargerThanItsRoom(t *testing.T) {
	onBothPaths(t, func(t *testing.T, o listen.Options) {
		s := serve(t, o, handle(func(m *listen.Message, out []byte) []byte {
			return append(echo(m, out), make([]byte, 20*int(idOf(m.Raw)))...)
		}))
		conn := dial(t, "udp", s.addr())
		for _, id := range []uint16{1, 60, 70, 1000, 3000} {
			send(t, conn, query(id, 0))
			if got, want := len(receive(t, conn)), 12+20*int(id); got != want {
				t.Errorf("got %d bytes, want %d", got, want)
			}
		}
	})
}

func TestWhatCannotBeSentDoesNotKeepBackTheOthers(t *testing.T) {
	onBothPaths(t, func(t *testing.T, o listen.Options) {
		s := bind(t, o)
		conn := dial(t, "udp", s.Addrs()[0])
		const n = 60 // before anybody reads: they make one batch
		for i := range n {
			send(t, conn, query(uint16(i), 0))
		}
		run(t, s, handle(func(m *listen.Message, out []byte) []byte {
			if idOf(m.Raw)%3 == 0 {
				return append(echo(m, out), make([]byte, 70_000)...) // no datagram is so large
			}
			return echo(m, out)
		}))
		for i := range n {
			if i%3 == 0 {
				continue
			}
			if got := idOf(receive(t, conn)); got != uint16(i) {
				t.Fatalf("got answer %d, want %d", got, i)
			}
		}
		if got := s.Stats().SendErrors; got != n/3 {
			t.Errorf("send errors: got %d, want %d", got, n/3)
		}
	})
}

func TestClientsThatAreGoneDoNotDisturb(t *testing.T) {
	onBothPaths(t, func(t *testing.T, o listen.Options) {
		var held []*listen.Responder
		var mu sync.Mutex
		s := serve(t, o, handle(func(m *listen.Message, out []byte) []byte {
			if idOf(m.Raw) != 1 {
				return echo(m, out)
			}
			mu.Lock()
			defer mu.Unlock()
			held = append(held, m.Later())
			return nil
		}))
		for range 50 {
			conn := dial(t, "udp", s.addr())
			send(t, conn, query(1, 0))
			send(t, conn, query(2, 0))
			_ = conn.Close()
		}
		eventually(t, "all have asked", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(held) == 50
		})
		conn := dial(t, "udp", s.addr())
		for i, r := range held {
			r.Send(query(9, 0))
			wantAnswer(t, conn, uint16(100+i))
		}
	})
}

func TestResponsesAreIgnored(t *testing.T) {
	onBothPaths(t, func(t *testing.T, o listen.Options) {
		h := &counted{handle: echo}
		s := serve(t, o, h)
		conn := dial(t, "udp", s.addr())
		for id := range uint16(10) { // an answer takes the place of the one before in the batch
			send(t, conn, answer(nil, query(100, 0)))
			send(t, conn, []byte{0, 1, 0x80})
			wantAnswer(t, conn, id)
		}
		if got := h.asked.Load(); got != 10 {
			t.Errorf("got %d messages, want only the queries", got)
		}
	})
}

func TestAPanicCostsOneMessage(t *testing.T) {
	onBothPaths(t, func(t *testing.T, o listen.Options) {
		s := serve(t, o, handle(func(m *listen.Message, out []byte) []byte {
			if idOf(m.Raw)%10 == 0 {
				panic("on purpose")
			}
			return echo(m, out)
		}))
		conn := dial(t, "udp", s.addr())
		for i := range 30 {
			send(t, conn, query(uint16(i), 0))
		}
		for i := range 30 {
			if i%10 != 0 {
				if got := idOf(receive(t, conn)); got != uint16(i) {
					t.Errorf("got answer %d, want %d", got, i)
				}
			}
		}
		stream := dial(t, "tcp", s.addr())
		send(t, stream, framed(query(10, 0)))
		wantClosed(t, stream)
		wantAnswer(t, dial(t, "tcp", s.addr()), 1)
		if got := s.Stats().Panics; got != 4 {
			t.Errorf("panics: got %d, want 4", got)
		}
	})
}

// lanes counts without synchronization, as a Handler may on a lane of its own; the race detector looks on.
type lanes struct{ open, done []int }

func (l *lanes) Handle(m *listen.Message, out []byte) []byte {
	if m.Lane > 0 {
		l.open[m.Lane]++
	}
	return echo(m, out)
}

func (l *lanes) BatchDone(lane int) {
	if lane > 0 {
		l.done[lane] += l.open[lane]
		l.open[lane] = 0
	}
}

func TestALaneHasOneReader(t *testing.T) {
	onBothPaths(t, func(t *testing.T, o listen.Options) {
		h := &lanes{open: make([]int, 64), done: make([]int, 64)}
		s := serve(t, o, h)
		for range 50 { // ports that the kernel spreads
			conn := dial(t, "udp", s.addr())
			for id := range uint16(10) {
				wantAnswer(t, conn, id)
			}
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		done := 0
		for lane := range s.Lanes() {
			done += h.done[lane]
		}
		if done != 500 {
			t.Errorf("got %d messages in finished batches, want 500", done)
		}
	})
}

func TestShutdownWakesReadersThatWait(t *testing.T) {
	onBothPaths(t, func(t *testing.T, o listen.Options) {
		leavesNothing(t)
		o.UDPAndTCP = []string{"127.0.0.1:0", "127.0.0.2:0", "[::1]:0", ":0"}
		s := serve(t, o, handle(echo))
		for _, addr := range s.Addrs() {
			wantAnswer(t, dial(t, "udp", addr), 1)
		}
		start := time.Now()
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 250*time.Millisecond {
			t.Errorf("got %v, want at most 250 ms", took)
		}
	})
}

func TestWhatTheKernelKeptIsAnsweredAtTheEnd(t *testing.T) {
	onBothPaths(t, func(t *testing.T, o listen.Options) {
		if o.Portable {
			return // a deadline in the past reads nothing: clients ask again
		}
		s := bind(t, o)
		conn := dial(t, "udp", s.Addrs()[0])
		for i := range 150 {
			send(t, conn, query(uint16(i), 0))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Serve(ctx, handle(echo)); err != nil {
			t.Fatal(err)
		}
		for i := range 150 {
			if got := idOf(receive(t, conn)); got != uint16(i) {
				t.Fatalf("got answer %d, want %d", got, i)
			}
		}
	})
}

func TestAnswersThatComeDuringShutdownArrive(t *testing.T) {
	onBothPaths(t, func(t *testing.T, o listen.Options) {
		const n = 100
		responders := make(chan *listen.Responder, 2*n)
		s := serve(t, o, handle(func(m *listen.Message, _ []byte) []byte {
			responders <- m.Later()
			return nil
		}))
		datagrams, stream := dial(t, "udp", s.addr()), dial(t, "tcp", s.addr())
		for i := range n {
			send(t, datagrams, query(uint16(i), 0))
			send(t, stream, framed(query(uint16(i), 0)))
		}
		eventually(t, "all are under way", func() bool { return len(responders) == 2*n })
		ended := make(chan error, 1)
		go func() { ended <- s.stop() }()
		eventually(t, "nothing is accepted", func() bool {
			conn, err := net.Dial("tcp", s.addr())
			if err == nil {
				_ = conn.Close()
			}
			return err != nil
		})
		var senders sync.WaitGroup
		for range 2 * n {
			r := <-responders
			senders.Go(func() { r.Send(answer(nil, query(5, 0))) })
		}
		senders.Wait()
		for range n {
			receive(t, datagrams)
			receiveMessage(t, stream)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestAnAnswerThatNeverComesKeepsNobodyForLong(t *testing.T) {
	leavesNothing(t)
	responders := make(chan *listen.Responder, 3)
	s := serve(t, listen.Options{}, handle(func(m *listen.Message, _ []byte) []byte {
		responders <- m.Later()
		return nil
	}))
	datagrams, stream := dial(t, "udp", s.addr()), dial(t, "tcp", s.addr())
	send(t, datagrams, query(1, 0))
	send(t, stream, framed(query(1, 0)))
	first, second := <-responders, <-responders
	start := time.Now()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < time.Second || took > 2*soon {
		t.Errorf("got %v, want two seconds", took)
	}
	for range 2 { // a second time does nothing either
		first.Send(query(1, 0))
		second.Send(query(1, 0))
	}
}

func TestAnOutboxSendsForAllTransports(t *testing.T) {
	onBothPaths(t, func(t *testing.T, o listen.Options) {
		const n = 150
		responders := make(chan *listen.Responder, 2*n)
		s := serve(t, o, handle(func(m *listen.Message, _ []byte) []byte {
			responders <- m.Later()
			return nil
		}))
		one, other, stream := dial(t, "udp", s.addr()), dial(t, "udp", s.addr()), dial(t, "tcp", s.addr())
		for i := range n / 2 {
			send(t, one, query(uint16(i), 0))
			send(t, other, query(uint16(i), 0))
			send(t, stream, framed(query(uint16(i), 0), query(uint16(i), 0)))
		}
		var outbox listen.Outbox
		for i := range 2 * n {
			r := <-responders
			if i%10 == 0 {
				outbox.Add(r, nil)
			} else {
				outbox.Add(r, answer(nil, query(uint16(i), i)))
			}
			outbox.Add(r, query(0, 0)) // the second one is none
		}
		outbox.Flush()
		outbox.Flush()
		var got atomic.Int64
		for _, read := range []func() error{
			func() error { _, err := one.Read(make([]byte, 512)); return err },
			func() error { _, err := other.Read(make([]byte, 512)); return err },
			func() error { _, err := readMessage(stream); return err },
		} {
			go func() {
				for read() == nil {
					got.Add(1)
				}
			}()
		}
		eventually(t, "nine of ten are answered", func() bool { return got.Load() == 2*n*9/10 })
	})
}

func TestADatagramCostsNoAllocation(t *testing.T) {
	s := serve(t, listen.Options{UDPAndTCP: []string{":0"}}, handle(echo))
	_, port, _ := net.SplitHostPort(s.addr())
	conn := dial(t, "udp", net.JoinHostPort("127.0.0.1", port))
	raw, buffer := query(1, 20), make([]byte, 512)
	ask := func() {
		if _, err := conn.Write(raw); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(buffer); err != nil {
			t.Fatal(err)
		}
	}
	if got := testing.AllocsPerRun(1000, ask); got >= 1 {
		t.Errorf("got %v allocations for a query and its answer, want none", got)
	}
}
