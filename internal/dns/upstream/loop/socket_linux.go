package loop

import (
	"encoding/binary"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	sizeInet4 = unix.SizeofSockaddrInet4
	sizeInet6 = unix.SizeofSockaddrInet6
)

// sockaddr is an address as the kernel reads it.
type sockaddr struct {
	raw  [sizeInet6]byte
	size int
}

// unspecified is the address that a connected socket is disconnected by: its family is AF_UNSPEC. Nothing changes it.
var unspecified = sockaddr{size: sizeInet6}

// socket is a UDP socket that is watched from when it is opened until it is closed.
type socket struct {
	fd       int
	family   int // index in thread.idle
	index    int // in thread.sockets
	at       int // in thread.active
	id       uint16
	used     bool
	addr     sockaddr
	query    Query // its Handler is nil when the socket has none
	slow     time.Duration
	deadline time.Duration
	failed   unix.Errno // what sending the query met
}

// family is the index of a query's family.
func family(q *Query) int {
	if q.To.Addr().Is6() {
		return 1
	}
	return 0
}

// take returns a socket for the query, which it has from then on.
func (t *thread) take(q *Query) (*socket, error) {
	s := t.pop(family(q))
	if s != nil && !s.fits(q) {
		t.drop(s)
		s = nil
	}
	if s == nil {
		var err error
		if s, err = t.openSocket(family(q)); err != nil {
			return nil, err
		}
	}
	s.give(q, t.begun)
	t.activate(s)
	return s, nil
}

// activate notes that a socket has a query.
func (t *thread) activate(s *socket) {
	s.at = len(t.active)
	t.active = append(t.active, s)
}

// fits is false if a late answer to the query before could be taken for the answer to this one.
func (s *socket) fits(q *Query) bool { return !s.used || s.id != binary.NativeEndian.Uint16(q.Wire) }

// give gives a query to a socket.
func (s *socket) give(q *Query, begun time.Time) {
	s.id, s.used = binary.NativeEndian.Uint16(q.Wire), true
	s.query, s.failed = *q, 0
	s.deadline, s.slow = q.Deadline.Sub(begun), 0
	if !q.Slow.IsZero() {
		s.slow = q.Slow.Sub(begun)
	}
	s.addr = sockaddr{size: sizeInet4}
	binary.BigEndian.PutUint16(s.addr.raw[2:], q.To.Port())
	if addr := q.To.Addr(); addr.Is4() {
		binary.NativeEndian.PutUint16(s.addr.raw[:], unix.AF_INET)
		four := addr.As4()
		copy(s.addr.raw[4:], four[:])
	} else {
		s.addr.size = sizeInet6
		binary.NativeEndian.PutUint16(s.addr.raw[:], unix.AF_INET6)
		sixteen := addr.As16()
		copy(s.addr.raw[8:], sixteen[:])
	}
}

func (t *thread) pop(family int) *socket {
	idle := t.idle[family]
	if len(idle) == 0 {
		return nil
	}
	s := idle[len(idle)-1]
	t.idle[family] = idle[:len(idle)-1]
	return s
}

func (t *thread) openSocket(family int) (*socket, error) {
	fd, err := unix.Socket([2]int{unix.AF_INET, unix.AF_INET6}[family], unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &socket{fd: fd, family: family, index: len(t.sockets)}
	if n := len(t.holes); n > 0 {
		s.index = t.holes[n-1]
		t.holes = t.holes[:n-1]
	} else {
		t.sockets = append(t.sockets, nil)
	}
	t.sockets[s.index] = s
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(s.index)}
	if err := unix.EpollCtl(t.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		t.drop(s)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return s, nil
}

// fail ends a query without an answer. Something may be under way to the socket, which is closed.
func (t *thread) fail(s *socket, err error) {
	handler := s.query.Handler
	t.end(s, false)
	handler.Fail(err)
}

// end takes the query from a socket, which is clean if nothing can be under way to it any more.
func (t *thread) end(s *socket, clean bool) {
	last := t.active[len(t.active)-1]
	t.active[s.at], last.at = last, s.at
	t.active = t.active[:len(t.active)-1]
	s.query = Query{}
	t.ended++
	if clean && !t.keeps {
		t.leaving = append(t.leaving, s)
	} else {
		t.drop(s)
	}
}

// release keeps a socket for another query, if it is disconnected.
func (t *thread) release(s *socket, disconnected bool) {
	if !disconnected || len(t.idle[s.family]) >= maxIdle {
		t.drop(s)
		return
	}
	t.idle[s.family] = append(t.idle[s.family], s)
}

// stray closes a socket that something came to too late.
func (t *thread) stray(s *socket) {
	idle := t.idle[s.family]
	if at := slices.Index(idle, s); at >= 0 {
		t.idle[s.family] = slices.Delete(idle, at, at+1)
		t.drop(s)
	}
}

// drop closes a socket that has no query and is not idle.
func (t *thread) drop(s *socket) {
	t.sockets[s.index] = nil
	t.holes = append(t.holes, s.index)
	_ = unix.Close(s.fd)
}

// givesPortsBack reports whether a socket that is disconnected has no port any more, and the calls can do what they must.
func givesPortsBack(c caller) bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd) //nolint:errcheck // it was not used
	discard := &socket{}
	binary.NativeEndian.PutUint16(discard.addr.raw[:], unix.AF_INET)
	copy(discard.addr.raw[2:], []byte{0, 9, 127, 0, 0, 1})
	discard.addr.size = sizeInet4
	ops := []op{{kind: connect, fd: fd, addr: &discard.addr}}
	c.do(ops)
	if ops[0].err != 0 || port(fd) == 0 {
		return false
	}
	ops[0] = op{kind: connect, fd: fd, addr: &unspecified}
	c.do(ops)
	return ops[0].err == 0 && port(fd) == 0
}

// port is the port that a socket is bound to, 0 for none.
func port(fd int) int {
	name, err := unix.Getsockname(fd)
	if inet, ok := name.(*unix.SockaddrInet4); err == nil && ok {
		return inet.Port
	}
	return -1
}
