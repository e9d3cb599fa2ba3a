package rules_test

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/rules"
)

// seeds are lists of every form.
var seeds = []string{
	"0.0.0.0 a.example b.example\n127.0.0.1 localhost\n::1 x\n192.0.2.1 c.example\n",
	"a.example\n*.b.example\n.c.example # note\ncom\n\ufeffbücher.example\r\n",
	"||a.example^\n@@||b.a.example^|\n|c.example^\n||*.d.example^\n||ads*.e.example^\n||192.0.2.1^\n",
	"||a.example^$important\n||a.example^$badfilter\n*$denyallow=com|net\n||b.example^$dnstype=~A|~CNAME\n",
	"||a.example^$dnsrewrite=NXDOMAIN\n||b.example^$dnsrewrite=192.0.2.1\n||c.example^$dnsrewrite=NOERROR;CNAME;d.example\n@@||b.example^$dnsrewrite\n",
	"/^ad[0-9]+\\./\n/(track|pixel)er/$dnstype=A\n@@/^good/$important\n/x*/\n",
	"example.com##.banner\n##.ad\n! note\n[Adblock Plus]\n\xff\xfe\n",
}

// Whatever a list holds, reading it ends without an error and counts every line at most once; each rule reads as the one
// that it was, and every decision follows from a rule.
func FuzzReadList(f *testing.F) {
	for _, text := range seeds {
		f.Add(text, "x.a.example")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		l, err := rules.ReadList("list", strings.NewReader(text))
		if err != nil {
			t.Fatalf("got %v, want no error", err)
		}
		if lines := strings.Count(text, "\n") + 1; l.Ignored > l.Lines || l.Lines > lines {
			t.Fatalf("got %d ignored and %d lines of %d", l.Ignored, l.Lines, lines)
		}
		for _, rule := range rules.Rules(l) {
			again, err := rules.ReadList("again", strings.NewReader(rule))
			if err != nil || again.Entries != 1 {
				t.Fatalf("rule %q: got %d entries and %v, want to read it again", rule, again.Entries, err)
			}
			if got := rules.Rules(again)[0]; got != rule {
				t.Fatalf("rule %q: reads as %q the second time", rule, got)
			}
		}
		var b rules.Builder
		b.Add(l)
		set := b.Build()
		for _, qtype := range []uint16{dns.TypeA, dns.TypeHTTPS} {
			d := set.Match(name, qtype)
			if d.Blocked != (d.Kind == rules.Listed) || (d.Kind == rules.Rewritten) != (d.Rewrite != nil) {
				t.Fatalf("match %q: got %+v, which contradicts itself", name, d)
			}
			if found := d.Kind != rules.NoRule; found != (d.List == "list") || found != (d.Rule() != "") {
				t.Fatalf("match %q: got %s, want it to name rule and list", name, describe(d))
			}
			if slow := rules.WithoutIndex(set).Match(name, qtype); describe(slow) != describe(d) {
				t.Fatalf("match %q: got %s, and %s without index", name, describe(d), describe(slow))
			}
		}
		set.MatchAddr(netip.MustParseAddr("192.0.2.1"), dns.TypeA)
	})
}

// A name as it travels, in any case, and the same name as text have the same decision; so has the way around, for every
// text that is a name.
func FuzzMatchWireDecidesAsMatch(f *testing.F) {
	list := strings.Join(seeds, "")
	f.Add(list, []byte("\x01a\x07example\x00"))
	f.Add(list, []byte("\x02aD\x03com\x00"))
	f.Add("||a.example^\n/\\\\/\n", []byte("\x03.\\A\x01\x00\x01a\x07EXAMPLE\x00"))
	f.Add("*$dnstype=A", []byte("\x00"))
	f.Fuzz(func(t *testing.T, list string, name []byte) {
		set := build(t, list)
		d := describe(set.MatchWire(name, dns.TypeA))
		text, end, err := dns.UnpackDomainName(name, 0)
		if err != nil {
			if d != "no_rule" {
				t.Fatalf("%q is no name: got %s, want no_rule", name, d)
			}
			return
		}
		if compressed(name) {
			if d != "no_rule" {
				t.Fatalf("%q is compressed: got %s, want no_rule", name, d)
			}
			return
		}
		for _, form := range []string{text, strings.ToLower(text), strings.TrimSuffix(text, ".")} {
			if got := describe(set.Match(form, dns.TypeA)); got != d {
				t.Fatalf("%q: got %s as text, %s as wire", form, got, d)
			}
		}
		if got := describe(set.MatchWire(append([]byte(strings.ToUpper(string(name[:end]))), 0xff), dns.TypeA)); isASCII(name[:end]) && got != d {
			t.Fatalf("%q in capitals: got %s, want %s", name, got, d)
		}
	})
}

func isASCII(b []byte) bool { return !bytes.ContainsFunc(b, func(r rune) bool { return r >= 0x80 }) }

func compressed(name []byte) bool {
	for at := 0; name[at] != 0; at += 1 + int(name[at]) {
		if name[at] > 63 {
			return true
		}
	}
	return false
}

// A pattern that Check takes is taken by Allow and Deny, and decides about the name that it is about.
func FuzzPolicyPatterns(f *testing.F) {
	for _, text := range []string{"a.example", "*.a.example", "||a.example^", "|a.example^", "/^a/", "ads*.example", "192.0.2.1", "bücher.example", "@@||x^", "a b"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var b rules.Builder
		if checked, denied := rules.Check(text), b.Deny(text); (checked == nil) != (denied == nil) {
			t.Fatalf("%q: check %v, deny %v", text, checked, denied)
		}
		if set := b.Build(); set.Denied() == 1 && !strings.ContainsAny(text, "/*$|@:^") && strings.Trim(text, "0123456789. \t\r\n\v\f") != "" {
			if d := set.Match(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(text), ".")), dns.TypeA); d.Kind != rules.Deny {
				t.Fatalf("%q: got %s for its own name", text, describe(d))
			}
		}
	})
}
