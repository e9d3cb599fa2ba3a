package rules

import (
	"fmt"
	"strings"

	"dnsfleet/internal/dns/rules/pattern"
	"dnsfleet/internal/dns/rules/question"
	"dnsfleet/internal/dns/rules/syntax"
	"dnsfleet/internal/fleet"
)

// Builder collects what a Set is compiled from. The zero Builder is empty.
type Builder struct {
	allow, deny           *compiler // nil when there are none
	allowCount, denyCount int
	lists                 []*List
}

// Allow adds an allow pattern of the policy; one that cannot be read is fleet.ErrInvalid and left out.
func (b *Builder) Allow(text string) error { return addPolicy(&b.allow, &b.allowCount, text) }

// Deny adds a deny pattern of the policy; one that cannot be read is fleet.ErrInvalid and left out.
func (b *Builder) Deny(text string) error { return addPolicy(&b.deny, &b.denyCount, text) }

func addPolicy(c **compiler, count *int, text string) error {
	if *c == nil {
		*c = newCompiler("")
	}
	if err := readPolicy(text, (*c).add); err != nil {
		return err
	}
	*count++
	return nil
}

// Check says why a policy's allow or deny pattern cannot be used, as fleet.ErrInvalid; nil when it can.
func Check(text string) error {
	return readPolicy(text, func(*syntax.Rule) bool { return true })
}

// readPolicy reads a pattern of the policy and hands it to take.
func readPolicy(text string, take func(*syntax.Rule) bool) error {
	parser := syntax.Parser{Policy: true}
	var reason error
	taken := 0
	verdict := parser.Line([]byte(text), func(r *syntax.Rule) bool {
		taken++
		switch {
		case strings.ContainsAny(strings.TrimSpace(text), " \t\r\n") && r.Scope != syntax.Expression:
			return false
		case r.Exception || r.BadFilter || r.IsRewrite:
			reason = fmt.Errorf("%w: %q: @@, $badfilter and $dnsrewrite have a meaning in lists only", fleet.ErrInvalid, text)
			return false
		case r.Scope == syntax.Glob || r.Scope == syntax.Expression:
			if _, err := compile(r); err != nil {
				reason = fmt.Errorf("%w: %q: %w", fleet.ErrInvalid, text, err)
				return false
			}
		}
		if !take(r) {
			reason = fmt.Errorf("%w: %q: too many patterns", fleet.ErrInvalid, text)
			return false
		}
		return true
	})
	switch {
	case reason != nil:
		return reason
	case verdict != syntax.Understood || taken != 1:
		return fmt.Errorf("%w: %q is not a domain, *.domain, ||domain^ or /expression/", fleet.ErrInvalid, text)
	}
	return nil
}

// Add adds a list. Where two lists have a rule, the one added first is named as the reason.
func (b *Builder) Add(l *List) { b.lists = append(b.lists, l) }

// Build compiles. The Builder may be used on for other lists; Sets share nothing with it that changes.
func (b *Builder) Build() *Set {
	s := &Set{allowCount: b.allowCount, denyCount: b.denyCount, top: classNone}
	bad := map[string]bool{}
	entries := 0
	for _, l := range b.lists {
		entries += l.Entries
		for key := range l.bad {
			bad[key] = true
		}
	}
	policy := []struct {
		c    *compiler
		kind sourceKind
	}{{b.allow, fromAllow}, {b.deny, fromDeny}}
	for _, p := range policy {
		if p.c != nil {
			entries += p.c.entries
		}
	}
	s.table = newTable(entries, 0.5)
	for _, p := range policy {
		if p.c != nil {
			s.add(p.c.list, p.kind, nil)
		}
	}
	for _, l := range b.lists {
		s.add(l, fromList, bad)
	}
	patterns := make([]*pattern.Pattern, len(s.patterns))
	for i, p := range s.patterns {
		patterns[i] = p.pattern
	}
	s.index = pattern.NewIndex(patterns)
	return s
}

// add takes the rules of a list but those that are disabled.
func (s *Set) add(l *List, kind sourceKind, bad map[string]bool) {
	s.sources = append(s.sources, source{l.Name, kind})
	from := int32(len(s.sources) - 1)
	base := uint64(len(s.arena.chunks))
	s.arena.chunks = append(s.arena.chunks, l.arena.chunks...)
	for range l.arena.chunks {
		s.owner = append(s.owner, from)
	}
	var scratch []byte
	l.arena.each(func(ref uint64, entry []byte) {
		if len(bad) > 0 {
			scratch = append(scratch[:0], entry...)
			if bad[string(canonical(scratch))] {
				return
			}
		}
		ref += base << chunkBits
		others := s.table.add(&s.arena, ref, func(other uint64) bool {
			return s.sources[s.owner[other>>chunkBits-1]].kind == kind && sameRule(entry, s.arena.entry(other))
		}, maxRules)
		if others >= 0 {
			s.count(kind, entry[0])
			s.depths |= 1 << min(depth(subject(entry)), 63)
		}
	})
	for _, p := range l.patterns {
		if len(bad) > 0 && bad[p.key(p.pattern.Text(), p.pattern.IsExpression())] {
			continue
		}
		s.patterns = append(s.patterns, p)
		s.patternOwner = append(s.patternOwner, from)
		s.count(kind, p.header)
	}
}

// count keeps what is known of all rules.
func (s *Set) count(kind sourceKind, header byte) {
	c := classOf(kind, header)
	s.top = min(s.top, c)
	if c == classBlock || c == classImportantBlock {
		s.blocked++
	}
}

// depth is how many labels a subject has.
func depth(subject []byte) int {
	n := 0
	for at := 0; subject[at] != 0 && subject[at] < question.AddressMark; at += 1 + int(subject[at]) {
		n++
	}
	return n
}
