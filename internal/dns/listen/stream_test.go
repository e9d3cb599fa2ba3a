package listen_test

import (
	"crypto/tls"
	"net"
	"sync"
	"testing"
	"time"

	"dnsfleet/internal/dns/listen"
)

// transport is one of those that carry streams.
type transport struct {
	name    string
	options func(listen.Options) listen.Options
	dial    func(testing.TB, *served) net.Conn
}

func transports(t testing.TB) []transport {
	t.Helper()
	a := newAuthority(t)
	return []transport{
		{"tcp", func(o listen.Options) listen.Options { return o }, func(t testing.TB, s *served) net.Conn {
			t.Helper()
			return dial(t, "tcp", s.addr())
		}},
		{"dot", func(o listen.Options) listen.Options {
			o.DoT, o.Certificate = []string{"127.0.0.1:0"}, a.certificate
			return o
		}, func(t testing.TB, s *served) net.Conn {
			t.Helper()
			return tls.Client(dial(t, "tcp", s.DoTAddrs()[0]), a.client("dot"))
		}},
	}
}

func onStreams(t *testing.T, o listen.Options, h func() listen.Handler, test func(t *testing.T, s *served, dial func(testing.TB) net.Conn)) {
	t.Helper()
	for _, tr := range transports(t) {
		t.Run(tr.name, func(t *testing.T) {
			leavesNothing(t)
			s := serve(t, tr.options(o), h())
			test(t, s, func(t testing.TB) net.Conn {
				t.Helper()
				return tr.dial(t, s)
			})
		})
	}
}

func echoes() listen.Handler { return handle(echo) }

func TestAnswersLeaveInTheOrderInWhichTheyAreReady(t *testing.T) {
	const n = 100
	h := func() listen.Handler {
		var mu sync.Mutex
		var waiting []func()
		return handle(func(m *listen.Message, _ []byte) []byte {
			r, reply := m.Later(), echo(m, nil)
			mu.Lock()
			defer mu.Unlock()
			if waiting = append(waiting, func() { r.Send(reply) }); len(waiting) == n {
				for i := range waiting {
					waiting[n-1-i]()
				}
				waiting = nil
			}
			return nil
		})
	}
	onStreams(t, listen.Options{}, h, func(t *testing.T, _ *served, dial func(testing.TB) net.Conn) {
		conn := dial(t)
		for range 3 {
			var queries [][]byte
			for i := range n {
				queries = append(queries, query(uint16(i), i))
			}
			send(t, conn, framed(queries...))
			for i := range n {
				if got, want := receiveMessage(t, conn), n-1-i; int(idOf(got)) != want || len(got) != 12+want {
					t.Fatalf("got answer %d of %d bytes, want %d of %d", idOf(got), len(got), want, 12+want)
				}
			}
		}
	})
}

func TestAMessageMayComeInPieces(t *testing.T) {
	onStreams(t, listen.Options{}, echoes, func(t *testing.T, _ *served, dial func(testing.TB) net.Conn) {
		conn := dial(t)
		for _, b := range framed(query(1, 5), query(2, 6)) {
			send(t, conn, []byte{b})
		}
		for id := range uint16(2) {
			if got := receiveMessage(t, conn); idOf(got) != id+1 {
				t.Errorf("got answer %d, want %d", idOf(got), id+1)
			}
		}
		send(t, conn, framed(query(3, 65535-12), query(4, 0), query(5, 30_000)))
		for _, want := range []int{65535, 12, 30_012} {
			if got := receiveMessage(t, conn); len(got) != want {
				t.Errorf("got %d bytes, want %d", len(got), want)
			}
		}
	})
}

func TestWhatIsNoQueryClosesTheConnection(t *testing.T) {
	mute := func() listen.Handler {
		return handle(func(m *listen.Message, out []byte) []byte {
			if len(m.Raw) == 13 {
				return nil
			}
			return echo(m, out)
		})
	}
	onStreams(t, listen.Options{}, mute, func(t *testing.T, _ *served, dial func(testing.TB) net.Conn) {
		for name, raw := range map[string][]byte{
			"a message of no bytes":         {0, 0},
			"a message shorter than header": append([]byte{0, 11}, query(1, 0)[:11]...),
			"a length that lies":            {0, 11},
			"a response":                    framed(answer(nil, query(1, 9))),
			"what the handler leaves":       framed(query(1, 1)),
		} {
			conn := dial(t)
			wantAnswer(t, conn, 1)
			send(t, conn, append(framed(query(1, 20)), raw...))
			if got := wantClosed(t, conn); got != 34 {
				t.Errorf("%s: got %d bytes before the end, want the answer to what was asked before", name, got)
			}
		}
	})
}

func TestAnIdleConnectionIsClosed(t *testing.T) {
	o := listen.Options{Limits: listen.Limits{Idle: 50 * time.Millisecond}}
	onStreams(t, o, echoes, func(t *testing.T, _ *served, dial func(testing.TB) net.Conn) {
		conn := dial(t)
		wantAnswer(t, conn, 1)
		wantClosed(t, conn)
	})
}

