//go:build !linux

// Package datagram hands out UDP sockets with a port of their own for each query.
package datagram

import (
	"crypto/rand"
	"encoding/binary"
	"net"
	"net/netip"
)

// Sockets hands out datagram sockets, each bound to a port that is drawn here: not every system draws them at random. The zero value is ready. It is safe for concurrent use.
type Sockets struct{}

// Socket is a socket. What it reads comes from the address that it is connected to.
type Socket = net.UDPConn

// lowest is the lowest port that is drawn; from there up no service expects its port to be free.
const lowest = 32768

// Connect returns a socket that is connected to the address, from a port that nobody can guess. It is to be released.
func (s *Sockets) Connect(addr netip.AddrPort) (*Socket, error) {
	to := net.UDPAddrFromAddrPort(addr)
	for range 8 {
		var drawn [2]byte
		_, _ = rand.Read(drawn[:]) // never fails
		from := &net.UDPAddr{Port: lowest | int(binary.BigEndian.Uint16(drawn[:]))}
		if conn, err := net.DialUDP("udp", from, to); err == nil {
			return conn, nil
		}
	}
	return net.DialUDP("udp", nil, to)
}

// Release takes a socket back.
func (s *Sockets) Release(d *Socket, _ bool) { _ = d.Close() }

// Close closes the sockets that wait for their next query, and keeps none any more.
func (s *Sockets) Close() {}
