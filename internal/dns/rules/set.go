// Package rules compiles the policy's allow and deny patterns and the block lists into one immutable match set.
//
// Precedence, first match wins: allow patterns of the policy, deny patterns of the policy, exceptions of lists
// (@@||name^), blocking rules of lists. A rule for a name holds for everything below it as well.
package rules

import (
	"fmt"
	"strings"
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
)

// Decision is what the rules say of a name.
type Decision struct {
	Blocked bool
	Rule    string // the rule in the form it may be written, "" for NoRule
	List    string // name of the list it is from, "" for the policy's own patterns
	Kind    Kind
}

// Set is immutable and safe for concurrent use: a change builds a new one. The zero Set has no rules.
type Set struct {
	allow, deny           layer
	exceptions, lists     layer
	names                 []string // of the lists
	allowCount, denyCount int
}

// layer is the rules of one precedence.
type layer struct {
	table table
	exprs []expression
}

// Builder collects what a Set is compiled from.
type Builder struct {
	allow, deny []pattern
	lists       []*List
}

// Allow adds an allow pattern of the policy; one that cannot be read is fleet.ErrInvalid and left out.
func (b *Builder) Allow(text string) error { return add(&b.allow, text) }

// Deny adds a deny pattern of the policy; one that cannot be read is fleet.ErrInvalid and left out.
func (b *Builder) Deny(text string) error { return add(&b.deny, text) }

func add(patterns *[]pattern, text string) error {
	if err := Check(text); err != nil {
		return err
	}
	p, _ := parsePattern([]byte(strings.TrimSpace(text)))
	*patterns = append(*patterns, p)
	return nil
}

// Add adds a list. Where two lists have a name, the one added first is named as the reason.
func (b *Builder) Add(l *List) { b.lists = append(b.lists, l) }

// Build compiles. The Builder may be used on; Sets share nothing with it that changes.
func (b *Builder) Build() *Set {
	s := &Set{
		allow: policyLayer(b.allow), allowCount: len(b.allow),
		deny: policyLayer(b.deny), denyCount: len(b.deny),
	}
	blocking, excepting := 0, 0
	for _, l := range b.lists {
		blocking += len(l.block) + len(l.blockBelow)
		excepting += len(l.allow) + len(l.allowBelow)
	}
	s.lists.table, s.exceptions.table = newTable(blocking), newTable(excepting)
	for i, l := range b.lists {
		from := uint16(i) & (belowOnly - 1)
		s.names = append(s.names, l.Name)
		s.lists.table.addAll(l.block, from)
		s.lists.table.addAll(l.blockBelow, from|belowOnly)
		s.exceptions.table.addAll(l.allow, from)
		s.exceptions.table.addAll(l.allowBelow, from|belowOnly)
		for _, e := range l.blockExprs {
			s.lists.exprs = append(s.lists.exprs, expression{e.expr, i})
		}
	}
	return s
}

func policyLayer(patterns []pattern) layer {
	l := layer{table: newTable(len(patterns))}
	for _, p := range patterns {
		switch {
		case p.expr != nil:
			l.exprs = append(l.exprs, expression{expr: p.expr})
		case p.belowOnly:
			l.table.add(hashBytes(p.name), belowOnly)
		default:
			l.table.add(hashBytes(p.name), 0)
		}
	}
	return l
}

// Blocked is how many distinct names and expressions the lists block.
func (s *Set) Blocked() int { return s.lists.table.names + len(s.lists.exprs) }

// Allowed is how many allow patterns of the policy are in force.
func (s *Set) Allowed() int { return s.allowCount }

// Denied is how many deny patterns of the policy are in force.
func (s *Set) Denied() int { return s.denyCount }

// String is for messages.
func (s *Set) String() string {
	return fmt.Sprintf("rules: %d blocked by lists, %d allow, %d deny", s.Blocked(), s.allowCount, s.denyCount)
}

// Match says what the rules decide for a name in lower case, with or without the final dot. It allocates nothing
// unless a rule for what is below a name, or an expression, matches.
func (s *Set) Match(name string) Decision {
	name = strings.TrimSuffix(name, ".")
	for _, step := range [...]struct {
		layer   *layer
		kind    Kind
		blocked bool
	}{{&s.allow, Allow, false}, {&s.deny, Deny, true}, {&s.exceptions, Exception, false}, {&s.lists, Listed, true}} {
		rule, list, found := step.layer.match(name)
		if !found {
			continue
		}
		d := Decision{Blocked: step.blocked, Rule: rule, Kind: step.kind}
		if step.kind == Exception || step.kind == Listed {
			d.List = s.names[list]
		}
		return d
	}
	return Decision{Kind: NoRule}
}

func (l *layer) match(name string) (rule string, list int, found bool) {
	if l.table.names > 0 {
		for suffix := range suffixes(name) {
			value, found := l.table.find(hashString(suffix))
			switch {
			case !found || value&belowOnly != 0 && len(suffix) == len(name):
				continue
			case value&belowOnly != 0:
				return "*." + suffix, int(value &^ belowOnly), true
			}
			return suffix, int(value), true
		}
	}
	for _, e := range l.exprs {
		if e.expr.MatchString(name) {
			return e.rule(), e.list, true
		}
	}
	return "", 0, false
}
