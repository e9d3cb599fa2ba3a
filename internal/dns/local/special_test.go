package local_test

import (
	"strings"
	"testing"

	"dnsfleet/internal/dns/local"
)

func TestSpecialUseNamesStayHere(t *testing.T) {
	zeros := strings.Repeat("0.", 31)
	z := new(local.Zone)
	for name, q := range map[string]question{
		"localhost":                               {"localhost A", "localhost. 3600 IN A 127.0.0.1"},
		"localhost over IPv6":                     {"localhost AAAA", "localhost. 3600 IN AAAA ::1"},
		"a name below localhost":                  {"a.b.localhost A", "a.b.localhost. 3600 IN A 127.0.0.1"},
		"another type of localhost":               {"localhost MX", "NODATA of localhost."},
		"ANY of localhost is one set":             {"localhost ANY", "localhost. 3600 IN A 127.0.0.1"},
		"a name that only ends like localhost":    {"xlocalhost A", "not local"},
		"localhost that is not last":              {"localhost.example A", "not local"},
		"invalid":                                 {"x.invalid A", "NXDOMAIN of invalid."},
		"a printer of multicast DNS":              {"printer.local A", "NXDOMAIN of local."},
		"local itself":                            {"local SOA", "NXDOMAIN of local."},
		"a name of Tor":                           {"x.onion A", "NXDOMAIN of onion."},
		"test is forwarded":                       {"x.test A", "not local"},
		"so is what RFCs say nothing of":          {"x.internal A", "not local"},
		"a name in home.arpa":                     {"x.home.arpa A", "NXDOMAIN of home.arpa."},
		"home.arpa exists":                        {"home.arpa A", "NODATA of home.arpa."},
		"home.arpa has a SOA":                     {"home.arpa SOA", "home.arpa. 30 IN SOA localhost. nobody.invalid. 1 3600 600 86400 30"},
		"home.arpa has an NS":                     {"home.arpa NS", "home.arpa. 3600 IN NS localhost."},
		"who says that home.arpa is not signed":   {"home.arpa DS", "not local"},
		"but not of a name below":                 {"x.home.arpa DS", "NXDOMAIN of home.arpa."},
		"how to find an encrypted resolver":       {"_dns.resolver.arpa SVCB", "NODATA of resolver.arpa."},
		"resolver.arpa":                           {"resolver.arpa A", "NODATA of resolver.arpa."},
		"not even for a DS":                       {"resolver.arpa DS", "NODATA of resolver.arpa."},
		"another name in resolver.arpa":           {"x.resolver.arpa SVCB", "NXDOMAIN of resolver.arpa."},
		"the rest of arpa is forwarded":           {"ipv4only.arpa AAAA", "not local"},
		"arpa itself":                             {"arpa NS", "not local"},
		"a private address":                       {"1.0.0.10.in-addr.arpa PTR", "NXDOMAIN of 10.in-addr.arpa."},
		"the zone of private addresses":           {"10.in-addr.arpa SOA", "10.in-addr.arpa. 30 IN SOA localhost. nobody.invalid. 1 3600 600 86400 30"},
		"who says that it is not signed":          {"10.in-addr.arpa DS", "not local"},
		"the first of 172.16/12":                  {"1.0.16.172.in-addr.arpa PTR", "NXDOMAIN of 16.172.in-addr.arpa."},
		"the last of 172.16/12":                   {"1.0.31.172.in-addr.arpa PTR", "NXDOMAIN of 31.172.in-addr.arpa."},
		"one before":                              {"1.0.15.172.in-addr.arpa PTR", "not local"},
		"one after":                               {"1.0.32.172.in-addr.arpa PTR", "not local"},
		"192.168/16":                              {"1.1.168.192.in-addr.arpa PTR", "NXDOMAIN of 168.192.in-addr.arpa."},
		"its neighbour":                           {"1.1.169.192.in-addr.arpa PTR", "not local"},
		"a link-local address":                    {"1.1.254.169.in-addr.arpa PTR", "NXDOMAIN of 254.169.in-addr.arpa."},
		"a provider's shared address":             {"1.1.127.100.in-addr.arpa PTR", "NXDOMAIN of 127.100.in-addr.arpa."},
		"its neighbour is public":                 {"1.1.128.100.in-addr.arpa PTR", "not local"},
		"0/8":                                     {"0.0.0.0.in-addr.arpa PTR", "NXDOMAIN of 0.in-addr.arpa."},
		"broadcast":                               {"255.255.255.255.in-addr.arpa PTR", "NODATA of 255.255.255.255.in-addr.arpa."},
		"documentation":                           {"1.2.0.192.in-addr.arpa PTR", "NXDOMAIN of 2.0.192.in-addr.arpa."},
		"the loopback":                            {"1.0.0.127.in-addr.arpa PTR", "1.0.0.127.in-addr.arpa. 3600 IN PTR localhost."},
		"above the loopback there is something":   {"0.0.127.in-addr.arpa PTR", "NODATA of 127.in-addr.arpa."},
		"another loopback address":                {"2.0.0.127.in-addr.arpa PTR", "NXDOMAIN of 127.in-addr.arpa."},
		"the loopback of IPv6":                    {"1." + zeros + "ip6.arpa PTR", "1." + zeros + "ip6.arpa. 3600 IN PTR localhost."},
		"its other types":                         {"1." + zeros + "ip6.arpa A", "NODATA of 1." + zeros + "ip6.arpa."},
		"the unspecified address of IPv6":         {"0." + zeros + "ip6.arpa PTR", "NODATA of 0." + zeros + "ip6.arpa."},
		"a unique local address":                  {"1.2.d.f.ip6.arpa PTR", "NXDOMAIN of d.f.ip6.arpa."},
		"a link-local address of IPv6":            {"1.b.e.f.ip6.arpa PTR", "NXDOMAIN of b.e.f.ip6.arpa."},
		"a public address of IPv6":                {"1.0.0.2.ip6.arpa PTR", "not local"},
		"a public address":                        {"8.8.8.8.in-addr.arpa PTR", "not local"},
		"the top of the reverse names":            {"in-addr.arpa SOA", "not local"},
		"a name that ends like one but for a dot": {"x10.in-addr.arpa PTR", "not local"},
		"a public name":                           {"www.example.com A", "not local"},
		"a long public name":                      {strings.Repeat("a.", 126) + "x A", "not local"},
		"a special name of the largest size":      {strings.Repeat("a.", 124) + "local A", "NXDOMAIN of local."},
	} {
		t.Run(name, func(t *testing.T) { expect(t, z, q) })
	}
}

