package datagrams

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// portable reads and writes one datagram at a time through Go's poller.
type portable struct {
	conn         *net.UDPConn
	buffer       [MaxSize]byte
	datagram     [1]Datagram
	session      *dns.SessionUDP // of the datagram
	shed, errors atomic.Uint64
}

// Portable makes a Socket of conn that works on all systems. If destination is set, answers leave from the address that
// was asked, where the system can tell it.
func Portable(conn *net.UDPConn, destination bool) Socket {
	if destination {
		_ = ipv6.NewPacketConn(conn).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
		_ = ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
	}
	return &portable{conn: conn}
}

// Batch is a Socket's.
func (s *portable) Batch() int { return 1 }

// Receive is a Socket's.
func (s *portable) Receive() ([]Datagram, error) {
	n, session, err := dns.ReadFromSessionUDP(s.conn, s.buffer[:])
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, net.ErrClosed
	}
	if err != nil {
		return nil, err
	}
	s.session = session
	s.datagram[0] = Datagram{Data: s.buffer[:n]}
	if from, ok := session.RemoteAddr().(*net.UDPAddr); ok {
		if addr, ok := netip.AddrFromSlice(from.IP); ok {
			s.datagram[0].From = addr.Unmap()
		}
	}
	return s.datagram[:], nil
}

// Reply is a Socket's.
func (s *portable) Reply(replies [][]byte) {
	for _, reply := range replies {
		s.send(s.session, reply)
	}
}

// Peer is a Socket's.
func (s *portable) Peer(_ int, p *Peer) { p.session = s.session }

// Send is a Socket's.
func (s *portable) Send(peers []*Peer, replies [][]byte) {
	for i, reply := range replies {
		s.send(peers[i].session, reply)
	}
}

func (s *portable) send(to *dns.SessionUDP, reply []byte) {
	if len(reply) == 0 {
		return
	}
	_, err := dns.WriteToSessionUDP(s.conn, reply, to)
	switch {
	case err == nil || errors.Is(err, net.ErrClosed):
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.shed.Add(1)
	default:
		s.errors.Add(1)
	}
}

// Wake is a Socket's.
func (s *portable) Wake() { _ = s.conn.SetReadDeadline(time.Now()) }

// Stats is a Socket's.
func (s *portable) Stats() Stats { return Stats{Shed: s.shed.Load(), Errors: s.errors.Load()} }

// Close is a Socket's.
func (s *portable) Close() error {
	if err := s.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
