package datagrams

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// sendTimeout is how long the reader waits for room in a full send queue.
	sendTimeout = 100 * time.Millisecond
	// lastBatches bounds what is still read after Wake.
	lastBatches = 16
)

// batched blocks its reader's thread in recvmmsg: that answers a lone query twice as fast as Go's poller does.
type batched struct {
	destination bool
	in          incoming
	replies     outgoing
	last        int // batches that Receive still reads
	waking      atomic.Bool
	senders     sync.Pool // of *outgoing

	shed, errors atomic.Uint64

	mu sync.RWMutex // guards fd against being closed, and taken by another file, while it is in use
	fd int          // -1 = closed
}

// Open makes a Socket of conn, which it owns from then on. If destination is set, answers leave from the address that
// was asked: that costs a control message for each datagram, and only a socket bound to all addresses needs it.
func Open(conn *net.UDPConn, destination bool) (Socket, error) {
	fd, err := blocking(conn)
	if err != nil {
		return nil, fmt.Errorf("open datagram socket: %w", err)
	}
	if !hasBatches(fd) {
		_ = unix.Close(fd)
		return Portable(conn, destination), nil
	}
	_ = conn.Close() // fd is a copy
	s := &batched{fd: fd, destination: destination, last: lastBatches}
	s.senders.New = func() any { return newOutgoing() }
	s.in.init(destination)
	s.replies.init()
	if err := s.configure(); err != nil {
		return nil, errors.Join(fmt.Errorf("open datagram socket: %w", err), s.Close())
	}
	return s, nil
}

// blocking is a copy of the descriptor in blocking mode, which Go's poller does not know.
func blocking(conn *net.UDPConn) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	var dupErr error
	err = raw.Control(func(original uintptr) {
		fd, dupErr = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err := errors.Join(err, dupErr); err != nil {
		return -1, err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// hasBatches reports whether the kernel, or what stands in for one, knows both calls. It reads and sends nothing.
func hasBatches(fd int) bool {
	_, _, receive := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	_, _, send := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	return receive != unix.ENOSYS && receive != unix.EPERM && send != unix.ENOSYS && send != unix.EPERM
}

func (s *batched) configure() error {
	domain, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	timeout := unix.NsecToTimeval(sendTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	level, ask, discover, omit := unix.IPPROTO_IP, unix.IP_PKTINFO, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT
	if domain == unix.AF_INET6 { // it tells of IPv4 destinations in the same way, as mapped addresses
		level, ask, discover, omit = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_OMIT
	}
	// A forged "fragmentation needed" cannot make us send fragments, which can be replaced on their way.
	_ = unix.SetsockoptInt(s.fd, level, discover, omit)
	if s.destination {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(s.fd, level, ask, 1))
	}
	return nil
}

// Batch is a Socket's.
func (s *batched) Batch() int { return Batch }

// Receive takes no lock: Close waits for the reader.
func (s *batched) Receive() ([]Datagram, error) {
	for {
		flags := uintptr(unix.MSG_WAITFORONE)
		if s.waking.Load() {
			if s.last--; s.last < 0 {
				return nil, net.ErrClosed
			}
			flags = unix.MSG_DONTWAIT
		}
		s.in.reset()
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.in.messages[0])), Batch, flags, 0, 0) //nolint:gosec // package unix has no batches
		switch {
		case errno == 0:
			return s.in.take(int(n)), nil
		case errno == unix.EINTR:
		case errno == unix.EAGAIN && s.waking.Load():
			return nil, net.ErrClosed
		default:
			return nil, os.NewSyscallError("recvmmsg", errno)
		}
	}
}

// Reply is a Socket's.
func (s *batched) Reply(replies [][]byte) {
	n := 0
	for i, reply := range replies {
		if len(reply) == 0 {
			continue
		}
		from := &s.in.messages[i].header
		var control []byte
		if s.destination {
			control = s.in.controls[i][:from.Controllen]
			forgetInterface(control)
		}
		s.replies.set(n, reply, s.in.names[i][:from.Namelen], control)
		n++
	}
	s.write(&s.replies, n, 0)
}

// Peer is a Socket's.
func (s *batched) Peer(i int, p *Peer) {
	from := &s.in.messages[i].header
	p.nameLen = uint8(copy(p.name[:], s.in.names[i][:from.Namelen]))
	if s.destination {
		p.controlLen = uint8(copy(p.control[:], s.in.controls[i][:from.Controllen]))
		forgetInterface(p.control[:p.controlLen])
	}
}

// Send is a Socket's.
func (s *batched) Send(peers []*Peer, replies [][]byte) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.fd < 0 {
		return
	}
	out := s.senders.Get().(*outgoing)
	for len(replies) > 0 {
		n := 0
		for n < min(Batch, len(replies)) {
			p := peers[n]
			out.set(n, replies[n], p.name[:p.nameLen], p.control[:p.controlLen])
			n++
		}
		s.write(out, n, unix.MSG_DONTWAIT)
		peers, replies = peers[n:], replies[n:]
	}
	out.forget()
	s.senders.Put(out)
}

// write sends the first n messages. One that cannot be sent is counted and passed over.
func (s *batched) write(out *outgoing, n int, flags uintptr) {
	for off := 0; off < n; {
		sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&out.messages[off])), uintptr(n-off), flags, 0, 0) //nolint:gosec // package unix has no batches
		switch errno {
		case 0:
			off += int(sent)
		case unix.EINTR:
		case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
			s.shed.Add(1)
			off++
			flags = unix.MSG_DONTWAIT // having waited once is enough
		default:
			s.errors.Add(1)
			off++
		}
	}
}

// Wake makes the kernel return to a reader that waits. It reports that the socket is not connected, and does so anyway.
func (s *batched) Wake() {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.waking.Store(true)
	if s.fd >= 0 {
		_ = unix.Shutdown(s.fd, unix.SHUT_RD)
	}
}

// Stats is a Socket's.
func (s *batched) Stats() Stats {
	stats := Stats{Shed: s.shed.Load(), Errors: s.errors.Load()}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.fd < 0 {
		return stats
	}
	var info [unix.SK_MEMINFO_VARS]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0) //nolint:gosec // package unix has no such option
	if errno == 0 && size == uint32(unsafe.Sizeof(info)) {
		stats.Dropped = uint64(info[unix.SK_MEMINFO_DROPS])
	}
	return stats
}

// Close is a Socket's.
func (s *batched) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil
	}
	err := unix.Close(s.fd)
	s.fd = -1
	return os.NewSyscallError("close", err)
}

// senderOf reads a socket address as the kernel writes it.
func senderOf(name []byte) netip.Addr {
	switch len(name) {
	case syscall.SizeofSockaddrInet4:
		return netip.AddrFrom4([4]byte(name[4:8]))
	case syscall.SizeofSockaddrInet6:
		return netip.AddrFrom16([16]byte(name[8:24])).Unmap()
	}
	return netip.Addr{}
}
