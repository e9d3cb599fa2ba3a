package listen_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"dnsfleet/internal/dns/listen"
)

const (
	soon    = 5 * time.Second // for what takes milliseconds on an idle machine
	refresh = 2 * time.Millisecond
)

// handle is a listen.Handler.
type handle func(m *listen.Message, out []byte) []byte

func (h handle) Handle(m *listen.Message, out []byte) []byte { return h(m, out) }
func (h handle) BatchDone(int)                               {}

// echo answers with the query.
func echo(m *listen.Message, out []byte) []byte { return answer(out, m.Raw) }

func answer(out, raw []byte) []byte {
	start := len(out)
	out = append(out, raw...)
	out[start+2] |= 0x80
	return out
}

// query is a header with an id, and n more bytes.
func query(id uint16, n int) []byte {
	raw := make([]byte, 12+n)
	binary.BigEndian.PutUint16(raw, id)
	return raw
}

func idOf(raw []byte) uint16 { return binary.BigEndian.Uint16(raw) }

// served is a Server at work.
type served struct {
	*listen.Server
	stop func() error // ends it and returns what Serve does; may be called more than once
}

func bind(t testing.TB, o listen.Options) *listen.Server {
	t.Helper()
	if o.UDPAndTCP == nil && o.DoT == nil && o.DoH == nil {
		o.UDPAndTCP = []string{"127.0.0.1:0"}
	}
	s, err := listen.Bind(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func serve(t testing.TB, o listen.Options, h listen.Handler) *served {
	t.Helper()
	return run(t, bind(t, o), h)
}

func run(t testing.TB, s *listen.Server, h listen.Handler) *served {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	var result error
	go func() {
		defer close(ended)
		result = s.Serve(ctx, h)
	}()
	started := &served{Server: s, stop: func() error {
		cancel()
		<-ended
		return result
	}}
	t.Cleanup(func() {
		if err := started.stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return started
}

func (s *served) addr() string { return s.Addrs()[0] }

func dial(t testing.TB, network, addr string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout(network, addr, soon)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(4 * soon))
	return conn
}

func send(t testing.TB, conn net.Conn, raw []byte) {
	t.Helper()
	if _, err := conn.Write(raw); err != nil {
		t.Fatalf("send: %v", err)
	}
}

// receive reads a datagram.
func receive(t testing.TB, conn net.Conn) []byte {
	t.Helper()
	buffer := make([]byte, 1<<16)
	n, err := conn.Read(buffer)
	if err != nil {
		t.Fatalf("receive: %v", err)
	}
	return buffer[:n]
}

// framed is messages with their lengths.
func framed(messages ...[]byte) []byte {
	var b []byte
	for _, raw := range messages {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(raw))), raw...)
	}
	return b
}

func readMessage(conn io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	raw := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(conn, raw)
	return raw, err
}

func receiveMessage(t testing.TB, conn net.Conn) []byte {
	t.Helper()
	raw, err := readMessage(conn)
	if err != nil {
		t.Fatalf("receive: %v", err)
	}
	return raw
}

// wantAnswer asks on a connection of any kind.
func wantAnswer(t testing.TB, conn net.Conn, id uint16) {
	t.Helper()
	var got []byte
	if _, datagrams := conn.(*net.UDPConn); datagrams {
		send(t, conn, query(id, 20))
		got = receive(t, conn)
	} else {
		send(t, conn, framed(query(id, 20)))
		got = receiveMessage(t, conn)
	}
	if idOf(got) != id || got[2]&0x80 == 0 || len(got) != 32 {
		t.Fatalf("got % x, want an answer to %d of 32 bytes", got, id)
	}
}

// wantClosed waits until the other end closes, and reports what came before.
func wantClosed(t testing.TB, conn net.Conn) int {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(4 * soon))
	n, err := io.Copy(io.Discard, conn)
	if netErr, ok := err.(net.Error); ok && netErr.Timeout() { //nolint:errorlint // net returns it as it is
		t.Fatalf("got %d bytes and no end, want the connection closed", n)
	}
	return int(n)
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ticker := time.NewTicker(refresh)
	defer ticker.Stop()
	for deadline := time.Now().Add(4 * soon); !ok(); <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, 4*soon)
		}
	}
}

// leavesNothing checks at the end of the test that what it starts also ends: goroutines and descriptors.
func leavesNothing(t testing.TB) {
	t.Helper()
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	t.Cleanup(func() {
		eventually(t, "goroutines as before", func() bool { return runtime.NumGoroutine() <= goroutines })
		eventually(t, "descriptors as before", func() bool { return descriptors(t) <= files })
	})
}

// descriptors is 0 where the system does not say.
func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return len(entries)
}

// counted is a Handler that counts what it was asked.
type counted struct {
	handle
	asked atomic.Int64
}

func (c *counted) Handle(m *listen.Message, out []byte) []byte {
	c.asked.Add(1)
	return c.handle(m, out)
}
