package loop

import (
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/io_uring.h.
const (
	ringEntries = 256

	opConnect = 16
	opSend    = 26
	opRecv    = 27

	enterGetEvents    = 1
	featureSingleMmap = 1
	offsetSQEs        = 0x10000000
)

type ringOffsets struct {
	head, tail, mask, entries uint32
	// Of the submission queue flags, dropped, array; of the completion queue overflow, cqes, flags.
	a, b, c  uint32
	reserved uint32
	user     uint64
}

type ringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
	reserved                                             [3]uint32
	sq, cq                                               ringOffsets
}

type submission struct {
	opcode, flags   uint8
	priority        uint16
	fd              int32
	offset, address uint64
	size, opFlags   uint32
	user            uint64
	_               [3]uint64
}

type completion struct {
	user   uint64
	result int32
	flags  uint32
}

// ring makes many system calls by one, with io_uring. As all of them return at once, they are done in their order when
// that one returns, and nothing is ever left in it.
type ring struct {
	fd             int
	rings, entries []byte // mapped
	sqTail         *uint32
	sqMask         uint32
	sqArray        []uint32
	sqes           []submission
	cqHead, cqTail *uint32
	cqMask         uint32
	cqes           []completion
	broken         bool
}

// newRing returns nil where there is no io_uring, or it is not allowed.
func newRing() *ring {
	var p ringParams
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, ringEntries, uintptr(unsafe.Pointer(&p)), 0) //nolint:gosec // shared with the kernel
	if errno != 0 {
		return nil
	}
	r := &ring{fd: int(fd)}
	if p.features&featureSingleMmap == 0 || !r.mapMemory(&p) {
		r.close()
		return nil
	}
	ops := []op{{kind: connect, fd: -1, addr: &unspecified}}
	if r.do(ops); ops[0].err != unix.EBADF { // some kernels know io_uring but not this
		r.close()
		return nil
	}
	return r
}

func (r *ring) mapMemory(p *ringParams) bool {
	size := max(int(p.sq.c+4*p.sqEntries), int(p.cq.b)+int(unsafe.Sizeof(completion{}))*int(p.cqEntries))
	var err error
	if r.rings, err = unix.Mmap(r.fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return false
	}
	size = int(unsafe.Sizeof(submission{})) * int(p.sqEntries)
	if r.entries, err = unix.Mmap(r.fd, offsetSQEs, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return false
	}
	at := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[offset])) } //nolint:gosec // shared with the kernel
	r.sqTail, r.sqMask = at(p.sq.tail), *at(p.sq.mask)
	r.cqHead, r.cqTail, r.cqMask = at(p.cq.head), at(p.cq.tail), *at(p.cq.mask)
	r.sqArray = unsafe.Slice(at(p.sq.c), p.sqEntries)                                   //nolint:gosec // shared with the kernel
	r.sqes = unsafe.Slice((*submission)(unsafe.Pointer(&r.entries[0])), p.sqEntries)    //nolint:gosec // shared with the kernel
	r.cqes = unsafe.Slice((*completion)(unsafe.Pointer(&r.rings[p.cq.b])), p.cqEntries) //nolint:gosec // shared with the kernel
	return true
}

func (r *ring) do(ops []op) {
	for len(ops) > 0 && !r.broken {
		n := min(len(ops), len(r.sqes))
		r.submit(ops[:n])
		ops = ops[n:]
	}
	plain{}.do(ops)
}

// submit hands calls to the kernel, no more than there are entries, and returns when all are done.
func (r *ring) submit(ops []op) {
	tail := *r.sqTail // which only we write
	for i := range ops {
		o := &ops[i]
		at := (tail + uint32(i)) & r.sqMask
		r.sqArray[at] = at
		e := submission{fd: int32(o.fd), user: uint64(i)}
		switch o.kind {
		case connect:
			e.opcode, e.address, e.offset = opConnect, uint64(uintptr(pointer(o.addr.raw[:]))), uint64(o.addr.size)
		case send:
			e.opcode, e.opFlags = opSend, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL
			e.address, e.size = uint64(uintptr(pointer(o.buf))), uint32(len(o.buf))
		case receive:
			e.opcode, e.opFlags = opRecv, unix.MSG_DONTWAIT
			e.address, e.size = uint64(uintptr(pointer(o.buf))), uint32(len(o.buf))
		}
		r.sqes[at] = e
		o.err = unix.EIO // until it is done
	}
	atomic.StoreUint32(r.sqTail, tail+uint32(len(ops)))
	left, done := len(ops), 0
	for done < len(ops) {
		n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(left), uintptr(len(ops)-done), enterGetEvents, 0, 0)
		if errno == 0 {
			left -= int(n)
		} else if errno != unix.EINTR && errno != unix.EAGAIN && errno != unix.EBUSY {
			r.broken = true // what was not done fails
			break
		}
		done += r.reap(ops)
	}
	runtime.KeepAlive(ops)
}

func (r *ring) reap(ops []op) (n int) {
	head := *r.cqHead // which only we write
	for tail := atomic.LoadUint32(r.cqTail); head != tail; head++ {
		c := &r.cqes[head&r.cqMask]
		o := &ops[c.user]
		o.n, o.err = int(c.result), 0
		if c.result < 0 {
			o.n, o.err = 0, unix.Errno(-c.result)
		}
		n++
	}
	atomic.StoreUint32(r.cqHead, head)
	return n
}

func (r *ring) close() {
	for _, m := range [][]byte{r.rings, r.entries} {
		if m != nil {
			_ = unix.Munmap(m)
		}
	}
	_ = unix.Close(r.fd)
}
