//go:build !linux

package datagrams

import "net"

// Open makes a Socket of conn, which it owns from then on. If destination is set, answers leave from the address that
// was asked.
func Open(conn *net.UDPConn, destination bool) (Socket, error) {
	return Portable(conn, destination), nil
}
