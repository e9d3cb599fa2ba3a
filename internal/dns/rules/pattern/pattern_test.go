package pattern_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"dnsfleet/internal/dns/rules/pattern"
)

func TestGlobs(t *testing.T) {
	for _, c := range []struct {
		glob            string
		matches, misses []string
	}{
		{"ads*.example", []string{"ads.example", "ads1.example", "x.ads1.example", "ads.x.example"}, []string{"bads.example", "ads.example.com", "ads1.examples"}},
		{"*track.example", []string{"track.example", "mytrack.example", "x.track.example"}, []string{"track.example.com"}},
		{"google.*", []string{"google.com", "www.google.co.uk", "google."}, []string{"google", "mygoogle.com"}},
		{"a*bcd*bcd", []string{"abcdbcd", "abcdxbcd"}, []string{"abcd", "abcbcd"}},
		{"ads.example", []string{"ads.example", "x.ads.example"}, []string{"bads.example", "ads.example.com", "ads.ads.examples"}},
		{"abc*cba", []string{"abccba"}, []string{"abcba"}},
	} {
		p, err := pattern.Glob(c.glob)
		if err != nil {
			t.Fatalf("%s: %v", c.glob, err)
		}
		for _, name := range c.matches {
			if !p.Match(name) {
				t.Errorf("%s: %s: got no match, want one", c.glob, name)
			}
		}
		for _, name := range c.misses {
			if p.Match(name) {
				t.Errorf("%s: %s: got a match, want none", c.glob, name)
			}
		}
	}
}

func TestWhichExpressionsAreFiltered(t *testing.T) {
	for expr, want := range map[string]bool{
		`^ads\.`: true, `track(er|ing)`: true, `(pixel|banner)s?`: true, `^(ad|tr)[0-9]+`: true, `(?:x.*)?abc`: true, `[0-9]+ab`: true, `(abc){2,3}`: true, `(abc)+`: true, `ſſſ`: true,
		`^[a-z]+$`: false, `(abc)?`: false, `(abc|)x`: false, `a.b.c`: false, `(abc){0,3}`: false, `(abc)*`: false, `abc|[0-9]`: false, ``: false,
	} {
		p, err := pattern.Expression(expr)
		if err != nil {
			t.Fatalf("%s: %v", expr, err)
		}
		if p.Filtered() != want {
			t.Errorf("%s: got filtered %v, want %v", expr, p.Filtered(), want)
		}
	}
}

func TestExpressionsThatCostTooMuchAreRefused(t *testing.T) {
	for _, expr := range []string{
		"(", `(?=x)`, `\1`, strings.Repeat("a", 1025), `(a{900}b{900}c{900})`, `((x{30}){30}){30}`, `(x{1000}){1000}`, `([a-z]{100}|[0-9]{100}){20}`,
	} {
		if p, err := pattern.Expression(expr); err == nil {
			t.Errorf("%.30s: got %s, want an error", expr, p)
		}
	}
}

func TestAnIndexNamesFewPatternsOfMany(t *testing.T) {
	var patterns []*pattern.Pattern
	for i := range 5000 {
		p, err := pattern.Glob(fmt.Sprintf("ads*.site%d.example", i))
		if err != nil {
			t.Fatal(err)
		}
		patterns = append(patterns, p)
	}
	x := pattern.NewIndex(patterns)
	tried := map[int]bool{}
	x.Scan([]byte("ads7.site4711.example"), func(i int) { tried[i] = true })
	if !tried[4711] || len(tried) > 500 {
		t.Errorf("got %d patterns, the right one %v; want it and few others", len(tried), tried[4711])
	}
	x.Scan([]byte("www.wikipedia.org"), func(i int) { t.Errorf("got pattern %d for a name without its text", i) })
}

// A glob matches what the expression matches that it stands for.
func FuzzGlob(f *testing.F) {
	f.Add("ads*.example", "x.ads1.example")
	f.Add("abc*cba", "abcba")
	f.Add("*a.b.c*", "a.b.c")
	f.Fuzz(func(t *testing.T, glob, name string) {
		p, err := pattern.Glob(glob)
		if err != nil || len(glob) > 200 {
			return
		}
		expr, err := regexp.Compile(`(?s)(?:^|\.)` + strings.ReplaceAll(regexp.QuoteMeta(glob), `\*`, `.*`) + `$`)
		if err != nil {
			return // no UTF-8
		}
		if got, want := p.Match(name), expr.MatchString(name); got != want {
			t.Fatalf("%q on %q: got %v, want %v", glob, name, got, want)
		}
	})
}

// An index names every pattern that matches.
func FuzzIndexMissesNothing(f *testing.F) {
	f.Add("^ad[0-9]+", "(track|pixel)er", "ad7.tracker.example")
	f.Add("(?i)ABC", "k|ss", "abc.k")
	f.Add("a(?:b|c)d.*(x|yz)", "[[:alpha:]]{3}x", "abd.yz")
	f.Fuzz(func(t *testing.T, one, two, name string) {
		var patterns []*pattern.Pattern
		for _, text := range []string{one, two} {
			if p, err := pattern.Expression(text); err == nil {
				patterns = append(patterns, p)
			}
			if p, err := pattern.Glob(text); err == nil {
				patterns = append(patterns, p)
			}
		}
		name = strings.ToLower(name)
		if strings.ContainsFunc(name, func(r rune) bool { return r >= 0x80 }) {
			return // names are escaped before they come here
		}
		var tried []int
		pattern.NewIndex(patterns).Scan([]byte(name), func(i int) { tried = append(tried, i) })
		for i, p := range patterns {
			if p.Match(name) && !slices.Contains(tried, i) {
				t.Fatalf("%s matches %q: got no try", p, name)
			}
		}
	})
}
