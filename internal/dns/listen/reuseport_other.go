//go:build !linux

package listen

import "syscall"

// sharesPort is false where SO_REUSEPORT does not spread clients over sockets: one socket serves.
const sharesPort = false

func sharePort(_, _ string, _ syscall.RawConn) error { return nil }
