package address_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"dnsfleet/internal/dns/upstream/address"
	"dnsfleet/internal/fleet"
)

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		address string
		want    error
	}{
		{"9.9.9.9", nil},
		{"9.9.9.9:5353", nil},
		{"udp://9.9.9.9:53", nil},
		{"tcp://9.9.9.9", nil},
		{"udp://[2620:fe::fe]:53", nil},
		{"2620:fe::fe", nil},
		{"[2620:fe::fe]", nil},
		{"dns.quad9.net", nil},
		{"dns.quad9.net:53", nil},
		{"tls://dns.quad9.net", nil},
		{"tls://9.9.9.9:853", nil},
		{"tls://9.9.9.9#dns.quad9.net", nil},
		{"tls://[2620:fe::fe]:8853#dns.quad9.net", nil},
		{"https://dns.quad9.net/dns-query", nil},
		{"https://dns.quad9.net", nil},
		{"https://[2620:fe::fe]:8443/dns?tenant=1", nil},
		{"quic://dns.example", address.ErrUnsupported},
		{"", fleet.ErrInvalid},
		{"udp://", fleet.ErrInvalid},
		{"https://", fleet.ErrInvalid},
		{"udp://host:0", fleet.ErrInvalid},
		{"udp://host:65536", fleet.ErrInvalid},
		{"udp://host:port", fleet.ErrInvalid},
		{"udp://a b", fleet.ErrInvalid},
		{"udp://host/path", fleet.ErrInvalid},
		{"gopher://host", fleet.ErrInvalid},
		{"tls://", fleet.ErrInvalid},
		{"tls://host#", fleet.ErrInvalid},
		{"tls://host#a b", fleet.ErrInvalid},
		{"udp://host#name", fleet.ErrInvalid},
		{"https://user@host/dns-query", fleet.ErrInvalid},
		{"https://host:0/dns-query", fleet.ErrInvalid},
		{"https://host/dns-query#name", fleet.ErrInvalid},
	} {
		t.Run(c.address, func(t *testing.T) {
			err := address.Check(fleet.PolicyUpstream{Address: c.address})
			if !errors.Is(err, c.want) || errors.Is(err, address.ErrUnsupported) != errors.Is(c.want, address.ErrUnsupported) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestOwn(t *testing.T) {
	for _, c := range []struct {
		name, address, listener string
		want                    bool
	}{
		{"the listener itself", "udp://127.0.0.1:53", "127.0.0.1:53", true},
		{"loopback of a listener on every address", "127.0.0.1", ":53", true},
		{"loopback of a listener on every IPv6 address", "[::1]:53", "[::]:53", true},
		{"another port", "127.0.0.1:5353", "127.0.0.1:53", false},
		{"another address", "127.0.0.2", "127.0.0.1:53", false},
		{"a name", "localhost", "127.0.0.1:53", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := address.Own(fleet.PolicyUpstream{Address: c.address}, []string{c.listener}); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// FuzzParse: what is accepted can be dialed, and Check says the same.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"9.9.9.9", "tls://[2620:fe::fe]:853#dns.quad9.net", "https://dns.quad9.net/dns-query?a=b", "udp://host:53"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := address.Parse(text)
		u := fleet.PolicyUpstream{Address: text}
		address.Own(u, []string{":53", "127.0.0.1:853"})
		if (err == nil) != (address.Check(u) == nil) {
			t.Fatalf("%q: parse says %v, check says %v", text, err, address.Check(u))
		}
		if err != nil {
			return
		}
		port, err := strconv.ParseUint(a.Port, 10, 16)
		if err != nil || port == 0 || a.Host == "" || strings.ContainsAny(a.Host, "/ \x00#") || (a.Scheme == "https") != (a.Path != "") {
			t.Fatalf("%q: got %+v", text, a)
		}
	})
}
