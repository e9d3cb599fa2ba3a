package local_test

import (
	"fmt"
	"testing"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/local"
	"dnsfleet/internal/fleet"
)

func TestCoversIsFalseForWhatIsNoName(t *testing.T) {
	z, _ := local.New(records("nas.lan A 10.0.0.1\n*.local A 10.0.0.2"))
	for name, wire := range map[string][]byte{
		"nothing":                   nil,
		"the root":                  {0},
		"a name that is cut":        []byte("\x03nas\x03lan"),
		"a label that is cut":       []byte("\x05loc"),
		"a label without its bytes": []byte("\x03nas\x03lan\x00")[:5],
		"a pointer":                 []byte("\x03nas\xc0\x0c"),
		"bytes after the name":      []byte("\x03nas\x03lan\x00\x00"),
		"a special name with more":  []byte("\x01x\x05local\x00x"),
		"a zero inside a label":     []byte("\x04na\x00s\x03lan\x00"),
	} {
		t.Run(name, func(t *testing.T) {
			if z.Covers(wire) {
				t.Errorf("%q: got covered, want not", wire)
			}
		})
	}
}

func TestCoversDoesNotAllocate(t *testing.T) {
	z, _ := local.New(records("nas.lan A 10.0.0.1\n*.apps.lan A 10.0.0.2"))
	for _, name := range []string{"www.example.com", "nas.lan", "x.apps.lan", "x.local", "1.0.0.10.in-addr.arpa"} {
		wire := wireOf(t, name)
		if n := testing.AllocsPerRun(100, func() { z.Covers(wire) }); n != 0 {
			t.Errorf("%s: got %v allocations, want none", name, n)
		}
	}
}

// Covers is true for a name in wire form exactly if Lookup finds something for the same name in text, whatever the type.
// Of DS it may find nothing, which is for the zone above to say.
func FuzzCovers(f *testing.F) {
	zones := []*local.Zone{new(local.Zone)}
	for _, z := range []struct {
		text    string
		domains []string
	}{
		{"nas.home.arpa A 10.0.0.1\na.b.c.home.arpa A 192.168.1.1\nwww.example.com CNAME x.y", nil},
		{"*.home.arpa A 10.0.0.1\nx.y.home.arpa A 10.0.0.2\n*.com CNAME nas.lan\na.b.com TXT x", []string{"z.home.arpa", "arpa", "b.local", "q.r.com"}},
		{"a A 10.0.0.1\n*.a A 10.0.0.1\nb.*.a A 10.0.0.1\nx.localhost A 127.0.0.3", []string{"localhost", "x.a"}},
	} {
		zone, _ := local.New(records(z.text), conditional(z.domains...)...)
		zones = append(zones, zone)
	}
	for _, name := range []string{"www.example.com", "x.home.arpa", "*.a", "b.c.home.arpa", "1.0.0.10.in-addr.arpa", "x.q.r.com", "x.resolver.arpa"} {
		for i := range zones {
			f.Add(uint8(i), wireOf(f, name), dns.TypeA)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, wire []byte, qtype uint16) {
		z := zones[int(which)%len(zones)]
		covers := z.Covers(wire)
		name, end, err := dns.UnpackDomainName(wire, 0)
		lower := false
		if err == nil && end == len(wire) && end <= 255 {
			repacked, packErr := wireOrNil(name)
			lower = packErr == nil && string(repacked) == string(wire)
		}
		if !lower { // no whole name, one with a pointer, or in capitals
			return
		}
		_, found := z.Lookup(name, qtype)
		if covers != found && (qtype != dns.TypeDS || found) {
			t.Errorf("%q type %d: covers is %v, found is %v", name, qtype, covers, found)
		}
	})
}

func wireOrNil(name string) ([]byte, error) {
	buf := make([]byte, 256)
	end, err := dns.PackDomainName(dns.CanonicalName(name), buf, 0, nil, false)
	if err != nil {
		return nil, err
	}
	return buf[:end], nil
}

func BenchmarkCovers(b *testing.B) {
	var many []fleet.PolicyRecord
	for i := range 1000 {
		many = append(many, fleet.PolicyRecord{Name: fmt.Sprintf("host%d.home.arpa", i), Type: "A", Value: fmt.Sprintf("10.0.%d.%d", i/250, i%250)})
	}
	few := records("nas.home.arpa A 192.168.1.10\ntv.home.arpa A 192.168.1.11\n*.apps.home.arpa A 192.168.1.12")
	for _, c := range []struct {
		name    string
		records []fleet.PolicyRecord
	}{{"none", nil}, {"few", few}, {"thousand", many}} {
		z, _ := local.New(c.records)
		names := [][]byte{
			wireOf(b, "www.example.com"), wireOf(b, "a1234.g.akamai.net"), wireOf(b, "clients4.google.com"), wireOf(b, "api.segment.io"),
			wireOf(b, "edge-mqtt.facebook.com"), wireOf(b, "safebrowsing.googleapis.com"), wireOf(b, "heise.de"), wireOf(b, "time.apple.com"),
		}
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if z.Covers(names[i%len(names)]) {
					b.Fatal("covered")
				}
			}
		})
	}
}