func TestWhatTheOwnerSaysBeatsSpecialUse(t *testing.T) {
	z, _ := local.New(records(`
		printer.local A 10.0.0.1
		x.localhost A 10.0.0.2
		localhost TXT mine
		5.0.0.127.in-addr.arpa PTR five.lan
		_dns.resolver.arpa SVCB 1 dns.lan alpn=dot
		home.arpa A 10.0.0.3
	`), conditional("corp.local", "168.192.in-addr.arpa", "lab.home.arpa", "ip6.arpa")...)
	for name, q := range map[string]question{
		"a record in local":                       {"printer.local A", "printer.local. 300 IN A 10.0.0.1"},
		"the rest of local":                       {"scanner.local A", "NXDOMAIN of local."},
		"above the record there is something":     {"local A", "NODATA of local."},
		"a domain in local that is forwarded":     {"corp.local A", "not local"},
		"what is below it":                        {"pc.corp.local A", "not local"},
		"what only ends like it":                  {"xcorp.local A", "NXDOMAIN of local."},
		"a reverse zone that is forwarded":        {"1.1.168.192.in-addr.arpa PTR", "not local"},
		"the other reverse zones":                 {"9.0.0.10.in-addr.arpa PTR", "NXDOMAIN of 10.in-addr.arpa."},
		"one above a special zone":                {"1.d.f.ip6.arpa PTR", "not local"},
		"a domain in home.arpa":                   {"x.lab.home.arpa A", "not local"},
		"home.arpa itself":                        {"home.arpa A", "home.arpa. 300 IN A 10.0.0.3"},
		"who says that home.arpa is not signed":   {"home.arpa DS", "not local"},
		"the rest of home.arpa":                   {"y.home.arpa A", "NXDOMAIN of home.arpa."},
		"a record of localhost":                   {"localhost TXT", `localhost. 300 IN TXT "mine"`},
		"its other types are then gone":           {"localhost A", "NODATA of localhost."},
		"names below localhost still lead home":   {"y.localhost A", "y.localhost. 3600 IN A 127.0.0.1"},
		"one of them with a record":               {"x.localhost A", "x.localhost. 300 IN A 10.0.0.2"},
		"a loopback address beside a named one":   {"1.0.0.127.in-addr.arpa PTR", "1.0.0.127.in-addr.arpa. 3600 IN PTR localhost."},
		"a loopback address without a name":       {"6.0.0.127.in-addr.arpa PTR", "NXDOMAIN of 127.in-addr.arpa."},
		"how this resolver can be asked securely": {"_dns.resolver.arpa SVCB", `_dns.resolver.arpa. 300 IN SVCB 1 dns.lan. alpn="dot"`},
	} {
		t.Run(name, func(t *testing.T) { expect(t, z, q) })
	}
	z, _ = local.New(records("x.localhost A 10.0.0.2"))
	expect(t, z, question{"localhost A", "localhost. 3600 IN A 127.0.0.1"}) // a name below it does not take its address
}
