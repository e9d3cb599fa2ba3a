// Package datagram hands out UDP sockets with a port of their own for each query.
package datagram

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// packets is what os.File and net.UDPConn share.
type packets interface {
	io.ReadWriteCloser
	SetDeadline(t time.Time) error
}

// maxIdle bounds the sockets that wait for their next query; they hold no port meanwhile.
const maxIdle = 64

// Sockets hands out datagram sockets, each connected from a port that the kernel draws from its random generator. A
// socket is used again without being opened again: disconnected it gives its port back, and draws another one when it
// is connected next. That halves what a query costs. The zero value is ready. It is safe
// for concurrent use.
type Sockets struct {
	mu     sync.Mutex // guards the following
	idle   [2][]*Socket
	closed bool
	keeps  bool // the kernel does not give ports back, so no socket is used twice
	tested bool
}

// Socket is a socket. What it reads comes from the address that it is connected to.
type Socket struct {
	packets
	fd     int // -1 for one that is not used again
	family int // index in idle
}

// Connect returns a socket that is connected to the address, from a port that nobody can guess. It is to be released.
func (s *Sockets) Connect(addr netip.AddrPort) (*Socket, error) {
	if addr.Addr().Zone() != "" {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
		return &Socket{packets: conn, fd: -1}, err
	}
	family := 0
	if addr.Addr().Is6() {
		family = 1
	}
	d := s.take(family)
	if d == nil {
		domain := [2]int{unix.AF_INET, unix.AF_INET6}[family]
		fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, os.NewSyscallError("socket", err)
		}
		d = &Socket{packets: os.NewFile(uintptr(fd), "udp"), fd: fd, family: family}
	}
	var to unix.Sockaddr
	if family == 0 {
		to = &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	} else {
		to = &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
	}
	if err := unix.Connect(d.fd, to); err != nil {
		_ = d.Close()
		return nil, os.NewSyscallError("connect", err)
	}
	return d, nil
}

func (s *Sockets) take(family int) *Socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	idle := s.idle[family]
	if len(idle) == 0 {
		return nil
	}
	d := idle[len(idle)-1]
	s.idle[family] = idle[:len(idle)-1]
	return d
}

// Release takes a socket back. It is clean if nothing can be under way to it any more.
func (s *Sockets) Release(d *Socket, clean bool) {
	if !clean || d.fd < 0 || !disconnect(d.fd) || !s.put(d) {
		_ = d.Close()
	}
}

// put keeps a disconnected socket. The first time it looks whether the kernel took the port back.
func (s *Sockets) put(d *Socket) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.tested {
		s.tested, s.keeps = true, port(d.fd) != 0
	}
	if s.closed || s.keeps || len(s.idle[d.family]) >= maxIdle {
		return false
	}
	s.idle[d.family] = append(s.idle[d.family], d)
	return true
}

func disconnect(fd int) bool {
	var unspecified unix.RawSockaddrAny                                                                                         // of family AF_UNSPEC
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspecified)), unix.SizeofSockaddrInet6) //nolint:gosec // package unix has no address without a family
	return errno == 0
}

// port is the port that a socket is bound to, 0 for none.
func port(fd int) int {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return -1
	}
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return name.Port
	case *unix.SockaddrInet6:
		return name.Port
	}
	return -1
}

// Close closes the sockets that wait for their next query, and keeps none any more.
func (s *Sockets) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for i, idle := range s.idle {
		for _, d := range idle {
			_ = d.Close()
		}
		s.idle[i] = nil
	}
}
