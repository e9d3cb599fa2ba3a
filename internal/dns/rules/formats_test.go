package rules_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/rules"
)

func TestListFormats(t *testing.T) {
	long := strings.Repeat("x", 100<<10)
	for _, c := range []struct {
		name, text       string
		entries, ignored int
		blocked, passed  []string
	}{
		{"a hosts file", "# hosts\n127.0.0.1 localhost\n::1 ip6-localhost ip6-loopback\nfe80::1%lo0 localhost\nff02::1 ip6-allnodes\n255.255.255.255 broadcasthost\n0.0.0.0 0.0.0.0\n0.0.0.0 a.example b.example # two\n::\tc.example\n", 3, 0, []string{"a.example", "b.example", "c.example"}, []string{"localhost"}},
		{"a hosts line with a name that is none keeps the others", "0.0.0.0 a.example b..example router c.example\n", 2, 1, []string{"a.example", "c.example"}, []string{"router"}},
		{"plain domains with comments", "a.example\n! adblock comment\n; other\n// other\n[Adblock Plus]\n## heading\n####\n#\n  b.example   # why\n\n.c.example\n", 3, 0, []string{"a.example", "x.b.example", "c.example"}, nil},
		{"CRLF and a byte order mark", "\ufeffa.example\r\nb.example\r\n", 2, 0, []string{"a.example", "b.example"}, nil},
		{"no newline at the end", "a.example\nb.example", 2, 0, []string{"b.example"}, nil},
		{"a long line costs only itself", "a.example\n" + long + "\nb.example\n", 2, 1, []string{"a.example", "b.example"}, nil},
		{"a long line at the end costs only itself", "a.example\n" + long, 1, 1, []string{"a.example"}, nil},
		{"a long line in front costs only itself", long + "\na.example\n", 1, 1, []string{"a.example"}, nil},
		{"what is no rule is counted", "a.example\nnot a rule\nexa mple.com##.banner\nhttp://y.example/\nin valid\n-\n.\na..b\n", 1, 7, []string{"a.example"}, []string{"y.example", "example.com"}},
		{"cosmetic rules are counted", "example.com##.banner\n##.ad\nexample.com#@#.ad\n#@#.ad\nexample.com#?#div\nexample.com#$#body\nexample.com#%#//scriptlet()\na.example\n", 1, 7, []string{"a.example"}, []string{"example.com"}},
		{"rules for browsers are counted", "||x.example/path^\n||x.example^$third-party\n||x.example^$important,script\n||x.example^$~third-party\n/banner/ads.js\n-ads.\n&ad=\n||a.example^\n", 1, 7, []string{"a.example"}, []string{"x.example"}},
		{"a part of a name is none", "ads.example^\nads.example|\n|ads.example\n||ads.\n", 0, 4, nil, []string{"ads.example", "myads.example"}},
		{"a word without a dot blocks no top-level domain", "com\nlocalhost\n0.0.0.0 router\n", 0, 2, nil, []string{"www.com"}},
		{"a top-level domain by its own syntax", "||zip^\n*.mov\n", 2, 0, []string{"a.zip", "b.mov", "zip"}, []string{"mov"}},
		{"adblock rules that end in several ways", "||a.example^\n||b.example^|\n||c.example|\n||d.example\n", 4, 0, []string{"a.example", "x.b.example", "c.example", "x.d.example"}, []string{"d.example.com"}},
		{"one name alone", "|a.example^\n|b.example|\n|c.example^|\n", 3, 0, []string{"a.example", "b.example", "c.example"}, []string{"x.a.example", "x.b.example"}},
		{"what is below alone", "*.a.example\n||*.b.example^\n", 2, 0, []string{"x.a.example", "x.y.b.example"}, []string{"a.example", "b.example", "ya.example"}},
		{"wildcards inside", "||ads*.a.example^\nstat*.b.example\n||*track.c.example^\n||d.example.*^\n||exam*quux^\n", 5, 0, []string{"ads7.a.example", "x.ads.y.a.example", "stats.b.example", "x.my-track.c.example", "d.example.com", "exam-quux"}, []string{"a.example", "bads.a.example", "stats.b.example.com", "exam.quuxx"}},
		{"a wildcard with too little else is none", "||a*b^\n||*^\n*\n||*.*^\n", 0, 4, nil, []string{"ab", "a.example"}},
		{"a hosts line that maps to a real address is none of ours", "192.168.1.5 nas.example\n", 0, 1, nil, []string{"nas.example"}},
		{"repeated names count once, however they are written", "a.example\nA.EXAMPLE\n0.0.0.0 a.example.\n||a.example^\n", 1, 0, []string{"a.example"}, nil},
		{"bytes that are no text", "\xff\xfe\x00\x01.example\na.example\n", 1, 1, []string{"a.example"}, nil},
		{"IDN in both forms", "bücher.example\nxn--mnchen-3ya.example\n||例え.テスト^\n0.0.0.0 straße.example\n", 4, 0, []string{"xn--bcher-kva.example", "xn--mnchen-3ya.example", "x.xn--r8jz45g.xn--zckzah", "xn--strae-oqa.example"}, nil},
		{"names with an underscore", "_ads._tcp.a.example\n", 1, 0, []string{"_ads._tcp.a.example"}, nil},
		{"exceptions", "||a.example^\n||c.example^\n@@||b.a.example^|\n@@c.example\n@@|x.c.example^\n", 5, 0, []string{"a.example"}, []string{"b.a.example", "c.example", "y.c.example"}},
		{"an exception of a name that only looks alike", "||a.example^\n@@||ds.a.example^\n", 2, 0, []string{"ads.a.example"}, []string{"ds.a.example", "x.ds.a.example"}},
		{"expressions", "/^a[ds]+\\.example$/\n/(/\n/[0-9]{3}tr a#ck/ # note\n@@/^assd\\./\n/b\\.x$/\n", 4, 1, []string{"ads.example", "b.x"}, []string{"assd.example", "xads.example"}},
		{"an expression in capitals matches all the same", "/^TRACK[A-Z]+\\./\n", 1, 0, []string{"tracker.example"}, nil},
		{"an expression that would fill the memory is none", "/((x{900}){900})/\n/(a{1000}b{1000}c{1000})/\na.example\n", 1, 2, []string{"a.example"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := readList(t, "list", c.text)
			if l.Entries != c.entries || l.Ignored != c.ignored {
				t.Errorf("got %d entries %d ignored, want %d and %d", l.Entries, l.Ignored, c.entries, c.ignored)
			}
			var b rules.Builder
			b.Add(l)
			set := b.Build()
			for _, name := range c.blocked {
				if !set.Match(name, dns.TypeA).Blocked {
					t.Errorf("%s: got passed, want blocked", name)
				}
			}
			for _, name := range c.passed {
				if d := set.Match(name, dns.TypeA); d.Blocked {
					t.Errorf("%s: got %s, want passed", name, describe(d))
				}
			}
		})
	}
}

