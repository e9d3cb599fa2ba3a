//go:build !linux

package socket

import "syscall"

// reusePort is nil where SO_REUSEPORT does not spread clients over sockets: one socket serves.
var reusePort func(_, _ string, c syscall.RawConn) error
