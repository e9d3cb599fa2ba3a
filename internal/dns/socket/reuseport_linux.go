package socket

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// reusePort lets several sockets share a port, each with a queue of its own.
var reusePort = func(_, _ string, c syscall.RawConn) error {
	var sockErr error
	err := c.Control(func(fd uintptr) {
		sockErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	if err != nil {
		return err
	}
	return sockErr
}
