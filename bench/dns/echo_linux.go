package main

import (
	"context"
	"net"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	echoBatch = 64
	echoSize  = 1500
)

// message is struct mmsghdr.
type message struct {
	header unix.Msghdr
	size   uint32
	_      [4]byte
}

// echo sends every datagram back with the QR bit set, in batches, by a locked thread on a socket of its own for each core:
// what receiving and sending alone costs.
func echo(address string) error {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		e := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20)
		})
		if err == nil {
			err = e
		}
		return err
	}}
	ended := make(chan error, runtime.NumCPU())
	for range runtime.NumCPU() {
		conn, err := lc.ListenPacket(context.Background(), "udp4", address)
		if err != nil {
			return err
		}
		file, err := conn.(*net.UDPConn).File() // a blocking copy
		if err != nil {
			return err
		}
		if err := unix.SetNonblock(int(file.Fd()), false); err != nil {
			return err
		}
		go func() {
			runtime.LockOSThread()
			defer file.Close()
			ended <- serveEcho(file.Fd())
		}()
	}
	return <-ended
}

func serveEcho(fd uintptr) error {
	var messages [echoBatch]message
	var vectors [echoBatch]unix.Iovec
	var from [echoBatch]unix.RawSockaddrInet4
	var buffers [echoBatch][echoSize]byte
	for i := range messages {
		vectors[i].Base = &buffers[i][0]
		messages[i].header.Iov = &vectors[i]
		messages[i].header.SetIovlen(1)
		messages[i].header.Name = (*byte)(unsafe.Pointer(&from[i]))
	}
	for {
		for i := range messages {
			vectors[i].SetLen(echoSize)
			messages[i].header.Namelen = unix.SizeofSockaddrInet4
		}
		n, _, errno := syscall.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&messages[0])), echoBatch, unix.MSG_WAITFORONE, 0, 0)
		if errno != 0 {
			return errno
		}
		for i := range int(n) {
			buffers[i][2] |= 0x80
			vectors[i].SetLen(int(messages[i].size))
		}
		for sent := 0; sent < int(n); {
			k, _, errno := syscall.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&messages[sent])), uintptr(int(n)-sent), 0, 0, 0)
			if errno != 0 {
				k = 1 // whom it was for is gone
			}
			sent += int(k)
		}
	}
}
