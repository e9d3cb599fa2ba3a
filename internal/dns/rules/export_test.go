package rules

import (
	"dnsfleet/internal/dns/rules/pattern"
	"dnsfleet/internal/dns/rules/question"
)

// Rules writes the rules of a list, in the order in which they were read; those with patterns come last.
func Rules(l *List) []string {
	var b Builder
	b.Add(l)
	set := b.Build()
	var texts []string
	set.arena.each(func(ref uint64, _ []byte) { texts = append(texts, set.rule(ref)) })
	for i := range set.patterns {
		texts = append(texts, set.rule(isPattern|uint64(i)))
	}
	return texts
}

// Collide is the set as it would be if the name had the hash of the first rule.
func Collide(s *Set, name string) *Set {
	var q question.Question
	if !q.ReadText(name) {
		panic("no name: " + name)
	}
	forged := *s
	forged.table.slots = make([]uint64, len(s.table.slots))
	h := hash(q.Buf[:q.Size])
	forged.table.slots[forged.table.first(h)] = tag(h) | 1<<chunkBits
	return &forged
}

// WithoutIndex is the set with an index that filters nothing.
func WithoutIndex(s *Set) *Set {
	slow := *s
	plain := make([]*pattern.Pattern, len(s.patterns))
	for i, p := range s.patterns {
		plain[i] = p.pattern.Unfiltered()
	}
	slow.index = pattern.NewIndex(plain)
	return &slow
}
