package gate_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dnsfleet/internal/dns/listen/gate"
)

// troubled is a listener that has no descriptors for a while.
type troubled struct {
	net.Listener
	failures atomic.Int64
}

func (l *troubled) Accept() (net.Conn, error) {
	if l.failures.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

func limits(total int) gate.Limits {
	return gate.Limits{Total: total, PerClient: total, Loopback: total, Idle: 10 * time.Second, Handshake: time.Second}
}

// accepting is a Gate that echoes on l.
func accepting(t *testing.T, l net.Listener, g *gate.Gate) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.Accept(l, func(c *gate.Conn) { _, _ = io.Copy(c, c.Conn) })
	}()
	t.Cleanup(func() {
		g.Stop()
		_ = l.Close()
		<-ended
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		g.Wait(ctx)
	})
}

func listener(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func wantEcho(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestWithoutDescriptorsIdleConnectionsGo(t *testing.T) {
	l := &troubled{Listener: listener(t)}
	g := gate.New(limits(10), slog.New(slog.DiscardHandler))
	accepting(t, l, g)
	idle := wantEcho(t, l.Addr().String())
	l.failures.Store(4) // the call under way comes first
	wantEcho(t, l.Addr().String())
	wantEcho(t, l.Addr().String())
	if _, err := idle.Read(make([]byte, 1)); err == nil {
		t.Error("the idle connection: got no end, want it closed to have its descriptor")
	}
	if got := g.Stats(); got.Accepts != 4 || got.Evicted == 0 {
		t.Errorf("got %d faults and %d evicted, want 4 and at least one", got.Accepts, got.Evicted)
	}
}

func TestIdleConnectionsHaveLessTimeWhenPlacesRunShort(t *testing.T) {
	l := listener(t)
	g := gate.New(limits(10), slog.New(slog.DiscardHandler))
	accepting(t, l, g)
	for n, seconds := range []float64{10, 10, 10, 10, 10, 10, 8, 6, 4, 2, 1} {
		if got := g.Idle().Round(time.Millisecond).Seconds(); got != seconds {
			t.Errorf("%d connections of 10: got %v s, want %v", n, got, seconds)
		}
		wantEcho(t, l.Addr().String())
	}
	if got := g.Stats().Open; got != 10 {
		t.Errorf("open: got %d, want 10", got)
	}
}

func TestAStoppedGateLetsNobodyIn(t *testing.T) {
	l := listener(t)
	g := gate.New(limits(10), slog.New(slog.DiscardHandler))
	accepting(t, l, g)
	conn := wantEcho(t, l.Addr().String())
	g.Stop()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("an open connection: got no end, want its reader woken")
	}
	late, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	_ = late.SetDeadline(time.Now().Add(20 * time.Second))
	if n, err := late.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("a late connection: got served, want it closed")
	}
}
