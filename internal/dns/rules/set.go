// Package rules compiles the policy's allow and deny patterns and the block lists into one immutable match set.
//
// Precedence, the first that matches decides:
//  1. allow patterns of the policy
//  2. deny patterns of the policy
//  3. rewriting rules of lists ($dnsrewrite), but for those that an exception takes back (@@…$dnsrewrite)
//  4. exceptions of lists that are $important
//  5. blocking rules of lists that are $important
//  6. exceptions of lists (@@)
//  7. blocking rules of lists
//
// A rule for a name holds for everything below it as well. Of rules of one kind the one about the longest name is named
// as the reason, then the one of the list that was added first.
package rules

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/rules/pattern"
	"dnsfleet/internal/dns/rules/question"
	"dnsfleet/internal/dns/rules/syntax"
)

// Kind says what decided.
type Kind string

// The kinds.
const (
	NoRule    Kind = "no_rule"
	Allow     Kind = "allow"     // an allow pattern of the policy
	Deny      Kind = "deny"      // a deny pattern of the policy
	Exception Kind = "exception" // an exception of a list
	Listed    Kind = "list"      // a blocking rule of a list
	Rewritten Kind = "rewrite"   // a rewriting rule of a list
)

// Rewrite is what a rewriting rule answers.
type Rewrite = syntax.Rewrite

// Decision is what the rules say of a name.
type Decision struct {
	Blocked bool
	Kind    Kind
	List    string   // name of the list that the rule is from, "" for the policy's own patterns
	Rewrite *Rewrite // what to answer; nil unless Kind is Rewritten

	set *Set
	ref uint64
}

// Allowed reports whether a rule lets the name pass, so that what it is an alias of, and its addresses, need no look.
func (d Decision) Allowed() bool { return d.Kind == Allow || d.Kind == Exception }

// Rule is the rule in a form in which it may be written, "" for NoRule. Unlike the decision it takes memory.
func (d Decision) Rule() string {
	if d.set == nil {
		return ""
	}
	return d.set.rule(d.ref)
}

// Set is immutable and safe for concurrent use: a change builds a new one. The zero Set has no rules. It shares the
// lists' memory and adds twelve bytes for each rule.
type Set struct {
	table   table
	arena   arena
	owner   []int32 // of each chunk: index of its source
	sources []source
	depths  uint64 // how many labels the subjects have: a bit for each number, the last for all from 63 on
	top     class  // the strongest there is

	patterns     []patternRule
	patternOwner []int32
	index        *pattern.Index

	blocked, allowCount, denyCount int
}

type source struct {
	name string
	kind sourceKind
}

type sourceKind uint8

const (
	fromAllow sourceKind = iota
	fromDeny
	fromList
)

// class is the precedence of a rule, the strongest first.
type class uint8

const (
	classAllow class = iota
	classDeny
	classRewrite
	classImportantException
	classImportantBlock
	classException
	classBlock
	classNone
)

func classOf(from sourceKind, header byte) class {
	important := header&flagImportant != 0
	switch {
	case from == fromAllow:
		return classAllow
	case from == fromDeny:
		return classDeny
	case header&flagRewrite != 0:
		return classRewrite
	case header&flagException != 0 && important:
		return classImportantException
	case header&flagException != 0:
		return classException
	case important:
		return classImportantBlock
	}
	return classBlock
}

// Blocked is how many distinct rules of lists block.
func (s *Set) Blocked() int { return s.blocked }

// Allowed is how many allow patterns of the policy are in force.
func (s *Set) Allowed() int { return s.allowCount }

// Denied is how many deny patterns of the policy are in force.
func (s *Set) Denied() int { return s.denyCount }

// String is for messages.
func (s *Set) String() string {
	return fmt.Sprintf("rules: %d block by lists, %d allow, %d deny", s.blocked, s.allowCount, s.denyCount)
}

// Match says what the rules decide for a name, as text of RFC 1035 with or without the final dot, and a query type. What
// is no name has no rule. Only rules that rewrite, and expressions, take memory.
func (s *Set) Match(name string, qtype uint16) Decision {
	q := question.Question{Type: qtype}
	if !q.ReadText(name) && !q.ReadForeign(name) {
		return Decision{Kind: NoRule}
	}
	return s.match(&q)
}

// MatchWire is Match for an uncompressed name as it travels, in any case; what follows it is not looked at. It decides as
// Match does for the same name.
func (s *Set) MatchWire(name []byte, qtype uint16) Decision {
	q := question.Question{Type: qtype}
	if !q.ReadWire(name) {
		return Decision{Kind: NoRule}
	}
	return s.match(&q)
}

// MatchAddr says what the rules decide for an address in an answer to a query of the type.
func (s *Set) MatchAddr(addr netip.Addr, qtype uint16) Decision {
	q := question.Question{Type: qtype}
	q.ReadAddress(addr)
	return s.match(&q)
}

