package exchange

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxIdle bounds the sockets that wait for their next query; they hold no port meanwhile.
const maxIdle = 64

// sockets hands out datagram sockets, each connected from a port that the kernel draws from its random generator. A
// socket is used again without being opened again: disconnected it gives its port back, and draws another one when it
// is connected next. That halves what a query costs.
type sockets struct {
	mu     sync.Mutex // guards the following
	idle   [2][]*datagram
	closed bool
	keeps  bool // the kernel does not give ports back, so no socket is used twice
	tested bool
}

// datagram is a socket. What it reads comes from the address that it is connected to.
type datagram struct {
	conn interface {
		Read([]byte) (int, error)
		Write([]byte) (int, error)
		SetDeadline(time.Time) error
		Close() error
	}
	fd     int // -1 for one that is not used again
	family int // index in idle
}

func (d *datagram) Read(b []byte) (int, error)    { return d.conn.Read(b) }
func (d *datagram) Write(b []byte) (int, error)   { return d.conn.Write(b) }
func (d *datagram) SetDeadline(t time.Time) error { return d.conn.SetDeadline(t) }

func (s *sockets) connect(addr netip.AddrPort) (*datagram, error) {
	if addr.Addr().Zone() != "" {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
		return &datagram{conn: conn, fd: -1}, err
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
		d = &datagram{conn: os.NewFile(uintptr(fd), "udp"), fd: fd, family: family}
	}
	var to unix.Sockaddr
	if family == 0 {
		to = &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	} else {
		to = &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
	}
	if err := unix.Connect(d.fd, to); err != nil {
		_ = d.conn.Close()
		return nil, os.NewSyscallError("connect", err)
	}
	return d, nil
}

func (s *sockets) take(family int) *datagram {
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

// release keeps a socket, if nothing can be under way to it any more.
func (s *sockets) release(d *datagram, clean bool) {
	if !clean || d.fd < 0 || !s.disconnect(d) || !s.put(d) {
		_ = d.conn.Close()
	}
}

func (s *sockets) put(d *datagram) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.keeps || len(s.idle[d.family]) >= maxIdle {
		return false
	}
	s.idle[d.family] = append(s.idle[d.family], d)
	return true
}

// disconnect gives the port back. The first time it looks whether the kernel really does.
func (s *sockets) disconnect(d *datagram) bool {
	var unspecified unix.RawSockaddrAny                                                                                           // of family AF_UNSPEC
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(d.fd), uintptr(unsafe.Pointer(&unspecified)), unix.SizeofSockaddrInet6) //nolint:gosec // package unix has no address without a family
	if errno != 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.tested {
		s.tested = true
		s.keeps = port(d.fd) != 0
	}
	return !s.keeps
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

func (s *sockets) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for i, idle := range s.idle {
		for _, d := range idle {
			_ = d.conn.Close()
		}
		s.idle[i] = nil
	}
}
