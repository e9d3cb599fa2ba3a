package listen_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"dnsfleet/internal/dns/listen"
)

// dialFrom connects from a loopback address of its own.
func dialFrom(t testing.TB, host, addr string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(host)}, Timeout: soon}
	conn, err := d.DialContext(context.Background(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(4 * soon))
	return conn
}

func TestACrowdOfConnectionsStarvesNobody(t *testing.T) {
	for _, n := range []int{200, 2000} {
		for name, first := range map[string][]byte{"idle": nil, "trickling": {0}} {
			t.Run(fmt.Sprintf("%d %s", n, name), func(t *testing.T) {
				leavesNothing(t)
				const limit = 300
				s := serve(t, listen.Options{Limits: listen.Limits{Connections: limit}}, handle(echo))
				before := descriptors(t)
				crowd := make([]net.Conn, 0, n)
				for i := range n {
					conn := dialFrom(t, fmt.Sprintf("127.0.1.%d", 1+i%4), s.addr())
					if first != nil {
						send(t, conn, first)
					}
					crowd = append(crowd, conn)
				}
				eventually(t, "all were accepted", func() bool { return s.Stats().ConnectionsAccepted >= uint64(n) })
				for id := range uint16(20) {
					start := time.Now()
					wantAnswer(t, dial(t, "udp", s.addr()), id)
					wantAnswer(t, dial(t, "tcp", s.addr()), id)
					if took := time.Since(start); took > time.Second {
						t.Errorf("got answers after %v, want them at once", took)
					}
					if first != nil { // one byte at a time
						_, _ = crowd[n-1-int(id)].Write(first)
					}
				}
				if got := s.Stats().ConnectionsOpen; got > limit {
					t.Errorf("got %d open connections, want at most %d", got, limit)
				}
				if got := s.Stats(); (got.ConnectionsEvicted > 0) != (n > limit) || got.ConnectionsRefused > 0 {
					t.Errorf("got %d evicted and %d refused of %d", got.ConnectionsEvicted, got.ConnectionsRefused, n)
				}
				eventually(t, "descriptors are given back", func() bool { return descriptors(t) <= before+n+limit+40 })
			})
		}
	}
}

func TestOneClientDoesNotPushOutTheOthers(t *testing.T) {
	s := serve(t, listen.Options{Limits: listen.Limits{Connections: 40}}, handle(echo)) // 20 of one loopback address
	quiet := dialFrom(t, "127.0.1.1", s.addr())
	wantAnswer(t, quiet, 1)
	for i := range 100 {
		conn := dialFrom(t, fmt.Sprintf("127.0.1.%d", 2+i%3), s.addr())
		wantAnswer(t, conn, 1)
	}
	wantAnswer(t, quiet, 2)
}

func TestAConnectionThatWaitsForAnswersIsNoIdleOne(t *testing.T) {
	responders := make(chan *listen.Responder, 100)
	s := serve(t, listen.Options{Limits: listen.Limits{Connections: 8, PerClient: 4}}, handle(func(m *listen.Message, out []byte) []byte {
		if idOf(m.Raw) == 1 {
			return echo(m, out)
		}
		responders <- m.Later()
		return nil
	}))
	busy := dial(t, "tcp", s.addr())
	send(t, busy, framed(query(2, 0)))
	responder := <-responders
	for range 10 {
		wantAnswer(t, dial(t, "tcp", s.addr()), 1)
	}
	responder.Send(answer(nil, query(2, 0)))
	receiveMessage(t, busy)

	var all []net.Conn
	var waiting []*listen.Responder
	for range 4 { // of the four that one client has, none is idle
		conn := dial(t, "tcp", s.addr())
		send(t, conn, framed(query(2, 0)))
		all, waiting = append(all, conn), append(waiting, <-responders)
	}
	wantClosed(t, dial(t, "tcp", s.addr()))
	if got := s.Stats().ConnectionsRefused; got != 1 {
		t.Errorf("refused: got %d, want 1", got)
	}
	for i, r := range waiting {
		r.Send(answer(nil, query(2, 0)))
		receiveMessage(t, all[i])
	}
	wantAnswer(t, dial(t, "tcp", s.addr()), 1)
}