// Inspect says what the rules decide for an answer by what is in it: the names that aliases lead to, as queries of type
// CNAME, and the addresses. The first name that a rule lets pass, or the first name or address that one blocks, decides;
// nothing is rewritten. It is meant for names that Match neither blocks nor lets pass.
func (s *Set) Inspect(aliases []string, addrs []netip.Addr) Decision {
	for _, name := range aliases {
		if d := s.Match(name, dns.TypeCNAME); d.Blocked || d.Allowed() {
			return d
		}
	}
	for _, addr := range addrs {
		qtype := dns.TypeAAAA
		if addr.Unmap().Is4() {
			qtype = dns.TypeA
		}
		if d := s.MatchAddr(addr, qtype); d.Blocked {
			return d
		}
	}
	return Decision{Kind: NoRule}
}

// found is the strongest rule so far, and the rewriting ones.
type found struct {
	class    class
	ref      uint64
	rewrites [maxRewrites]uint64
	count    int
}

func (s *Set) match(q *question.Question) Decision {
	best := found{class: classNone}
	at, labels := 0, q.Labels
	for {
		if s.depths&(1<<min(labels, 63)) != 0 {
			s.lookUp(q, at, &best)
		}
		if best.class <= s.top || q.Buf[at] == 0 || q.Buf[at] >= question.AddressMark {
			break
		}
		at += 1 + int(q.Buf[at])
		labels--
	}
	if best.class > s.top && !s.index.Empty() && q.Buf[0] < question.AddressMark {
		s.tryPatterns(q, &best)
	}
	if best.count > 0 && best.class > classRewrite {
		if d, ok := s.rewrite(best.rewrites[:best.count]); ok {
			return d
		}
	}
	return s.decision(&best)
}

// lookUp finds the rules about the part of the name from at on.
func (s *Set) lookUp(q *question.Question, at int, best *found) {
	about := q.Buf[at:q.Size]
	h := hash(about)
	for i := s.table.first(h); s.table.slots[i] != 0; i = s.table.next(i) {
		slot := s.table.slots[i]
		if slot&^refMask != tag(h) {
			continue
		}
		ref := slot & refMask
		entry := s.arena.entry(ref)
		if !bytes.HasPrefix(entry[1:], about) {
			continue
		}
		header := entry[0]
		switch header & scopeMask {
		case scopeBelow:
			if at == 0 {
				continue
			}
		case scopeExact:
			if at != 0 {
				continue
			}
		}
		if header&flagLimits != 0 && !holds(entry[1+len(about):], q) {
			continue
		}
		best.take(classOf(s.sources[s.owner[ref>>chunkBits-1]].kind, header), ref)
	}
}

func (f *found) take(c class, ref uint64) {
	switch {
	case c == classRewrite:
		if f.count < maxRewrites && !slices.Contains(f.rewrites[:f.count], ref) { // a pattern may be tried twice
			f.rewrites[f.count] = ref
			f.count++
		}
	case f.yields(c, ref):
		f.class, f.ref = c, ref
	}
}

// yields reports whether a rule is stronger. Of patterns of one class the first counts, in whatever order they are tried.
func (f *found) yields(c class, ref uint64) bool {
	return c < f.class || c == f.class && f.ref&isPattern != 0 && ref < f.ref
}

// isPattern marks the ref of a rule with a pattern; the rest is its index.
const isPattern = 1 << 63

// tryPatterns looks whether a pattern decides. It is apart, since what it does makes memory.
//
//go:noinline
func (s *Set) tryPatterns(q *question.Question, best *found) {
	var buf [256]byte
	text := q.Text(buf[:0])
	var name string
	s.index.Scan(text, func(i int) {
		rule := &s.patterns[i]
		c := classOf(s.sources[s.patternOwner[i]].kind, rule.header)
		ref := isPattern | uint64(i)
		if c != classRewrite && !best.yields(c, ref) {
			return
		}
		if name == "" {
			name = string(text)
		}
		if rule.pattern.Match(name) && (rule.header&flagLimits == 0 || holds(rule.limits, q)) {
			best.take(c, ref)
		}
	})
}

func (s *Set) decision(f *found) Decision {
	d := Decision{Kind: NoRule}
	switch f.class {
	case classNone:
		return d
	case classAllow:
		d.Kind = Allow
	case classDeny:
		d.Kind, d.Blocked = Deny, true
	case classException, classImportantException:
		d.Kind = Exception
	default:
		d.Kind, d.Blocked = Listed, true
	}
	d.List, d.set, d.ref = s.source(f.ref).name, s, f.ref
	return d
}

func (s *Set) source(ref uint64) source {
	if ref&isPattern != 0 {
		return s.sources[s.patternOwner[ref&^isPattern]]
	}
	return s.sources[s.owner[ref>>chunkBits-1]]
}
