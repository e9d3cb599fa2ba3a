package rebinding_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/rebinding"
	"dnsfleet/internal/fleet"
)

func TestPrivateIsWhatIsInsideANetwork(t *testing.T) {
	for _, c := range []struct {
		name string
		addr string
		want bool
	}{
		{"this network", "0.0.0.1", true},
		{"the end of this network", "0.255.255.255", true},
		{"exactly 0.0.0.0, with which upstreams block", "0.0.0.0", false},
		{"10/8", "10.0.0.1", true},
		{"before 10/8", "9.255.255.255", false},
		{"after 10/8", "11.0.0.0", false},
		{"a provider's shared address", "100.64.0.1", true},
		{"the last of them", "100.127.255.255", true},
		{"before them", "100.63.255.255", false},
		{"after them", "100.128.0.0", false},
		{"loopback", "127.0.0.1", true},
		{"the end of loopback", "127.255.255.254", true},
		{"link-local, where clouds keep secrets", "169.254.169.254", true},
		{"172.16/12", "172.16.0.1", true},
		{"the end of 172.16/12", "172.31.255.255", true},
		{"before 172.16/12", "172.15.255.255", false},
		{"after 172.16/12", "172.32.0.0", false},
		{"192.168/16", "192.168.1.1", true},
		{"after 192.168/16", "192.169.0.1", false},
		{"documentation", "192.0.2.1", false},
		{"more documentation", "198.51.100.1", false},
		{"the third documentation", "203.0.113.1", false},
		{"documentation of IPv6", "2001:db8::1", false},
		{"a public address", "9.9.9.9", false},
		{"exactly ::, with which upstreams block", "::", false},
		{"loopback of IPv6", "::1", true},
		{"a unique local address", "fd12:3456::1", true},
		{"the other half of them", "fc00::1", true},
		{"after them", "fe00::1", false},
		{"link-local of IPv6", "fe80::1", true},
		{"link-local with a zone", "fe80::1%eth0", true},
		{"site-local, as it was", "fec0::1", true},
		{"multicast is no rebinding", "ff02::fb", false},
		{"a public address of IPv6", "2620:fe::fe", false},
		{"a mapped private address", "::ffff:192.168.1.1", true},
		{"a mapped public address", "::ffff:9.9.9.9", false},
		{"a mapped 0.0.0.0", "::ffff:0.0.0.0", false},
		{"a translated private address", "64:ff9b::192.168.1.1", true},
		{"a translated public address", "64:ff9b::9.9.9.9", false},
		{"a translated documentation address", "64:ff9b::192.0.2.1", false},
		{"beside the translator's prefix", "64:ff9b:0:1::10.0.0.1", false},
		{"an IPv4-compatible private address", "::10.0.0.1", true},
		{"an IPv4-compatible public address", "::9.9.9.9", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := rebinding.Private(netip.MustParseAddr(c.addr)); got != c.want {
				t.Errorf("%s: got %v, want %v", c.addr, got, c.want)
			}
		})
	}
	if rebinding.Private(netip.Addr{}) {
		t.Error("no address at all: got private, want not")
	}
}

func wireOf(t testing.TB, name string) []byte {
	t.Helper()
	buf := make([]byte, 256)
	end, err := dns.PackDomainName(dns.CanonicalName(name), buf, 0, nil, false)
	if err != nil {
		t.Fatalf("pack %q: %v", name, err)
	}
	return buf[:end]
}

