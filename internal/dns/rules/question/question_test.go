package question_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/rules/question"
)

// A name as it travels and the same name as text make the same question, in lower case; what is no name makes none.
func FuzzReadWireAndReadTextAgree(f *testing.F) {
	for _, name := range []string{"", ".", "Ads.Example.", `x\.y.Z`, `\000\255\\.[@\`, strings.Repeat("a.", 127), strings.Repeat("a", 63) + ".b", "a..b", `\25`, "bücher.example"} {
		buf := make([]byte, 300)
		if n, err := dns.PackDomainName(dns.Fqdn(name), buf, 0, nil, false); err == nil {
			f.Add(buf[:n], name)
		}
		f.Add([]byte(name), name)
	}
	f.Fuzz(func(t *testing.T, wire []byte, text string) {
		var a, b question.Question
		if a.ReadWire(wire) {
			read, end, err := dns.UnpackDomainName(wire, 0)
			if err != nil || end != a.Size || dns.CountLabel(read) != a.Labels {
				t.Fatalf("%q: got %d bytes and %d labels, want %q of %d", wire, a.Size, a.Labels, read, end)
			}
			if want := asciiLower(wire[:end]); !bytes.Equal(a.Buf[:a.Size], want) {
				t.Fatalf("%q: got %q, want %q", wire, a.Buf[:a.Size], want)
			}
			if !b.ReadText(read) || b.Buf != a.Buf || b.Size != a.Size || b.Labels != a.Labels {
				t.Fatalf("%q: reads as %q, and as text as %q", wire, a.Buf[:a.Size], b.Buf[:b.Size])
			}
			if got := string(a.Text(nil)); !new(question.Question).ReadText(got) {
				t.Fatalf("%q: writes %q, which does not read", wire, got)
			}
		}
		var c, d question.Question
		if c.ReadText(text) && (!d.ReadWire(c.Buf[:c.Size]) || d.Buf != c.Buf || d.Labels != c.Labels) {
			t.Fatalf("%q: reads as %q, which is no name", text, c.Buf[:c.Size])
		}
	})
}

func asciiLower(b []byte) []byte {
	lower := bytes.Clone(b)
	for i, c := range lower {
		if 'A' <= c && c <= 'Z' {
			lower[i] = c + 'a' - 'A'
		}
	}
	return lower
}
