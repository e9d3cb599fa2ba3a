//go:build !linux

package exchange

import (
	"net"
	"net/netip"
)

// sockets hands out datagram sockets, each bound to a port that is drawn here: not every system draws them at random.
type sockets struct{ ids random }

type datagram = net.UDPConn

// lowest is the lowest port that is drawn; from there up no service expects its port to be free.
const lowest = 32768

func (s *sockets) connect(addr netip.AddrPort) (*datagram, error) {
	to := net.UDPAddrFromAddrPort(addr)
	for range 8 {
		from := &net.UDPAddr{Port: lowest + int(s.ids.uint16())%(65536-lowest)}
		if conn, err := net.DialUDP("udp", from, to); err == nil {
			return conn, nil
		}
	}
	return net.DialUDP("udp", nil, to)
}

func (s *sockets) release(d *datagram, _ bool) { _ = d.Close() }

func (s *sockets) close() {}
