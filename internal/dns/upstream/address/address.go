// Package address reads how a policy writes where an upstream is.
package address

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"dnsfleet/internal/fleet"
)

// Address is where an upstream is, and how it is spoken to.
type Address struct {
	Scheme string // udp, tcp, tls or https
	Host   string
	Port   string
	Name   string // that the certificate is for
	Path   string // of https, with its query
}

// ErrUnsupported says that an address is well formed but of a kind that this release cannot speak.
var ErrUnsupported = fmt.Errorf("%w: upstream scheme is not supported yet", fleet.ErrInvalid)

var defaultPorts = map[string]string{"udp": "53", "tcp": "53", "tls": "853", "https": "443"}

// Check says why an upstream of the policy cannot be used: fleet.ErrInvalid, and ErrUnsupported when it is only this
// release that cannot.
func Check(u fleet.PolicyUpstream) error {
	_, err := Parse(u.Address)
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
	e, err := Parse(u.Address)
	if err != nil {
		return false
	}
	hosts := u.Bootstrap
	if _, err := netip.ParseAddr(e.Host); err == nil {
		hosts = []string{e.Host}
	}
	return slices.ContainsFunc(hosts, func(h string) bool { return listensOn(listeners, h, e.Port) })
}

func listensOn(listeners []string, host, port string) bool {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	for _, l := range listeners {
		host, bound, err := net.SplitHostPort(l)
		if err != nil || bound != port {
			continue
		}
		own, err := netip.ParseAddr(host) // an empty host means every address
		if own == addr || (err != nil || own.IsUnspecified()) && addr.IsLoopback() {
			return true
		}
	}
	return false
}

// Parse reads udp://host:port, tcp://host:port, tls://host:port#name, https://host:port/path, host and host:port. The
// name is whom the certificate of a tls server is for, if not the host.
func Parse(address string) (Address, error) {
	invalid := fmt.Errorf("%w: upstream %q is not udp://host:port, tcp://host:port, tls://host:port, https://host/path, host or host:port", fleet.ErrInvalid, address)
	scheme, rest, found := strings.Cut(strings.TrimSpace(address), "://")
	if !found {
		scheme, rest = "udp", scheme
	}
	switch scheme {
	case "udp", "tcp", "tls":
	case "https":
		return parseHTTPS(strings.TrimSpace(address), invalid)
	case "quic", "h3", "sdns":
		if u, err := url.Parse(address); scheme != "sdns" && (err != nil || u.Host == "") {
			return Address{}, invalid
		}
		return Address{}, fmt.Errorf("%w: %s", ErrUnsupported, scheme)
	default:
		return Address{}, invalid
	}
	name, named := "", false
	if scheme == "tls" {
		rest, name, named = strings.Cut(rest, "#")
	}
	rest = strings.TrimSuffix(rest, "/")
	host, port := rest, defaultPorts[scheme]
	if inner, found := strings.CutPrefix(rest, "["); found && strings.HasSuffix(inner, "]") {
		host = strings.TrimSuffix(inner, "]")
	}
	if _, err := netip.ParseAddr(host); err != nil && strings.Contains(rest, ":") {
		if host, port, err = net.SplitHostPort(rest); err != nil {
			return Address{}, invalid
		}
	}
	if !validPort(port) || !validHost(host) || named && !validHost(name) {
		return Address{}, invalid
	}
	if !named {
		name = host
	}
	return Address{Scheme: scheme, Host: host, Port: port, Name: strings.TrimSuffix(name, ".")}, nil
}

func parseHTTPS(address string, invalid error) (Address, error) {
	u, err := url.Parse(address)
	if err != nil || u.User != nil || u.Fragment != "" || !validHost(u.Hostname()) {
		return Address{}, invalid
	}
	e := Address{Scheme: "https", Host: u.Hostname(), Port: u.Port(), Name: u.Hostname(), Path: u.RequestURI()}
	if e.Port == "" {
		e.Port = defaultPorts["https"]
	}
	if !validPort(e.Port) {
		return Address{}, invalid
	}
	if u.Path == "" {
		e.Path = "/dns-query" // of a bare host it is what everybody means
	}
	return e, nil
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

func validHost(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Zone() == "" || plain(addr.Zone())
	}
	return host != "" && len(host) <= 253 && plain(host)
}

// plain reports whether a text holds only what is in names of hosts and interfaces.
func plain(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_')
	})
}
