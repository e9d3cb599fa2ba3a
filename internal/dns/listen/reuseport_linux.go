package listen

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// sharesPort says that SO_REUSEPORT spreads clients over the sockets of one port.
const sharesPort = true

// sharePort lets several sockets have a port, each with a queue of its own. It is a net.ListenConfig.Control.
func sharePort(_, _ string, c syscall.RawConn) error {
	var sockErr error
	err := c.Control(func(fd uintptr) {
		sockErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	if err != nil {
		return err
	}
	return sockErr
}
