package rules_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/rules"
	"dnsfleet/internal/fleet"
)

func readList(t testing.TB, name, text string) *rules.List {
	t.Helper()
	l, err := rules.ReadList(name, strings.NewReader(text))
	if err != nil {
		t.Fatalf("read list: %v", err)
	}
	return l
}

// build makes a set of lists, named first, second and so on.
func build(t testing.TB, texts ...string) *rules.Set {
	t.Helper()
	var b rules.Builder
	for i, text := range texts {
		b.Add(readList(t, []string{"first", "second", "third"}[i], text))
	}
	return b.Build()
}

// wire is a name as it travels.
func wire(t testing.TB, name string) []byte {
	t.Helper()
	buf := make([]byte, 256)
	n, err := dns.PackDomainName(dns.Fqdn(name), buf, 0, nil, false)
	if err != nil {
		t.Fatalf("pack %q: %v", name, err)
	}
	return buf[:n]
}

// describe is a decision in one line: "kind list: rule = rewrite".
func describe(d rules.Decision) string {
	text := string(d.Kind)
	if d.List != "" {
		text += " " + d.List
	}
	if d.Kind != rules.NoRule {
		text += ": " + d.Rule()
	}
	if w := d.Rewrite; w != nil {
		text += " = " + dns.RcodeToString[w.RCode] + " " + w.CNAME + fmt.Sprint(w.Addrs)
	}
	if d.Blocked != (d.Kind == rules.Deny || d.Kind == rules.Listed) {
		text += fmt.Sprintf(" (blocked %v)", d.Blocked)
	}
	return text
}

