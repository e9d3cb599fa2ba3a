package privacy_test

import (
	"bytes"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/privacy"
)

func filter(t testing.TB, mode privacy.Mode, key byte) *privacy.Filter {
	t.Helper()
	f, err := privacy.New(mode, bytes.Repeat([]byte{key}, privacy.KeyBytes))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func applied(f *privacy.Filter, addr, name string) fleet.QueryEvent {
	e := fleet.QueryEvent{ClientName: name, QName: "example."}
	if addr != "" {
		e.Client = netip.MustParseAddr(addr)
	}
	f.Apply(&e)
	return e
}

func TestWhatIsKeptOfAClient(t *testing.T) {
	for _, c := range []struct {
		what       string
		mode       privacy.Mode
		addr, name string
		wantAddr   string
		wantName   string
	}{
		{"all", privacy.Full, "192.168.1.77", "tv", "192.168.1.77", "tv"},
		{"the IPv4 network", privacy.Truncate, "192.168.1.77", "tv", "192.168.1.0", ""},
		{"the IPv6 network", privacy.Truncate, "2001:db8:1:2:3::4", "tv", "2001:db8:1::", ""},
		{"the IPv4 network of a mapped address", privacy.Truncate, "::ffff:192.168.1.77", "", "192.168.1.0", ""},
		{"the network of an address with a zone", privacy.Truncate, "fe80::1%eth0", "", "fe80::", ""},
		{"nothing of nobody", privacy.Truncate, "", "", "invalid IP", ""},
		{"nothing", privacy.Anonymous, "192.168.1.77", "tv", "invalid IP", ""},
		{"no pseudonym of nobody", privacy.Hash, "", "", "invalid IP", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			got := applied(filter(t, c.mode, 1), c.addr, c.name)
			if got.Client.String() != c.wantAddr || got.ClientName != c.wantName || got.QName != "example." {
				t.Errorf("got %s %q, want %s %q", got.Client, got.ClientName, c.wantAddr, c.wantName)
			}
		})
	}
}

func TestAPseudonymStandsForOneClient(t *testing.T) {
	f := filter(t, privacy.Hash, 1)
	seen := map[string]string{}
	for _, addr := range []string{"192.168.1.77", "192.168.1.78", "2001:db8::1"} {
		got := applied(f, addr, "")
		if got.Client.IsValid() || !strings.HasPrefix(got.ClientName, "client-") || len(got.ClientName) != len("client-")+16 {
			t.Fatalf("got %+v, want a pseudonym and no address", got)
		}
		if other, taken := seen[got.ClientName]; taken {
			t.Errorf("got one pseudonym for %s and %s", addr, other)
		}
		seen[got.ClientName] = addr
		if again := applied(filter(t, privacy.Hash, 1), addr, "").ClientName; again != got.ClientName {
			t.Errorf("got %s after a restart, want %s", again, got.ClientName)
		}
		if other := applied(filter(t, privacy.Hash, 2), addr, "").ClientName; other == got.ClientName {
			t.Errorf("got %s with another key too", other)
		}
	}
	if a, b := applied(f, "192.168.1.77", ""), applied(f, "::ffff:192.168.1.77", ""); a.ClientName != b.ClientName {
		t.Errorf("got %s and %s for one address in two forms", a.ClientName, b.ClientName)
	}
	if a, b := applied(f, "192.168.1.77", "tv"), applied(f, "2001:db8::1", "tv"); a.ClientName != b.ClientName || strings.Contains(a.ClientName, "tv") {
		t.Errorf("got %s and %s for a name with two addresses", a.ClientName, b.ClientName)
	}
}

func TestManyClientsHaveTheirOwnPseudonyms(t *testing.T) {
	f := filter(t, privacy.Hash, 1)
	of := map[string]netip.Addr{}
	for round := range 2 { // more than are remembered, so that some are made again
		addr := netip.MustParseAddr("10.0.0.0")
		for range 10_000 {
			addr = addr.Next()
			name := applied(f, addr.String(), "").ClientName
			if other, taken := of[name]; taken != (round == 1) || (taken && other != addr) {
				t.Fatalf("round %d: got %s for %s, which stands for %s", round, name, addr, other)
			}
			of[name] = addr
		}
	}
}

func TestPseudonymsStayTheSameUnderLoad(t *testing.T) {
	f := filter(t, privacy.Hash, 1)
	want := applied(f, "10.0.0.1", "").ClientName
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			addr := netip.AddrFrom4([4]byte{10, 1, byte(g), 0})
			for range 10_000 {
				addr = addr.Next()
				applied(f, addr.String(), "")
				if got := applied(f, "10.0.0.1", "").ClientName; got != want {
					t.Errorf("got %s, want %s", got, want)
					return
				}
			}
		})
	}
	all.Wait()
}

func TestAFilterThatWouldKeepTooMuchIsNotMade(t *testing.T) {
	if _, err := privacy.New("ful", nil); err == nil {
		t.Error("got a filter of an unknown mode")
	}
	if _, err := privacy.New(privacy.Hash, []byte("short")); err == nil {
		t.Error("got a filter with a short key")
	}
}

func BenchmarkHash(b *testing.B) {
	f := filter(b, privacy.Hash, 1)
	e := fleet.QueryEvent{Client: netip.MustParseAddr("192.168.1.77")}
	b.ReportAllocs()
	for b.Loop() {
		one := e
		f.Apply(&one)
	}
}

// BenchmarkHashOnAllCores is what a pseudonym costs while all cores ask for some.
func BenchmarkHashOnAllCores(b *testing.B) {
	f := filter(b, privacy.Hash, 1)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		addr := netip.MustParseAddr("192.168.1.1")
		clients := make([]netip.Addr, 20)
		for i := range clients {
			addr = addr.Next()
			clients[i] = addr
		}
		for i := 0; pb.Next(); i++ {
			e := fleet.QueryEvent{Client: clients[i%len(clients)]}
			f.Apply(&e)
		}
	})
}
