package listen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"syscall"

	"dnsfleet/internal/dns/listen/datagrams"
)

const (
	udpBuffer    = 4 << 20 // asked for; the kernel may give less
	portAttempts = 20      // to find one port that is free for UDP and TCP
)

// endpoint is one address: several UDP sockets, among which the kernel spreads clients, and one TCP listener.
type endpoint struct {
	udp []*net.UDPConn
	tcp net.Listener
}

func (ep endpoint) close() error {
	var errs []error
	if ep.tcp != nil { // one that could not be bound
		errs = append(errs, closed(ep.tcp))
	}
	for _, conn := range ep.udp {
		errs = append(errs, closed(conn))
	}
	return errors.Join(errs...)
}

func closed(c io.Closer) error {
	if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// bindPlain binds an address for UDP and TCP.
func bindPlain(ctx context.Context, address string) (endpoint, error) {
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
			err = errors.Join(err, ep.close())
			ep = endpoint{}
		}
	}()
	if ep.tcp, err = bindTCP(ctx, address); err != nil {
		return ep, err
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return ep, err
	}
	network := "udp" + family(host)
	udpAddress := net.JoinHostPort(host, strconv.Itoa(ep.tcp.Addr().(*net.TCPAddr).Port))
	var lc net.ListenConfig
	alone, err := lc.ListenPacket(ctx, network, udpAddress)
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
		conn, err := lc.ListenPacket(ctx, network, udpAddress)
		if err != nil {
			return ep, err
		}
		ep.udp = append(ep.udp, conn.(*net.UDPConn))
	}
	return ep, nil
}

func bindTCP(ctx context.Context, address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	lc := net.ListenConfig{KeepAlive: -1} // the idle timeout is shorter
	lc.SetMultipathTCP(false)
	return lc.Listen(ctx, "tcp"+family(host), address)
}

// family keeps 0.0.0.0 from being taken for all addresses of both families.
func family(host string) string {
	if addr, err := netip.ParseAddr(host); err == nil && addr.Is4() {
		return "4"
	}
	return ""
}

// openSockets makes sockets of the UDP connections, and owns those that it has taken over.
func openSockets(conns []*net.UDPConn, portable bool) (sockets []datagrams.Socket, err error) {
	for i, conn := range conns {
		_ = conn.SetReadBuffer(udpBuffer) // as much as the kernel allows
		_ = conn.SetWriteBuffer(udpBuffer)
		everywhere := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().IsUnspecified()
		socket := datagrams.Socket(nil)
		if portable {
			socket = datagrams.Portable(conn, everywhere)
		} else if socket, err = datagrams.Open(conn, everywhere); err != nil {
			return sockets, errors.Join(err, endpoint{udp: conns[i:]}.close())
		}
		sockets = append(sockets, socket)
	}
	return sockets, nil
}

// explain says what to do about the two faults that people meet with port 53.
func explain(what, address string, err error) error {
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
	return fmt.Errorf("listen for %s on %s: %w%s", what, address, err, hint)
}