func TestMatch(t *testing.T) {
	var b rules.Builder
	for _, p := range []string{"good.ads.example", "*.cdn.example", `/^ok[0-9]+\./`, "Allowed.Example."} {
		if err := b.Allow(p); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{
		"denied.example", "cdn.example", "*.below.example", `/track(er)?\./`, "||adblock.example^", "allowed.example",
		"bücher.example", "||six.example^$dnstype=AAAA", "|only.example^", "pixel*.deny.example", "corp",
	} {
		if err := b.Deny(p); err != nil {
			t.Fatal(err)
		}
	}
	b.Add(readList(t, "first", "0.0.0.0 ads.example\n||excepted.example^\nshared.example\n*.kids.example\n||raised.example^$important\n"))
	b.Add(readList(t, "second", "@@||fine.excepted.example^\nshared.example\nkids.example\ndenied.example\n/^ad[0-9]+\\./\n@@||raised.example^\n"))
	set := b.Build()

	for _, c := range []struct{ name, query, want string }{
		{"a name in no rule", "www.example", "no_rule"},
		{"the root", ".", "no_rule"},
		{"the root, written as nothing", "", "no_rule"},
		{"a listed name", "ads.example.", "list first: ads.example"},
		{"a listed name in capitals", "ADS.Example", "list first: ads.example"},
		{"a name below a listed one", "a.b.ads.example", "list first: ads.example"},
		{"a name that only ends like a listed one", "notads.example", "no_rule"},
		{"a name that only begins like a listed one", "ads.example.com", "no_rule"},
		{"a label that holds a dot is not a parent", `x\.ads.example`, "no_rule"},
		{"a label that ends in a backslash is one", `x\\.ads.example`, "list first: ads.example"},
		{"a letter that is written as a number", `\065ds.example`, "list first: ads.example"},
		{"allow beats a list", "x.good.ads.example", "allow: good.ads.example"},
		{"allow beats deny", "allowed.example", "allow: allowed.example"},
		{"an allow expression", "ok12.ads.example", `allow: /^ok[0-9]+\./`},
		{"allow of what is below leaves the name to deny", "cdn.example", "deny: cdn.example"},
		{"allow of what is below", "x.cdn.example", "allow: *.cdn.example"},
		{"deny beats a list's reason", "denied.example", "deny: denied.example"},
		{"deny of what is below leaves the name", "below.example", "no_rule"},
		{"deny of what is below", "a.b.below.example", "deny: *.below.example"},
		{"a deny expression", "my.tracker.example", `deny: /track(er)?\./`},
		{"an adblock pattern", "x.adblock.example", "deny: ||adblock.example^"},
		{"deny of one name", "only.example", "deny: |only.example^"},
		{"deny of one name leaves what is below", "x.only.example", "no_rule"},
		{"deny of a type leaves the others", "six.example", "no_rule"},
		{"a wildcard inside a name", "eu.pixel7.deny.example", "deny: pixel*.deny.example"},
		{"a whole top-level domain", "host.corp", "deny: corp"},
		{"a name beyond ASCII, as it travels", "www.xn--bcher-kva.example", "deny: xn--bcher-kva.example"},
		{"a name beyond ASCII, as people write it", "www.BÜCHER.example", "deny: xn--bcher-kva.example"},
		{"the first list is the reason", "shared.example", "list first: shared.example"},
		{"an exception of a list beats a list", "x.fine.excepted.example", "exception second: @@||fine.excepted.example^"},
		{"beside the exception it is blocked", "excepted.example", "list first: ||excepted.example^"},
		{"important beats an exception", "raised.example", "list first: ||raised.example^$important"},
		{"a list with the name completes one with what is below", "kids.example", "list second: kids.example"},
		{"what is below is the first list's", "x.kids.example", "list first: *.kids.example"},
		{"an expression of a list", "ad7.elsewhere.example", `list second: /^ad[0-9]+\./`},
		{"no name at all", "a..b", "no_rule"},
		{"a label that is too long", strings.Repeat("a", 64) + ".ads.example", "no_rule"},
		{"a name that is too long", strings.Repeat("a.", 125) + "ads.example", "no_rule"},
		{"a backslash at the end", `ads.example\`, "no_rule"},
		{"a number that is no byte", `\999.ads.example`, "no_rule"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := describe(set.Match(c.query, dns.TypeA)); got != c.want {
				t.Errorf("match %s: got %s, want %s", c.query, got, c.want)
			}
		})
	}
	if got := describe(set.Match("six.example", dns.TypeAAAA)); got != "deny: ||six.example^$dnstype=AAAA" {
		t.Errorf("the type that is denied: got %s", got)
	}
	if set.Allowed() != 4 || set.Denied() != 11 || set.Blocked() != 8 {
		t.Errorf("sizes: got %d allow %d deny %d blocked, want 4, 11, 8", set.Allowed(), set.Denied(), set.Blocked())
	}
}

func TestPatternsThatCannotBeReadAreInvalid(t *testing.T) {
	for _, text := range []string{
		"", " ", "# note", "a b", "0.0.0.0 a.example", "/(/", "/", "//", "*", "*.", "||*^", "@@||x.example^", "@@x.example", "||ads.",
		"x.example^", "a..b", strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 130) + "example", "/" + strings.Repeat("a", 2000) + "/",
		"||x.example^$third-party", "||x.example^$badfilter", "||x.example^$dnsrewrite=192.0.2.1", "||x.example^$", "||x.example^$dnstype=NONE",
		"x.example\ny.example", "||a*b^", "127.0.0.1",
	} {
		var b rules.Builder
		for what, err := range map[string]error{"check": rules.Check(text), "allow": b.Allow(text), "deny": b.Deny(text)} {
			if !errors.Is(err, fleet.ErrInvalid) {
				t.Errorf("%s %.20q: got %v, want fleet.ErrInvalid", what, text, err)
			}
		}
		if set := b.Build(); set.Allowed() != 0 || set.Denied() != 0 {
			t.Errorf("%.20q: got %s, want no rule", text, set)
		}
	}
}

func TestPatternsWithoutEndAreRefusedAtTheBound(t *testing.T) {
	var b rules.Builder
	for i := range 1000 {
		if err := b.Deny(fmt.Sprintf("/track%d/", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Deny("/another/"); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("got %v, want fleet.ErrInvalid", err)
	}
	if got := describe(b.Build().Match("xtrack999x.example", dns.TypeA)); got != "deny: /track9/" {
		t.Errorf("got %s, want the first that matches", got)
	}
}

func TestAddressesInAnswers(t *testing.T) {
	var b rules.Builder
	if err := b.Allow("192.0.2.9"); err != nil {
		t.Fatal(err)
	}
	b.Add(readList(t, "list", "192.0.2.1\n||2001:db8::1^\n||192.0.2.2^$dnstype=HTTPS\n192.0.2.9\n192.0.2.8\n@@||192.0.2.8^\n0.0.0.0\n127.0.0.1\n::1\n0.0.0.0 192.0.2.7\n"))
	set := b.Build()
	for _, c := range []struct {
		name, addr string
		want       string
	}{
		{"a listed address", "192.0.2.1", "list list: 192.0.2.1"},
		{"the same in the form of IPv6", "::ffff:192.0.2.1", "list list: 192.0.2.1"},
		{"another address", "192.0.2.3", "no_rule"},
		{"an IPv6 address", "2001:db8::1", "list list: ||2001:db8::1^"},
		{"an address of another type alone", "192.0.2.2", "no_rule"},
		{"an address that the policy allows", "192.0.2.9", "allow: 192.0.2.9"},
		{"an exception", "192.0.2.8", "exception list: @@||192.0.2.8^"},
		{"no list blocks what stands for nothing", "0.0.0.0", "no_rule"},
		{"nor the machine itself", "::1", "no_rule"},
		{"an address is no name of a hosts line", "192.0.2.7", "no_rule"},
	} {
		if got := describe(set.MatchAddr(netip.MustParseAddr(c.addr), dns.TypeA)); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	if got := describe(set.Match("192.0.2.1", dns.TypeA)); got != "no_rule" {
		t.Errorf("the address as a name: got %s, want no_rule", got)
	}
	if got := describe(new(rules.Set).MatchAddr(netip.MustParseAddr("192.0.2.1"), dns.TypeA)); got != "no_rule" {
		t.Errorf("in the zero set: got %s, want no_rule", got)
	}
}

func TestMatchWireTakesOnlyWholeNames(t *testing.T) {
	set := build(t, "ads.example\n")
	for _, c := range []struct {
		name string
		wire string
		want string
	}{
		{"a name", "\x03ads\x07example\x00", "list first: ads.example"},
		{"a name in capitals", "\x03ADS\x07eXamplE\x00", "list first: ads.example"},
		{"what follows does not count", "\x03ads\x07example\x00\x00\x01\x00\x01", "list first: ads.example"},
		{"a name without an end", "\x03ads\x07example", "no_rule"},
		{"a name that is cut off", "\x03ads\x07exam", "no_rule"},
		{"a compressed name", "\x03ads\xc0\x0c", "no_rule"},
		{"nothing", "", "no_rule"},
		{"the root", "\x00", "no_rule"},
		{"a label that looks like an address", "\x44\xc0\x00\x02\x01", "no_rule"},
		{"255 bytes", strings.Repeat("\x01a", 121) + "\x03ads\x07example\x00", "list first: ads.example"},
		{"256 bytes", "\x02aa" + strings.Repeat("\x01a", 120) + "\x03ads\x07example\x00", "no_rule"},
		{"bytes that are no letters stay", "\x03\xc1ds\x07example\x00", "no_rule"},
		{"signs around the letters stay", "\x03@[`\x03ads\x07example\x00", "list first: ads.example"},
	} {
		if got := describe(set.MatchWire([]byte(c.wire), dns.TypeA)); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func TestTwoNamesWithOneHashAreNotTakenForOneAnother(t *testing.T) {
	set := rules.Collide(build(t, "ads.example\n"), "www.example")
	if got := describe(set.Match("www.example", dns.TypeA)); got != "no_rule" {
		t.Errorf("got %s, want no_rule", got)
	}
	if got := describe(rules.Collide(set, "ads.example").Match("ads.example", dns.TypeA)); got != "list first: ads.example" {
		t.Errorf("the name itself: got %s, want it blocked", got)
	}
}

func TestWhatAnAnswerHoldsIsInspected(t *testing.T) {
	set := build(t, "tracker.example\n192.0.2.1\n@@||good.example^\n||six.example^$dnstype=AAAA\n||canon.example^$dnstype=~CNAME\n||moved.example^$dnsrewrite=NXDOMAIN\n2001:db8::1\n@@||192.0.2.2^\n")
	addr := netip.MustParseAddr
	for _, c := range []struct {
		name    string
		aliases []string
		addrs   []netip.Addr
		want    string
	}{
		{"nothing", nil, nil, "no_rule"},
		{"nothing of note", []string{"cdn.example."}, []netip.Addr{addr("192.0.2.3")}, "no_rule"},
		{"an alias of a listed name", []string{"cdn.example.", "x.tracker.example."}, nil, "list first: tracker.example"},
		{"an alias that a rule lets pass ends the look", []string{"x.good.example.", "x.tracker.example."}, []netip.Addr{addr("192.0.2.1")}, "exception first: @@||good.example^"},
		{"a listed address", nil, []netip.Addr{addr("192.0.2.3"), addr("192.0.2.1")}, "list first: 192.0.2.1"},
		{"a listed IPv6 address", nil, []netip.Addr{addr("2001:db8::1")}, "list first: 2001:db8::1"},
		{"an address that a rule lets pass says nothing of the next", nil, []netip.Addr{addr("192.0.2.2"), addr("192.0.2.1")}, "list first: 192.0.2.1"},
		{"a rule for another type", []string{"six.example."}, nil, "no_rule"},
		{"a rule that leaves aliases out", []string{"canon.example."}, nil, "no_rule"},
		{"a rule that rewrites", []string{"moved.example."}, nil, "no_rule"},
	} {
		if got := describe(set.Inspect(c.aliases, c.addrs)); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

// A random set decides as a plain search through all its rules does.
func TestASetDecidesAsAPlainSearchDoes(t *testing.T) {
	type rule struct {
		text, name, scope, list string
		class                   int
	}
	labels := []string{"a", "b", "c", "ab", "example"}
	random := rand.New(rand.NewPCG(1, 2))
	name := func() string {
		parts := make([]string, 1+random.IntN(4))
		for i := range parts {
			parts[i] = labels[random.IntN(len(labels))]
		}
		return strings.Join(parts, ".")
	}
	for range 50 {
		var all []rule
		texts := make([]strings.Builder, 3)
		for list := range texts {
			for range random.IntN(60) {
				r := rule{name: name(), scope: []string{"tree", "below", "exact"}[random.IntN(3)], list: []string{"first", "second", "third"}[list]}
				r.text = map[string]string{"tree": "||%s^", "below": "||*.%s^", "exact": "|%s^"}[r.scope]
				r.text = fmt.Sprintf(r.text, r.name)
				r.class = random.IntN(4)
				r.text = []string{"@@" + r.text + "$important", r.text + "$important", "@@" + r.text, r.text}[r.class]
				all = append(all, r)
				texts[list].WriteString(r.text + "\n")
			}
		}
		set := build(t, texts[0].String(), texts[1].String(), texts[2].String())
		for range 200 {
			asked := name()
			want, best := "no_rule", 4
			for suffix, more := asked, true; more; _, suffix, more = strings.Cut(suffix, ".") {
				for _, r := range all {
					fits := r.scope == "tree" || (r.scope == "exact") == (suffix == asked)
					if r.name == suffix && fits && r.class < best {
						best, want = r.class, []string{"exception", "list"}[r.class%2]+" "+r.list+": "+r.text
					}
				}
			}
			if got := describe(set.Match(asked, dns.TypeA)); got != want {
				t.Fatalf("%s: got %s, want %s", asked, got, want)
			}
		}
	}
}