func TestSomeNamesMayLeadInside(t *testing.T) {
	section := fleet.PolicyRebinding{Allow: []string{"Plex.direct.", "my.example.com"}}
	g, unusable := rebinding.New(section, fleet.PolicyConditional{Domain: "Corp.example"}, fleet.PolicyConditional{Domain: "1.168.192.in-addr.arpa"})
	if len(unusable) != 0 {
		t.Fatalf("unusable: got %v, want none", unusable)
	}
	for _, c := range []struct {
		name string
		ask  string
		want bool
	}{
		{"a public name", "www.example.com", false},
		{"a name below an allowed domain", "192-168-1-2.abc.plex.direct", true},
		{"an allowed domain itself", "plex.direct", true},
		{"one that only ends like it", "notplex.direct", false},
		{"its parent", "direct.example", false},
		{"a deeper allowed domain", "x.my.example.com", true},
		{"its neighbour", "x.your.example.com", false},
		{"a domain that is forwarded", "pc.corp.example", true},
		{"a reverse zone that is forwarded", "5.1.168.192.in-addr.arpa", true},
		{"a name of one label", "nas", true},
		{"home.arpa", "nas.home.arpa", true},
		{"internal", "nas.internal", true},
		{"lan", "a.b.lan", true},
		{"local", "printer.local", true},
		{"localdomain", "nas.localdomain", true},
		{"localhost", "x.localhost", true},
		{"home", "router.home", true},
		{"corp", "pc.corp", true},
		{"such a word that is not last", "lan.example.com", false},
		{"test, which may be any upstream's", "nas.test", false},
		{"the root", ".", false},
		{"a label that holds a dot and the domain", `x\.plex\.direct.com`, false},
		{"a label that looks like the domain in wire form", `x\004plex\006direct.com`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := g.Exempt(wireOf(t, c.ask)); got != c.want {
				t.Errorf("%s: got %v, want %v", c.ask, got, c.want)
			}
		})
	}
}

func TestWithoutProtectionEveryNameMayLeadInside(t *testing.T) {
	off := false
	g, unusable := rebinding.New(fleet.PolicyRebinding{Protect: &off, Allow: []string{"ok.example", "not..ok"}})
	if g != nil || !slices.Equal(unusable, []int{1}) {
		t.Errorf("got %v and unusable %v, want no guard and [1]", g, unusable)
	}
	if !g.Exempt(wireOf(t, "www.example.com")) {
		t.Error("no guard: got a name that may not, want that it may")
	}
}

func TestAPolicyThatSaysNothingProtects(t *testing.T) {
	g, _ := rebinding.New(fleet.Policy{}.Rebinding)
	if g.Exempt(wireOf(t, "www.example.com")) {
		t.Error("www.example.com: got that it may lead inside, want that it may not")
	}
}

func TestADomainThatCannotBeReadIsReported(t *testing.T) {
	g, unusable := rebinding.New(fleet.PolicyRebinding{Allow: []string{"", ".", "a..b", "good.example", strings.Repeat("x", 64)}})
	if want := []int{0, 1, 2, 4}; !slices.Equal(unusable, want) {
		t.Errorf("unusable: got %v, want %v", unusable, want)
	}
	if !g.Exempt(wireOf(t, "x.good.example")) || g.Exempt(wireOf(t, "x.example")) {
		t.Error("got that others count, want only the good one")
	}
}

// A name is exempt exactly if it has one label, or is one of the domains or ends in a dot and one of them.
func FuzzExempt(f *testing.F) {
	g, _ := rebinding.New(fleet.PolicyRebinding{Allow: []string{"plex.direct"}})
	domains := []string{"plex.direct.", "home.arpa.", "internal.", "lan.", "local.", "localdomain.", "localhost.", "home.", "corp.", "private.", "intranet."}
	f.Add([]byte("\x01x\x04plex\x06direct\x00"))
	f.Add([]byte("\x03nas\x00"))
	f.Add([]byte("\x03nas\xc0\x00"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		got := g.Exempt(wire)
		name, end, err := dns.UnpackDomainName(wire, 0)
		if err != nil || end != len(wire) || slices.Contains(wire, 0xC0) || name != dns.CanonicalName(name) {
			return
		}
		want := dns.CountLabel(name) == 1 || slices.ContainsFunc(domains, func(d string) bool { return dns.IsSubDomain(d, name) })
		if got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	})
}

func BenchmarkExempt(b *testing.B) {
	g, _ := rebinding.New(fleet.PolicyRebinding{Allow: []string{"plex.direct"}})
	name := wireOf(b, "www.example.com")
	b.ReportAllocs()
	for b.Loop() {
		if g.Exempt(name) {
			b.Fatal("exempt")
		}
	}
}

func BenchmarkPrivate(b *testing.B) {
	addr := netip.MustParseAddr("2620:fe::fe")
	for b.Loop() {
		if rebinding.Private(addr) {
			b.Fatal("private")
		}
	}
}
