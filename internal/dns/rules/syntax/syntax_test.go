package syntax_test

import (
	"bytes"
	"strings"
	"testing"

	"dnsfleet/internal/dns/rules/syntax"
)

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		name, line string
		want       syntax.Verdict
	}{
		{"nothing", "", syntax.Blank},
		{"white space", " \t\r", syntax.Blank},
		{"a comment", "# note", syntax.Comment},
		{"a heading", "### note ###", syntax.Comment},
		{"a comment of ad blockers", "!#if x", syntax.Comment},
		{"a header", "[Adblock Plus 2.0]", syntax.Comment},
		{"a cosmetic rule for all pages", "##.banner", syntax.Ignored},
		{"a cosmetic rule", "a.example##.banner", syntax.Ignored},
		{"the machine's own names", "127.0.0.1 localhost localhost.localdomain", syntax.Understood},
		{"the machine's own name alone", "localhost", syntax.Understood},
		{"a domain", "a.example", syntax.Understood},
		{"a path", "||a.example/x", syntax.Ignored},
		{"an expression", "/a b#c/", syntax.Understood},
		{"an expression with a comment", "/a/ # b", syntax.Understood},
		{"half an expression", "/a", syntax.Ignored},
		{"an expression with something behind it", "/a/b", syntax.Ignored},
	} {
		var p syntax.Parser
		if got := p.Line([]byte(c.line), func(*syntax.Rule) bool { return true }); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}

func TestARuleThatIsRefusedMakesTheLineIgnored(t *testing.T) {
	for _, line := range []string{"a.example", "0.0.0.0 a.example", "||a.example^", "/a/"} {
		var p syntax.Parser
		if got := p.Line([]byte(line), func(*syntax.Rule) bool { return false }); got != syntax.Ignored {
			t.Errorf("%s: got %d, want Ignored", line, got)
		}
	}
}

// Whatever a line holds, each rule of it is whole: a name is normalized, or there is an address or a pattern, and a rule
// about everything has limits.
func FuzzLine(f *testing.F) {
	for _, line := range []string{"0.0.0.0 a.example b.example", "||a.example^$important,dnstype=~A", "@@/x/$dnsrewrite", "*$denyallow=com", "|a.example|", "::1 x", "bücher.example", "a.b##.c", "||1.2.3.4^"} {
		f.Add(line, false)
		f.Add(line, true)
	}
	f.Fuzz(func(t *testing.T, line string, policy bool) {
		p := syntax.Parser{Policy: policy}
		p.Line([]byte(line), func(r *syntax.Rule) bool {
			switch r.Scope {
			case syntax.Address:
				if !r.Addr.IsValid() || r.Addr.Is4In6() || r.Addr.Zone() != "" || r.Addr.IsLoopback() || r.Addr.IsUnspecified() {
					t.Fatalf("%q: address %v", line, r.Addr)
				}
			case syntax.Glob, syntax.Expression:
				if r.Pattern == "" {
					t.Fatalf("%q: no pattern", line)
				}
			default:
				if len(r.Name) == 0 {
					if len(r.Types)+len(r.NotTypes)+len(r.DenyAllow) == 0 {
						t.Fatalf("%q: a rule about everything", line)
					}
					return true
				}
				again, ok := syntax.Normalize(bytes.Clone(r.Name))
				if !ok || !bytes.Equal(again, r.Name) {
					t.Fatalf("%q: name %q is not normalized", line, r.Name)
				}
			}
			if r.Rewrite != "" {
				if w, ok := syntax.ParseRewrite(r.Rewrite); !ok || w.String() != r.Rewrite {
					t.Fatalf("%q: rewrite %q reads as %q", line, r.Rewrite, w)
				}
			}
			if policy && strings.HasPrefix(strings.TrimSpace(line), "@@") != r.Exception {
				t.Fatalf("%q: exception %v", line, r.Exception)
			}
			return true
		})
	})
}