// ask is a name and a type with the decision that is wanted, "name/TYPE want".
type ask struct{ query, want string }

func TestModifiers(t *testing.T) {
	for _, c := range []struct {
		name  string
		lists []string
		asks  []ask
	}{
		{"a rule for a type leaves the others alone", []string{"||a.example^$dnstype=AAAA\n"}, []ask{
			{"a.example/AAAA", "list first: ||a.example^$dnstype=AAAA"}, {"a.example/A", "no_rule"}, {"b.example/AAAA", "no_rule"},
		}},
		{"types that are excepted", []string{"||a.example^$dnstype=~a|~CNAME\n"}, []ask{
			{"a.example/A", "no_rule"}, {"x.a.example/AAAA", "list first: ||a.example^$dnstype=~A|~CNAME"},
		}},
		{"beside types that are named, those that are excepted mean nothing", []string{"||a.example^$dnstype=~A|HTTPS|TYPE65\n"}, []ask{
			{"a.example/HTTPS", "list first: ||a.example^$dnstype=HTTPS"}, {"a.example/AAAA", "no_rule"},
		}},
		{"a type that does not exist makes no rule", []string{"||a.example^$dnstype=NOPE\n||b.example^$dnstype=\n||c.example^$dnstype\n||d.example^$dnstype=A|\n"}, []ask{
			{"a.example/A", "no_rule"}, {"b.example/A", "no_rule"}, {"c.example/A", "no_rule"}, {"d.example/A", "no_rule"},
		}},
		{"an expression for a type", []string{`/^a\./$dnstype=HTTPS`}, []ask{
			{"a.example/HTTPS", `list first: /^a\./$dnstype=HTTPS`}, {"a.example/A", "no_rule"},
		}},
		{"all names, for a type", []string{"||*^$dnstype=HTTPS\n$dnstype=ANY,denyallow=a.example\n"}, []ask{
			{"x.example/HTTPS", "list first: *$dnstype=HTTPS"},
			{"./HTTPS", "list first: *$dnstype=HTTPS"},
			{"x.example/A", "no_rule"},
			{"b.example/ANY", "list first: *$dnstype=ANY,denyallow=a.example"},
			{"x.a.example/ANY", "no_rule"},
		}},
		{"names that are left out", []string{"||a.example^$denyallow=ok.a.example|Fine.a.example\n*$denyallow=example|net\n"}, []ask{
			{"a.example/A", "list first: ||a.example^$denyallow=fine.a.example|ok.a.example"},
			{"x.a.example/A", "list first: ||a.example^$denyallow=fine.a.example|ok.a.example"},
			{"ok.a.example/A", "no_rule"},
			{"x.fine.a.example/A", "no_rule"},
			{"book.a.example/A", "list first: ||a.example^$denyallow=fine.a.example|ok.a.example"},
			{"www.com/A", "list first: *$denyallow=example|net"},
			{"www.net/A", "no_rule"},
		}},
		{"of expressions the first is the reason, wherever in the name they match", []string{"/aaa/\n", "/bbb/\n@@/ccc/\n||ccc*a.example^$important\n"}, []ask{
			{"bbb.aaa.bbb/A", "list first: /aaa/"}, {"bbb.ccc/A", "exception second: @@/ccc/"}, {"ccc.a.example/A", "list second: ||ccc*a.example^$important"},
		}},
		{"important", []string{"||a.example^$important\n||b.example^$important\n@@||b.example^$important\n||c.example^\n", "@@||a.example^\n@@||c.example^\n@@||x.b.example^\n"}, []ask{
			{"a.example/A", "list first: ||a.example^$important"},
			{"b.example/A", "exception first: @@||b.example^$important"},
			{"c.example/A", "exception second: @@||c.example^"},
			{"x.b.example/A", "exception first: @@||b.example^$important"},
		}},
		{"an important rule about a parent beats an exception", []string{"||example^$important\n@@||a.example^\n@@/^a\\./\n"}, []ask{
			{"a.example/A", "list first: ||example^$important"},
		}},
		{"badfilter disables what is written alike, in all lists", []string{
			"||a.example^\n||b.example^\n@@||c.example^\n||c.example^\n/^d\\./\n/^e\\./\nads*.f.example\n||g.example^$dnstype=AAAA|A\n|h.example^\n",
			"||a.example^$badfilter\n||b.example^$important,badfilter\n@@||c.example^$badfilter\n/^d\\./$badfilter\n||ads*.f.example^$badfilter\n||g.example^$badfilter,dnstype=A|AAAA\n||h.example^$badfilter\n",
		}, []ask{
			{"a.example/A", "no_rule"},
			{"b.example/A", "list first: ||b.example^"},
			{"c.example/A", "list first: ||c.example^"},
			{"d.other/A", "no_rule"},
			{"e.other/A", `list first: /^e\./`},
			{"ads.f.example/A", "no_rule"},
			{"g.example/A", "no_rule"},
			{"h.example/A", "list first: |h.example^"},
		}},
		{"badfilter disables a plain domain, too", []string{"0.0.0.0 a.example\n*.b.example\n", "||a.example^$badfilter\n||*.b.example^$badfilter\n"}, []ask{
			{"a.example/A", "no_rule"}, {"x.b.example/A", "no_rule"},
		}},
		{"rewriting to a code", []string{"||a.example^$dnsrewrite=NXDOMAIN\n||b.example^$dnsrewrite=REFUSED;;\n||c.example^$dnsrewrite=NOERROR\n||d.example^$dnsrewrite=SERVFAIL\n"}, []ask{
			{"a.example/A", "rewrite first: ||a.example^$dnsrewrite=NXDOMAIN = NXDOMAIN []"},
			{"b.example/A", "rewrite first: ||b.example^$dnsrewrite=REFUSED = REFUSED []"},
			{"x.c.example/A", "rewrite first: ||c.example^$dnsrewrite=NOERROR = NOERROR []"},
			{"d.example/A", "rewrite first: ||d.example^$dnsrewrite=SERVFAIL = SERVFAIL []"},
		}},
		{"rewriting to addresses adds up", []string{"||a.example^$dnsrewrite=192.0.2.1\n||a.example^$dnsrewrite=NOERROR;AAAA;2001:db8::1\n", "||a.example^$dnsrewrite=NOERROR;A;192.0.2.2\n"}, []ask{
			{"a.example/A", "rewrite first: ||a.example^$dnsrewrite=NOERROR;A;192.0.2.1 = NOERROR [192.0.2.1 2001:db8::1 192.0.2.2]"},
		}},
		{"a name beats addresses, a code beats both", []string{"||a.example^$dnsrewrite=192.0.2.1\n||a.example^$dnsrewrite=Other.Example.\n", "||x.a.example^$dnsrewrite=NOERROR\n"}, []ask{
			{"a.example/A", "rewrite first: ||a.example^$dnsrewrite=NOERROR;CNAME;other.example = NOERROR other.example[]"},
			{"x.a.example/A", "rewrite second: ||x.a.example^$dnsrewrite=NOERROR = NOERROR []"},
		}},
		{"rewriting beats exceptions and important rules", []string{"||a.example^$dnsrewrite=192.0.2.1\n@@||a.example^\n||a.example^$important\n"}, []ask{
			{"a.example/A", "rewrite first: ||a.example^$dnsrewrite=NOERROR;A;192.0.2.1 = NOERROR [192.0.2.1]"},
		}},
		{"an exception takes all rewriting back, or one value", []string{"||a.example^$dnsrewrite=192.0.2.1\n||a.example^$dnsrewrite=192.0.2.2\n||b.example^$dnsrewrite=192.0.2.1\n||b.example^\n", "@@||a.example^$dnsrewrite=192.0.2.1\n@@||b.example^$dnsrewrite\n"}, []ask{
			{"a.example/A", "rewrite first: ||a.example^$dnsrewrite=NOERROR;A;192.0.2.2 = NOERROR [192.0.2.2]"}, {"b.example/A", "list first: ||b.example^"},
		}},
		{"important rewriting is taken back by an important exception alone", []string{"||a.example^$dnsrewrite=192.0.2.1,important\n||b.example^$important,dnsrewrite=192.0.2.1\n@@||a.example^$dnsrewrite\n@@||b.example^$dnsrewrite,important\n"}, []ask{
			{"a.example/A", "rewrite first: ||a.example^$important,dnsrewrite=NOERROR;A;192.0.2.1 = NOERROR [192.0.2.1]"}, {"b.example/A", "no_rule"},
		}},
		{"rewriting one type", []string{"||a.example^$dnstype=AAAA,dnsrewrite=NOERROR\n/^b\\./$dnsrewrite=192.0.2.1\n"}, []ask{
			{"a.example/AAAA", "rewrite first: ||a.example^$dnstype=AAAA,dnsrewrite=NOERROR = NOERROR []"},
			{"a.example/A", "no_rule"},
			{"b.b.b.example/A", `rewrite first: /^b\./$dnsrewrite=NOERROR;A;192.0.2.1 = NOERROR [192.0.2.1]`},
		}},
		{"a rewrite that is not understood makes no rule", []string{strings.Join([]string{
			"||a.example^$dnsrewrite", "||a.example^$dnsrewrite=", "||a.example^$dnsrewrite=NOTIMP", "||a.example^$dnsrewrite=NXDOMAIN;A;192.0.2.1", "||a.example^$dnsrewrite=NOERROR;A;2001:db8::1",
			"||a.example^$dnsrewrite=NOERROR;MX;10 x", "||a.example^$dnsrewrite=NOERROR;TXT;x", "||a.example^$dnsrewrite=1.2.3.400", "||a.example^$dnsrewrite=fe80::1%eth0", "||*^$dnsrewrite=192.0.2.1",
			"||a.example^$dnsrewrite=NOERROR;A;a.example", "||192.0.2.1^$dnsrewrite=192.0.2.2",
		}, "\n")}, []ask{{"a.example/A", "no_rule"}}},
		{"modifiers that are not known, twice or empty make no rule", []string{"||a.example^$client=127.0.0.1\n||a.example^$\n||a.example^$important,\n||a.example^$important,important\n||a.example^$ctag=x\n||a.example^$important=1\n||a.example^$denyallow=\n||a.example^$denyallow=a b\n"}, []ask{
			{"a.example/A", "no_rule"},
		}},
		{"a plain domain with a modifier", []string{"a.example$important\n@@a.example\n"}, []ask{{"x.a.example/A", "list first: ||a.example^$important"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			set := build(t, c.lists...)
			for _, a := range c.asks {
				name, kind, _ := strings.Cut(a.query, "/")
				if got := describe(set.Match(name, dns.StringToType[kind])); got != a.want {
					t.Errorf("%s: got %s, want %s", a.query, got, a.want)
				}
				if got := describe(set.MatchWire(wire(t, name), dns.StringToType[kind])); got != a.want {
					t.Errorf("%s as wire: got %s, want %s", a.query, got, a.want)
				}
			}
		})
	}
}

func TestRulesReadAsTheyAreWritten(t *testing.T) {
	for _, rule := range []string{
		"a.example", "*.a.example", "||a.example^", "||*.a.example^", "|a.example^", "192.0.2.1", "||2001:db8::1^", `/^a\.example$/`, `@@/^a\.example$/`,
		"ads*.a.example", "||ads*.a.example^", "@@||a.example^$important,dnstype=A|AAAA,denyallow=x.a.example,dnsrewrite=NOERROR;CNAME;b.example",
		"@@||a.example^$dnsrewrite", "*$denyallow=com|net", "||a.example^$dnstype=~TYPE65000",
	} {
		l := readList(t, "list", rule+"\n")
		if l.Entries != 1 || l.Ignored != 0 {
			t.Errorf("%s: got %d entries %d ignored, want it read", rule, l.Entries, l.Ignored)
			continue
		}
		if got := rules.Rules(l); !slices.Equal(got, []string{rule}) {
			t.Errorf("got %s, want %s", got, rule)
		}
	}
}

func TestAListIsBounded(t *testing.T) {
	lines := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format+"\n", i)
		}
		return b.String()
	}
	for _, c := range []struct {
		name, text       string
		entries, ignored int
	}{
		{"expressions", lines(1200, "/track%d/"), 1000, 200},
		{"expressions that nothing filters", lines(100, "/[0-9]{%d}$/"), 64, 36},
		{"wildcards", lines(10_100, "||ads*.track%d.example^"), 10_000, 100},
		{"rules about one name", lines(100, "||a.example^$denyallow=x%d.a.example"), 64, 36},
		{"limits of one rule", "||a.example^$denyallow=" + strings.Repeat("a", 60) + strings.Repeat("|"+strings.Repeat("a.", 120)+"a", 200) + "\n", 1, 0},
		{"limits that are too long", "||a.example^$denyallow=x" + strings.TrimSuffix(lines(4000, "|aaaaaaa%d"), "\n"), 0, 1},
	} {
		text := c.text
		if strings.HasPrefix(c.name, "limits that") {
			text = strings.ReplaceAll(text, "\n", "")
		}
		l := readList(t, "list", text)
		if l.Entries != c.entries || l.Ignored != c.ignored {
			t.Errorf("%s: got %d entries %d ignored, want %d and %d", c.name, l.Entries, l.Ignored, c.entries, c.ignored)
		}
	}
}
