package rules

import (
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/rules/question"
	"dnsfleet/internal/dns/rules/syntax"
)

const maxRewrites = 8 // that add up for one question

// parts are the header and the limits of the rule of a ref, and how it is written without both.
func (s *Set) parts(ref uint64) (header byte, limits []byte, text string) {
	if ref&isPattern != 0 {
		rule := s.patterns[ref&^isPattern]
		text = rule.pattern.String()
		if !rule.pattern.IsExpression() && rule.header&flagAdblock != 0 {
			text = "||" + text + "^"
		}
		return rule.header, rule.limits, text
	}
	entry := s.arena.entry(ref)
	header = entry[0]
	end := subjectEnd(entry)
	if header&flagLimits != 0 {
		limits = entry[end : end+limitsSize(entry[end:])]
	}
	about := entry[1:end]
	if about[0]&question.AddressMark != 0 {
		addr, _ := netip.AddrFromSlice(about[1:])
		text = addr.String()
	} else {
		text = question.NameText(about)
	}
	adblock := header&flagAdblock != 0
	switch scope := header & scopeMask; {
	case text == "":
		text = "*"
	case scope == scopeExact:
		text = "|" + text + "^"
	case scope == scopeBelow && adblock:
		text = "||*." + text + "^"
	case scope == scopeBelow:
		text = "*." + text
	case adblock:
		text = "||" + text + "^"
	}
	return header, limits, text
}

// rule writes a rule.
func (s *Set) rule(ref uint64) string {
	header, limits, text := s.parts(ref)
	if header&flagException != 0 {
		text = "@@" + text
	}
	if with := modifiers(header, limits); with != "" {
		text += "$" + with
	}
	return text
}

// rewrite adds up what rewriting rules say. ok is false when exceptions leave nothing of them.
func (s *Set) rewrite(refs []uint64) (d Decision, ok bool) {
	type rewriting struct {
		ref       uint64
		important bool
		value     string
	}
	var rules, exceptions []rewriting
	for _, ref := range refs {
		header, limits, _ := s.parts(ref)
		r := rewriting{ref: ref, important: header&flagImportant != 0}
		if header&flagLimits != 0 {
			r.value = rewriteOf(limits)
		}
		if header&flagException != 0 {
			exceptions = append(exceptions, r)
		} else {
			rules = append(rules, r)
		}
	}
	rules = slices.DeleteFunc(rules, func(r rewriting) bool {
		return slices.ContainsFunc(exceptions, func(e rewriting) bool {
			return (e.value == "" || e.value == r.value) && (e.important || !r.important)
		})
	})
	if len(rules) == 0 {
		return Decision{}, false
	}
	sum, by := Rewrite{}, rules[0].ref
	for _, r := range rules {
		one, _ := syntax.ParseRewrite(r.value)
		switch {
		case one.CNAME == "" && len(one.Addrs) == 0: // a code beats all
			one.RCode = max(one.RCode, dns.RcodeSuccess)
			return s.rewritten(one, r.ref), true
		case one.CNAME != "" && sum.CNAME == "":
			sum.CNAME, by = one.CNAME, r.ref
		default:
			sum.Addrs = append(sum.Addrs, one.Addrs...)
		}
	}
	if sum.CNAME != "" {
		sum.Addrs = nil
	}
	return s.rewritten(sum, by), true
}

func (s *Set) rewritten(w Rewrite, ref uint64) Decision {
	return Decision{Kind: Rewritten, List: s.source(ref).name, Rewrite: &w, set: s, ref: ref}
}
