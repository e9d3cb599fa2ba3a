// Package socket is the UDP and TCP listeners: it binds them, reads messages, and writes replies. What a message
// means is for its Handler to say.
package socket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	udpBuffer    = 4 << 20 // asked for; the kernel may give less
	portAttempts = 20      // to find one port that is free for UDP and TCP
)

// Server is bound listeners. The same port serves UDP and TCP.
type Server struct {
	endpoints []endpoint
}

// endpoint is one address: several UDP sockets, among which the kernel spreads clients, and one TCP listener.
type endpoint struct {
	udp []*net.UDPConn
	tcp *net.TCPListener
}

// Bind binds all addresses, or none if one cannot be bound. Port 0 takes a free one. The error names the address, and
// for port 53 what is likely in the way.
func Bind(ctx context.Context, addresses []string) (*Server, error) {
	s := &Server{}
	for _, address := range addresses {
		ep, err := bind(ctx, address)
		if err != nil {
			return nil, errors.Join(explain(address, err), s.Close())
		}
		s.endpoints = append(s.endpoints, ep)
	}
	return s, nil
}

// Addrs are the bound addresses as host:port.
func (s *Server) Addrs() []string {
	addrs := make([]string, 0, len(s.endpoints))
	for _, ep := range s.endpoints {
		addrs = append(addrs, ep.tcp.Addr().String())
	}
	return addrs
}

// Close gives the sockets back. It may be called more than once.
func (s *Server) Close() error {
	var errs []error
	for _, ep := range s.endpoints {
		if ep.tcp != nil { // one that could not be bound
			errs = append(errs, closed(ep.tcp))
		}
		for _, conn := range ep.udp {
			errs = append(errs, closed(conn))
		}
	}
	return errors.Join(errs...)
}

func closed(c io.Closer) error {
	if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func bind(ctx context.Context, address string) (endpoint, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return endpoint{}, err
	}
	for attempt := 1; ; attempt++ {
		ep, err := bindBoth(ctx, address)
		if err == nil || port != "0" || attempt == portAttempts || !errors.Is(err, syscall.EADDRINUSE) {
			return ep, err
		}
	}
}

// bindBoth binds TCP first, without sharing, and makes sure that UDP is free: the shared UDP sockets alone would let a
// second instance of the same user take half of the queries unnoticed.
func bindBoth(ctx context.Context, address string) (ep endpoint, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, (&Server{[]endpoint{ep}}).Close())
			ep = endpoint{}
		}
	}()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return ep, err
	}
	ep.tcp = l.(*net.TCPListener)
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return ep, err
	}
	udpAddress := net.JoinHostPort(host, strconv.Itoa(ep.tcp.Addr().(*net.TCPAddr).Port))
	alone, err := lc.ListenPacket(ctx, "udp", udpAddress)
	if err != nil {
		return ep, err
	}
	if !sharesPort {
		ep.udp = append(ep.udp, alone.(*net.UDPConn))
	} else if err := alone.Close(); err != nil {
		return ep, err
	}
	lc.Control = sharePort
	for sharesPort && len(ep.udp) < runtime.GOMAXPROCS(0) {
		conn, err := lc.ListenPacket(ctx, "udp", udpAddress)
		if err != nil {
			return ep, err
		}
		ep.udp = append(ep.udp, conn.(*net.UDPConn))
	}
	for _, conn := range ep.udp {
		if err := prepare(conn); err != nil {
			return ep, err
		}
	}
	return ep, nil
}

// prepare asks for the address that each query was sent to, so that the answer leaves from there also where the
// machine has several.
func prepare(conn *net.UDPConn) error {
	_ = conn.SetReadBuffer(udpBuffer) // as much as the kernel allows
	err6 := ipv6.NewPacketConn(conn).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
	err4 := ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
	if err4 != nil && err6 != nil {
		return fmt.Errorf("ask for destination addresses: %w", err4)
	}
	return nil
}

// explain says what to do about the two faults that people meet with port 53.
func explain(address string, err error) error {
	hint := ""
	_, port, _ := net.SplitHostPort(address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE) && (port == "53" || port == "domain"):
		hint = "; systemd-resolved or another DNS server may hold port 53: set DNSStubListener=no, or listen on one address"
	case errors.Is(err, syscall.EADDRINUSE):
		hint = "; another program holds this port"
	case errors.Is(err, syscall.EACCES):
		hint = "; ports below 1024 need the capability CAP_NET_BIND_SERVICE"
	}
	return fmt.Errorf("listen for dns on %s: %w%s", address, err, hint)
}
