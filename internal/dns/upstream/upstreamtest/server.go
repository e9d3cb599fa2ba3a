// Package upstreamtest is a resolver on loopback, on real sockets, that behaves well or in one of many bad manners. It is
// for tests only.
package upstreamtest

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Manner is how a server treats who asks it. What is nil is done right.
type Manner struct {
	Name string
	// Right says that the right answer can be had from it.
	Right bool
	// Message makes the answer to a query, over any transport.
	Message func(query []byte) []byte
	// Packet answers a datagram, instead of Message.
	Packet func(query []byte, to Sender)
	// Stream has one connection, which is closed when it returns, instead of Message. heard counts a query.
	Stream func(conn net.Conn, heard func(query []byte))
}

// Sender sends datagrams to who asked.
type Sender struct {
	Reply     func(msg []byte) // from the address that was asked
	OtherPort func(msg []byte) // from its host, but another port
	OtherHost func(msg []byte) // from another host, but its port
	Done      <-chan struct{}  // closed when the server ends
}

// Server is a resolver on loopback, over UDP and TCP on one port.
type Server struct {
	Addr  string       // host:port
	Heard atomic.Int64 // queries
	Conns atomic.Int64 // TCP connections that were opened
	Open  atomic.Int64 // and that still are

	manner Manner
	done   chan struct{}
	group  sync.WaitGroup
	end    sync.Once

	mu     sync.Mutex // guards the following
	closes []io.Closer
	names  map[string]int
}

// Start serves until the test ends, or Close.
func Start(t testing.TB, m Manner) *Server {
	t.Helper()
	s := &Server{manner: m, done: make(chan struct{}), names: map[string]int{}}
	t.Cleanup(s.Close)
	var listener net.Listener
	var packets, otherPort, otherHost net.PacketConn
	for range 20 { // until a port is free everywhere
		var err error
		if listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatalf("listen: %v", err)
		}
		s.Addr = listener.Addr().String()
		_, port, _ := net.SplitHostPort(s.Addr)
		packets, err = net.ListenPacket("udp", s.Addr)
		if err == nil {
			otherHost, err = net.ListenPacket("udp", "127.0.0.2:"+port)
		}
		if err == nil {
			break
		}
		_ = listener.Close()
		if packets != nil {
			_ = packets.Close()
		}
		listener = nil
	}
	otherPort, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil || listener == nil {
		t.Fatalf("listen: %v", err)
	}
	for _, c := range []io.Closer{listener, packets, otherPort, otherHost} {
		s.keep(c)
	}
	s.group.Go(func() { s.packets(packets, otherPort, otherHost) })
	s.group.Go(func() { s.Accept(listener) })
	return s
}

// UDP is the address in a policy.
func (s *Server) UDP() string { return "udp://" + s.Addr }

// TCP is the address in a policy.
func (s *Server) TCP() string { return "tcp://" + s.Addr }

// Close ends the server and all its connections. It is safe to call twice.
func (s *Server) Close() {
	s.end.Do(func() {
		close(s.done)
		s.mu.Lock()
		for _, c := range s.closes {
			_ = c.Close()
		}
		s.mu.Unlock()
	})
	s.group.Wait()
}

func (s *Server) keep(c io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closes = append(s.closes, c)
	select {
	case <-s.done:
		_ = c.Close()
	default:
	}
}

func (s *Server) packets(own, otherPort, otherHost net.PacketConn) {
	buffer := make([]byte, 4096)
	for {
		n, from, err := own.ReadFrom(buffer)
		if err != nil {
			return
		}
		query := append([]byte(nil), buffer[:n]...)
		s.hear(query)
		send := func(via net.PacketConn) func([]byte) {
			return func(msg []byte) { _, _ = via.WriteTo(msg, from) }
		}
		to := Sender{send(own), send(otherPort), send(otherHost), s.done}
		s.group.Go(func() {
			if s.manner.Packet == nil {
				to.Reply(s.manner.answer(query))
				return
			}
			s.manner.Packet(query, to)
		})
	}
}

// HeardOf is how often the server was asked about a name.
func (s *Server) HeardOf(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.names[name]
}

func (s *Server) hear(query []byte) {
	s.Heard.Add(1)
	q := new(dns.Msg)
	if q.Unpack(query) == nil && len(q.Question) == 1 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.names[q.Question[0].Name]++
	}
}

// Accept serves the connections of another listener, too, until it is closed.
func (s *Server) Accept(l net.Listener) {
	s.keep(l)
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		s.Conns.Add(1)
		s.Open.Add(1)
		s.keep(conn)
		s.group.Go(func() {
			defer s.Open.Add(-1)
			defer conn.Close()
			stream := s.manner.Stream
			if stream == nil {
				stream = frames(s.manner.answer)
			}
			stream(conn, s.hear)
		})
	}
}

func (m Manner) answer(query []byte) []byte {
	if m.Message == nil {
		return Right(query)
	}
	return m.Message(query)
}

// ReadFrame reads a message behind its length.
func ReadFrame(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, msg)
	return msg, err
}

// WriteFrame writes a message behind its length.
func WriteFrame(w io.Writer, msg []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...))
	return err
}

// Wait returns after d, or when done is closed.
func Wait(done <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
