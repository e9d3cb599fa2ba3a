package loop

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// What an op may do.
const (
	receive = iota // into buf
	send           // buf
	connect        // to addr
)

// op is a system call and, once it is done, what became of it.
type op struct {
	kind int
	fd   int
	buf  []byte
	addr *sockaddr
	n    int
	err  unix.Errno
}

// caller makes system calls, one after the other, all of which return at once.
type caller interface {
	do(ops []op)
	close()
}

// plain makes each by itself.
type plain struct{}

func (plain) close() {}

func (plain) do(ops []op) {
	for i := range ops {
		o := &ops[i]
		var n uintptr
		switch o.kind {
		case receive:
			n, _, o.err = unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(o.fd), uintptr(pointer(o.buf)), uintptr(len(o.buf)), unix.MSG_DONTWAIT, 0, 0)
		case send:
			n, _, o.err = unix.RawSyscall6(unix.SYS_SENDTO, uintptr(o.fd), uintptr(pointer(o.buf)), uintptr(len(o.buf)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		case connect:
			_, _, o.err = unix.RawSyscall(unix.SYS_CONNECT, uintptr(o.fd), uintptr(pointer(o.addr.raw[:])), uintptr(o.addr.size))
		}
		o.n = int(n)
	}
}

// pointer is where bytes begin, for the kernel.
func pointer(b []byte) unsafe.Pointer { return unsafe.Pointer(&b[0]) } //nolint:gosec // see above
