package rules_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

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

func TestMatch(t *testing.T) {
	var b rules.Builder
	for _, p := range []string{"good.ads.example", "*.cdn.example", `/^ok[0-9]+\./`, "Allowed.Example."} {
		if err := b.Allow(p); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{"denied.example", "cdn.example", "*.below.example", `/track(er)?\./`, "||adblock.example^", "allowed.example", "bücher.example"} {
		if err := b.Deny(p); err != nil {
			t.Fatal(err)
		}
	}
	b.Add(readList(t, "first", "0.0.0.0 ads.example\n||excepted.example^\nshared.example\n*.kids.example\n"))
	b.Add(readList(t, "second", "@@||fine.excepted.example^\nshared.example\nkids.example\ndenied.example\n/^ad[0-9]+\\./\n"))
	set := b.Build()

	for _, c := range []struct {
		name, query string
		want        rules.Decision
	}{
		{"a name in no rule", "www.example", rules.Decision{Kind: rules.NoRule}},
		{"the root", ".", rules.Decision{Kind: rules.NoRule}},
		{"a listed name", "ads.example.", rules.Decision{Blocked: true, Rule: "ads.example", List: "first", Kind: rules.Listed}},
		{"a name below a listed one", "a.b.ads.example", rules.Decision{Blocked: true, Rule: "ads.example", List: "first", Kind: rules.Listed}},
		{"a name that only ends like a listed one", "bads.example", rules.Decision{Kind: rules.NoRule}},
		{"a label that holds a dot is not a parent", `x\.ads.example`, rules.Decision{Kind: rules.NoRule}},
		{"a label that ends in a backslash is one", `x\\.ads.example`, rules.Decision{Blocked: true, Rule: "ads.example", List: "first", Kind: rules.Listed}},
		{"allow beats a list", "x.good.ads.example", rules.Decision{Rule: "good.ads.example", Kind: rules.Allow}},
		{"allow beats deny", "allowed.example", rules.Decision{Rule: "allowed.example", Kind: rules.Allow}},
		{"an allow expression", "ok12.ads.example", rules.Decision{Rule: `/^ok[0-9]+\./`, Kind: rules.Allow}},
		{"allow of what is below leaves the name to deny", "cdn.example", rules.Decision{Blocked: true, Rule: "cdn.example", Kind: rules.Deny}},
		{"allow of what is below", "x.cdn.example", rules.Decision{Rule: "*.cdn.example", Kind: rules.Allow}},
		{"deny beats a list's reason", "denied.example", rules.Decision{Blocked: true, Rule: "denied.example", Kind: rules.Deny}},
		{"deny of what is below leaves the name", "below.example", rules.Decision{Kind: rules.NoRule}},
		{"deny of what is below", "a.b.below.example", rules.Decision{Blocked: true, Rule: "*.below.example", Kind: rules.Deny}},
		{"a deny expression", "my.tracker.example", rules.Decision{Blocked: true, Rule: `/track(er)?\./`, Kind: rules.Deny}},
		{"an adblock pattern", "x.adblock.example", rules.Decision{Blocked: true, Rule: "adblock.example", Kind: rules.Deny}},
		{"a name beyond ASCII, as it travels", "www.xn--bcher-kva.example", rules.Decision{Blocked: true, Rule: "xn--bcher-kva.example", Kind: rules.Deny}},
		{"the first list is the reason", "shared.example", rules.Decision{Blocked: true, Rule: "shared.example", List: "first", Kind: rules.Listed}},
		{"an exception of a list beats a list", "x.fine.excepted.example", rules.Decision{Rule: "fine.excepted.example", List: "second", Kind: rules.Exception}},
		{"beside the exception it is blocked", "excepted.example", rules.Decision{Blocked: true, Rule: "excepted.example", List: "first", Kind: rules.Listed}},
		{"a list with the name completes one with what is below", "kids.example", rules.Decision{Blocked: true, Rule: "kids.example", List: "second", Kind: rules.Listed}},
		{"an expression of a list", "ad7.elsewhere.example", rules.Decision{Blocked: true, Rule: `/^ad[0-9]+\./`, List: "second", Kind: rules.Listed}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := set.Match(c.query); got != c.want {
				t.Errorf("match %s: got %+v, want %+v", c.query, got, c.want)
			}
		})
	}
	if set.Allowed() != 4 || set.Denied() != 7 || set.Blocked() != 6 {
		t.Errorf("sizes: got %d allow %d deny %d blocked, want 4, 7, 6", set.Allowed(), set.Denied(), set.Blocked())
	}
}

