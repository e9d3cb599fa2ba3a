package main

import (
	"errors"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"dnsfleet/internal/bootstrap"
)

const redacted = "[redacted]"

// secret is a text that prints as [redacted] however it is formatted.
type secret string

func (s secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString keeps %#v from showing it.
func (s secret) GoString() string { return s.String() }

// LogValue keeps slog from showing it.
func (s secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

func (s secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// listenAddr is [host]:port, "" for none.
type listenAddr string

// Decode reads "off" as none.
func (a *listenAddr) Decode(text string) error {
	addr, err := parseListen(text)
	*a = listenAddr(addr)
	return err
}

func parseListen(text string) (string, error) {
	text = strings.TrimSpace(text)
	if text == "" || text == "off" {
		return "", nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return "", errors.New("must be [host]:port or off")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return "", errors.New("must be [host]:port with a port from 0 to 65535")
	}
	if host != "" && host != "localhost" {
		if _, err := netip.ParseAddr(host); err != nil {
			return "", errors.New("must be [host]:port with an IP address or localhost as host")
		}
	}
	return text, nil
}

// loopback reports whether only this machine can reach the address; none is reached by nobody.
func (a listenAddr) loopback() bool {
	if a == "" {
		return true
	}
	host, _, err := net.SplitHostPort(string(a))
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && ip.IsLoopback())
}

// parts are the members of a comma list, without the blanks around them and without empty ones.
func parts(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part != "" && !yield(part) {
				return
			}
		}
	}
}

// listenList is a comma list of listenAddr.
type listenList []string

// Decode reads "off" as none.
func (l *listenList) Decode(text string) error {
	*l = nil
	for part := range parts(text) {
		addr, err := parseListen(part)
		if err != nil {
			return err
		}
		if addr != "" {
			*l = append(*l, addr)
		}
	}
	return nil
}

// prefixList is a comma list of prefixes; a bare address means just that address.
type prefixList []netip.Prefix

// Decode reads the list.
func (l *prefixList) Decode(text string) error {
	*l = nil
	for part := range parts(text) {
		if addr, err := netip.ParseAddr(part); err == nil {
			*l = append(*l, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(part)
		if err != nil {
			return errors.New("must be a comma list of prefixes such as 192.168.0.0/16 or fd00::/8")
		}
		*l = append(*l, p.Masked())
	}
	return nil
}

// addrList is a comma list of IP or IP:port, completed with port 53.
type addrList []netip.AddrPort

// Decode reads the list.
func (l *addrList) Decode(text string) (err error) {
	if *l, err = bootstrap.ParseServers(text); err != nil {
		return errors.New("must be a comma list of IP or IP:port")
	}
	return nil
}

// urlList is a comma list of http and https URLs.
type urlList []string

// Decode reads the list.
func (l *urlList) Decode(text string) error {
	*l = nil
	for part := range parts(text) {
		part = strings.TrimRight(part, "/")
		u, err := url.Parse(part)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return errors.New("must be a comma list of http:// or https:// URLs")
		}
		if u.User != nil {
			return errors.New("must not hold a user or password: the token goes into DNSFLEET_SYNC_TOKEN")
		}
		*l = append(*l, part)
	}
	if len(*l) == 0 {
		return errors.New("must name at least one primary")
	}
	return nil
}