func TestAConnectionIsNotIdleWhileAnswersAreUnderWay(t *testing.T) {
	o := listen.Options{Limits: listen.Limits{Idle: 50 * time.Millisecond}}
	slow := func() listen.Handler {
		return handle(func(m *listen.Message, _ []byte) []byte {
			r, reply := m.Later(), echo(m, nil)
			time.AfterFunc(300*time.Millisecond, func() { r.Send(reply) })
			return nil
		})
	}
	onStreams(t, o, slow, func(t *testing.T, _ *served, dial func(testing.TB) net.Conn) {
		conn := dial(t)
		wantAnswer(t, conn, 1)
		wantClosed(t, conn)
	})
}

func TestAMessageMustComeInTime(t *testing.T) {
	o := listen.Options{Limits: listen.Limits{Message: 500 * time.Millisecond}}
	onStreams(t, o, echoes, func(t *testing.T, _ *served, dial func(testing.TB) net.Conn) {
		conn := dial(t)
		wantAnswer(t, conn, 1)
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		raw := framed(query(1, 60_000))
		for i := 0; ; i++ {
			if i == 1000 {
				t.Fatal("a byte now and then kept the connection, want it closed")
			}
			if _, err := conn.Write(raw[i : i+1]); err != nil {
				return
			}
			<-ticker.C
		}
	})
}

func TestAClientThatSendsNoMoreIsStillAnswered(t *testing.T) {
	responders := make(chan func(), 10)
	h := func() listen.Handler {
		return handle(func(m *listen.Message, _ []byte) []byte {
			r, reply := m.Later(), echo(m, nil)
			responders <- func() { r.Send(reply) }
			return nil
		})
	}
	onStreams(t, listen.Options{}, h, func(t *testing.T, _ *served, dial func(testing.TB) net.Conn) {
		conn := dial(t)
		send(t, conn, framed(query(1, 0), query(2, 0)))
		first, second := <-responders, <-responders
		if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		first()
		receiveMessage(t, conn)
		second()
		receiveMessage(t, conn)
		wantClosed(t, conn)
	})
}

func TestAClientThatDoesNotReadIsClosed(t *testing.T) {
	o := listen.Options{Limits: listen.Limits{Write: 200 * time.Millisecond}}
	for name, h := range map[string]func() listen.Handler{
		"answered at once": func() listen.Handler {
			return handle(func(m *listen.Message, out []byte) []byte { return append(echo(m, out), make([]byte, 60_000)...) })
		},
		"answered later": func() listen.Handler {
			return handle(func(m *listen.Message, _ []byte) []byte {
				r := m.Later()
				go func() { // Handle has returned perhaps
					start := time.Now()
					r.Send(make([]byte, 60_000))
					if took := time.Since(start); took > soon {
						panic("Send blocked for " + took.String())
					}
				}()
				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			onStreams(t, o, h, func(t *testing.T, s *served, dial func(testing.TB) net.Conn) {
				conn := dial(t)
				queries := framed(query(1, 0), query(2, 0), query(3, 0), query(4, 0))
				eventually(t, "the server hangs up", func() bool {
					_, err := conn.Write(queries)
					return err != nil
				})
				if got := s.Stats().ConnectionsSlow; got == 0 {
					t.Error("slow connections: got 0, want one")
				}
			})
		})
	}
}

func TestAnswersThatNobodyReadsAreBounded(t *testing.T) {
	o := listen.Options{Limits: listen.Limits{Write: time.Minute}} // not what ends it
	h := func() listen.Handler {
		var mu sync.Mutex
		var waiting []*listen.Responder
		return handle(func(m *listen.Message, _ []byte) []byte {
			mu.Lock()
			defer mu.Unlock()
			if waiting = append(waiting, m.Later()); len(waiting) == 128 {
				for _, r := range waiting {
					r.Send(make([]byte, 65_000)) // more than the kernel takes
				}
			}
			return nil
		})
	}
	onStreams(t, o, h, func(t *testing.T, s *served, dial func(testing.TB) net.Conn) {
		conn := dial(t)
		under := conn
		if secure, ok := conn.(*tls.Conn); ok {
			under = secure.NetConn()
		}
		if err := under.(*net.TCPConn).SetReadBuffer(16 << 10); err != nil {
			t.Fatal(err)
		}
		for range 128 {
			send(t, conn, framed(query(1, 0)))
		}
		eventually(t, "the server hangs up", func() bool { return s.Stats().ConnectionsSlow == 1 })
	})
}

func TestIdleConnectionsEndAtOnceWithTheServer(t *testing.T) {
	onStreams(t, listen.Options{}, echoes, func(t *testing.T, s *served, dial func(testing.TB) net.Conn) {
		for range 10 {
			wantAnswer(t, dial(t), 1)
		}
		partial := dial(t)
		send(t, partial, []byte{0, 40, 1, 2, 3})
		start := time.Now()
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("got %v, want it at once", took)
		}
		wantClosed(t, partial)
	})
}
