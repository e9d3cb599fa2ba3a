package bootstrap

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"dnsfleet/internal/fleet"
)

// listener is one address of the program; the zero Addr means every address of the machine.
type listener struct {
	addr netip.Addr
	port uint16
}

// SetOwn replaces the listeners that are never asked, for when their ports are known only after they were bound.
func (d *Dialer) SetOwn(own []string) error {
	listeners := make([]listener, 0, len(own))
	for _, text := range own {
		host, portText, err := net.SplitHostPort(text)
		port, portErr := strconv.ParseUint(portText, 10, 16)
		if err != nil || portErr != nil {
			return fmt.Errorf("%w: listener %q is not host:port", fleet.ErrInvalid, text)
		}
		l := listener{port: uint16(port)}
		if ip, err := netip.ParseAddr(host); err == nil && !ip.IsUnspecified() {
			l.addr = ip.Unmap().WithZone("")
		}
		listeners = append(listeners, l)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.own = listeners
	return nil
}

// isOwn reports whether server is one of our own listeners.
func (d *Dialer) isOwn(server netip.AddrPort) bool {
	d.mu.Lock()
	own := d.own
	d.mu.Unlock()
	addr := server.Addr().Unmap().WithZone("")
	for _, l := range own {
		if l.port != server.Port() {
			continue
		}
		if l.addr == addr || !l.addr.IsValid() && isLocal(addr) {
			return true
		}
	}
	return false
}

// isLocal reports whether addr is one of this machine's.
func isLocal(addr netip.Addr) bool {
	if addr.IsLoopback() || addr.IsUnspecified() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false // then the server is asked; a loop would end by its time-out
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().WithZone("") == addr {
			return true
		}
	}
	return false
}

// dialSystemServer is how the system's resolver reaches the servers of resolv.conf.
func (d *Dialer) dialSystemServer(ctx context.Context, network, address string) (net.Conn, error) {
	if server, err := netip.ParseAddrPort(address); err == nil && d.isOwn(server) {
		return nil, fmt.Errorf("system resolver %s is this program itself: set DNSFLEET_BOOTSTRAP_DNS", address)
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}
