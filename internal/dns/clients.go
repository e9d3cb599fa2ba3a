package dns

import "net/netip"

// DefaultAllowClients are the clients that are answered unless told otherwise: loopback, private, link-local, CGNAT
// (RFC 6598) and ULA addresses, so that nobody runs an open resolver by accident.
func DefaultAllowClients() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("100.64.0.0/10"),
		netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("fc00::/7"),
	}
}

// answers reports whether the client, unmapped and without zone, is answered.
func (e *Engine) answers(client netip.Addr) bool {
	for _, p := range e.opts.AllowClients {
		if p.Contains(client) {
			return true
		}
	}
	return false
}