func TestListFormats(t *testing.T) {
	long := strings.Repeat("x", 100<<10)
	for _, c := range []struct {
		name, text       string
		entries, ignored int
		blocked, passed  []string
	}{
		{"a hosts file", "# hosts\n127.0.0.1 localhost\n::1 ip6-localhost ip6-loopback\n0.0.0.0 0.0.0.0\n0.0.0.0 a.example b.example # two\n::\tc.example\n", 3, 0, []string{"a.example", "b.example", "c.example"}, []string{"localhost"}},
		{"plain domains with comments", "a.example\n! adblock comment\n; other\n// other\n[Adblock Plus]\n  b.example   # why\n\n.c.example\n", 3, 0, []string{"a.example", "x.b.example", "c.example"}, nil},
		{"CRLF and a byte order mark", "\ufeffa.example\r\nb.example\r\n", 2, 0, []string{"a.example", "b.example"}, nil},
		{"no newline at the end", "a.example\nb.example", 2, 0, []string{"b.example"}, nil},
		{"a long line costs only itself", "a.example\n" + long + "\nb.example\n", 2, 1, []string{"a.example", "b.example"}, nil},
		{"a long line at the end costs only itself", "a.example\n" + long, 1, 1, []string{"a.example"}, nil},
		{"what is no rule is counted", "a.example\nnot a rule\nexa mple.com##.banner\nexample.com##.banner\n||x.example^$third-party\nhttp://y.example/\nin valid\n-\n.\na..b\n", 1, 9, []string{"a.example"}, []string{"x.example", "y.example", "example.com"}},
		{"a word without a dot blocks no top-level domain", "com\nlocalhost\n0.0.0.0 router\n", 0, 2, nil, []string{"www.com"}},
		{"a top-level domain by its own syntax", "||zip^\n*.mov\n", 2, 0, []string{"a.zip", "b.mov"}, nil},
		{"a hosts line that maps to a real address is none of ours", "192.168.1.5 nas.example\n", 0, 1, nil, []string{"nas.example"}},
		{"addresses are no names", "1.2.3.4\n0.0.0.0 5.6.7.8\n", 0, 2, nil, nil},
		{"repeated names count once", "a.example\nA.EXAMPLE\n0.0.0.0 a.example.\n", 1, 0, []string{"a.example"}, nil},
		{"bytes that are no text", "\xff\xfe\x00\x01.example\na.example\n", 1, 1, []string{"a.example"}, nil},
		{"IDN in both forms", "bücher.example\nxn--mnchen-3ya.example\n", 2, 0, []string{"xn--bcher-kva.example", "xn--mnchen-3ya.example"}, nil},
		{"exceptions", "||a.example^\n@@||b.a.example^|\n@@c.example\n", 2, 1, []string{"a.example"}, []string{"b.a.example"}},
		{"an expression that does not compile", "/(/\n/^a\\./\n", 1, 1, []string{"a.example"}, nil},
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
				if !set.Match(name).Blocked {
					t.Errorf("%s: got passed, want blocked", name)
				}
			}
			for _, name := range c.passed {
				if d := set.Match(name); d.Blocked {
					t.Errorf("%s: got %+v, want passed", name, d)
				}
			}
		})
	}
}

func TestPatternsThatCannotBeReadAreInvalid(t *testing.T) {
	for _, text := range []string{"", " ", "a b", "/(/", "/", "//", "*", "*.", "@@||x.example^", "||x.example", "x.example^", "a..b", strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 130) + "example", "/" + strings.Repeat("a", 2000) + "/"} {
		if err := rules.Check(text); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%.20q: got %v, want fleet.ErrInvalid", text, err)
		}
	}
}

// largeList is a hosts file of n names.
func largeList(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "0.0.0.0 ads-%d.tracker%d.example\n", i, i%1000)
	}
	return text.String()
}

func TestALargeListStaysSmall(t *testing.T) {
	const names = 200_000
	text := largeList(names)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var b rules.Builder
	b.Add(readList(t, "large", text))
	set := b.Build()
	runtime.GC()
	runtime.ReadMemStats(&after)
	if got := int64(after.HeapAlloc) - int64(before.HeapAlloc); got > 24*names {
		t.Errorf("heap of %d names: got %d bytes, want at most 24 a name", names, got)
	}
	if set.Blocked() != names || !set.Match("ads-77.tracker77.example").Blocked {
		t.Errorf("got %d names, want %d", set.Blocked(), names)
	}
	runtime.KeepAlive(b)
}

// Whatever a list holds, reading it ends without an error, counts every line at most once, and each plain name that it
// took is blocked.
func FuzzReadList(f *testing.F) {
	f.Add("0.0.0.0 a.example b.example\n||c.example^\n@@||d.example^\n*.e.example\n/^x/\n# comment\n", "a.example")
	f.Add("\ufeffbücher.example\r\n", "xn--bcher-kva.example")
	f.Add("\xff\xfe", ".")
	f.Fuzz(func(t *testing.T, text, name string) {
		l, err := rules.ReadList("list", strings.NewReader(text))
		if err != nil {
			t.Fatalf("got %v, want no error", err)
		}
		if lines := strings.Count(text, "\n") + 1; l.Ignored > lines || l.Lines > lines {
			t.Fatalf("got %d ignored and %d lines of %d", l.Ignored, l.Lines, lines)
		}
		var b rules.Builder
		b.Add(l)
		set := b.Build()
		d := set.Match(strings.ToLower(name))
		if d.Blocked != (d.Kind == rules.Listed) || d.Kind != rules.NoRule && d.List != "list" {
			t.Fatalf("match %q: got %+v, want a decision of the list or none", name, d)
		}
		if rules.Check(name) == nil && !strings.HasPrefix(name, "/") {
			var one rules.Builder
			one.Add(readList(t, "one", "||plain.example^\n"))
			if one.Deny(name) != nil {
				t.Fatalf("deny %q: got an error, Check had none", name)
			}
			if one.Build().Denied() != 1 {
				t.Fatalf("deny %q: got no rule", name)
			}
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	var builder rules.Builder
	builder.Add(readList(b, "large", largeList(200_000)))
	if err := builder.Allow("good.example"); err != nil {
		b.Fatal(err)
	}
	set := builder.Build()
	for _, c := range []struct{ name, query string }{
		{"blocked", "eu.ads-77.tracker77.example."}, {"passed", "www.some.site.example."},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				set.Match(c.query)
			}
		})
	}
}

func BenchmarkReadList(b *testing.B) {
	text := largeList(200_000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		readList(b, "large", text)
	}
}
