package upstream

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"dnsfleet/internal/fleet"
)

// endpoint is a parsed upstream address.
type endpoint struct {
	scheme string // udp or tcp
	host   string
	port   string
}

// ErrUnsupported says that an address is well formed but of a kind that this release cannot speak.
var ErrUnsupported = fmt.Errorf("%w: upstream scheme is not supported yet", fleet.ErrInvalid)

// Check says why an upstream of the policy cannot be used: fleet.ErrInvalid, and ErrUnsupported when it is only this
// release that cannot.
func Check(u fleet.PolicyUpstream) error {
	_, err := parse(u.Address)
	if err != nil {
		return err
	}
	for _, b := range u.Bootstrap {
		if _, err := netip.ParseAddr(b); err != nil {
			return fmt.Errorf("%w: bootstrap %q is not an IP address", fleet.ErrInvalid, b)
		}
	}
	return nil
}

// Own reports whether the upstream is one of the given host:port listeners, which would be asking ourselves.
func Own(u fleet.PolicyUpstream, listeners []string) bool {
	e, err := parse(u.Address)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(e.host)
	if err != nil {
		return false
	}
	for _, l := range listeners {
		host, port, err := net.SplitHostPort(l)
		if err != nil || port != e.port {
			continue
		}
		own, err := netip.ParseAddr(host) // an empty host means every address
		if own == addr || (err != nil || own.IsUnspecified()) && addr.IsLoopback() {
			return true
		}
	}
	return false
}

func parse(address string) (endpoint, error) {
	invalid := fmt.Errorf("%w: upstream %q is not udp://host:port, tcp://host:port, host or host:port", fleet.ErrInvalid, address)
	scheme, rest, found := strings.Cut(strings.TrimSpace(address), "://")
	if !found {
		scheme, rest = "udp", scheme
	}
	switch scheme {
	case "udp", "tcp":
	case "tls", "https", "quic", "h3", "sdns":
		if u, err := url.Parse(address); scheme != "sdns" && (err != nil || u.Host == "") {
			return endpoint{}, invalid
		}
		return endpoint{}, fmt.Errorf("%w: %s", ErrUnsupported, scheme)
	default:
		return endpoint{}, invalid
	}
	rest = strings.TrimSuffix(rest, "/")
	host, port := strings.Trim(rest, "[]"), "53"
	if _, err := netip.ParseAddr(host); err != nil && strings.Contains(rest, ":") {
		if host, port, err = net.SplitHostPort(rest); err != nil {
			return endpoint{}, invalid
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || !validHost(host) {
		return endpoint{}, invalid
	}
	return endpoint{scheme, host, port}, nil
}

func validHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host != "" && len(host) <= 253 && !strings.ContainsFunc(host, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_')
	})
}
