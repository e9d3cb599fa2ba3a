package rules

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"dnsfleet/internal/dns/rules/pattern"
	"dnsfleet/internal/dns/rules/question"
	"dnsfleet/internal/dns/rules/syntax"
)

// Bounds of one list. What is beyond them counts as ignored.
const (
	maxLine        = 64 << 10
	maxRules       = 16 << 20
	maxSubject     = 64     // rules about one name: a look-up reads all of them
	maxExpressions = 1000   // a compiled expression takes kilobytes
	maxUnfiltered  = 64     // expressions that nothing filters: every query tries them
	maxGlobs       = 10_000 // they are cheap
	maxBad         = 10_000
)

// List is one compiled block list. It is immutable, and keeps its rules without a pointer to each.
type List struct {
	Name    string
	Entries int // distinct rules
	Ignored int // lines that hold no rule that is understood, or more than is taken
	Lines   int // lines that are not empty, comments included

	arena    arena
	patterns []patternRule
	bad      map[string]bool // rules that $badfilter disables, in all lists
}

// patternRule is a rule with a pattern in place of a name.
type patternRule struct {
	pattern *pattern.Pattern
	header  byte
	limits  []byte
}

// ReadList compiles a list in any mix of the forms that syntax knows. A line that is none of them or longer than 64 KiB
// is counted as ignored. The only errors are those of r.
func ReadList(name string, r io.Reader) (*List, error) {
	c := newCompiler(name)
	var parser syntax.Parser
	in := bufio.NewReaderSize(r, maxLine)
	first := true
	for {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			c.list.Ignored++
			c.list.Lines++
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = in.ReadSlice('\n')
			}
		} else {
			if first {
				line = bytes.TrimPrefix(line, []byte("\ufeff"))
			}
			switch parser.Line(line, c.add) {
			case syntax.Blank:
			case syntax.Ignored:
				c.list.Ignored++
				c.list.Lines++
			default:
				c.list.Lines++
			}
		}
		first = false
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read list %s: %w", name, err)
		}
	}
	return c.finish(), nil
}

// compiler makes a List.
type compiler struct {
	list *List
	keys map[string]bool // of patterns that are there

	entries                        int // in the arena, those that are there twice included
	globs, expressions, unfiltered int

	scratch []byte
}

func newCompiler(name string) *compiler {
	return &compiler{list: &List{Name: name}, keys: map[string]bool{}}
}

// add takes a rule. It reports whether there was room for it.
func (c *compiler) add(r *syntax.Rule) bool {
	header, limits, ok := encode(r)
	switch {
	case !ok:
		return false
	case r.Scope == syntax.Glob || r.Scope == syntax.Expression:
		return c.addPattern(r, patternRule{header: header, limits: limits})
	}
	entry := append(c.scratch[:0], header)
	if r.Scope == syntax.Address {
		raw := r.Addr.AsSlice()
		entry = append(append(entry, question.AddressMark|byte(len(raw))), raw...)
	} else {
		entry = question.AppendName(entry, r.Name)
	}
	entry = append(entry, limits...)
	c.scratch = entry
	if r.BadFilter {
		return c.addBad(string(canonical(entry)))
	}
	if c.entries >= maxRules {
		return false
	}
	c.list.arena.add(entry)
	c.entries++
	return true
}

// encode makes the header and the limits of a rule.
func encode(r *syntax.Rule) (header byte, limits []byte, ok bool) {
	switch r.Scope {
	case syntax.Below:
		header = scopeBelow
	case syntax.Exact:
		header = scopeExact
	default:
		header = scopeTree
	}
	set := func(flag byte, on bool) {
		if on {
			header |= flag
		}
	}
	set(flagException, r.Exception)
	set(flagImportant, r.Important)
	set(flagRewrite, r.IsRewrite)
	set(flagAdblock, r.Adblock)
	limits, ok = limitsOf(r)
	set(flagLimits, len(limits) > 0)
	return header, limits, ok
}

func (c *compiler) addPattern(r *syntax.Rule, rule patternRule) bool {
	key := rule.key(r.Pattern, r.Scope == syntax.Expression)
	switch {
	case r.BadFilter:
		return c.addBad(key)
	case c.keys[key]:
		return true
	case r.Scope == syntax.Glob && c.globs >= maxGlobs, r.Scope == syntax.Expression && c.expressions >= maxExpressions:
		return false
	}
	var err error
	if rule.pattern, err = compile(r); err != nil {
		return false
	}
	if !rule.pattern.Filtered() {
		if c.unfiltered >= maxUnfiltered {
			return false
		}
		c.unfiltered++
	}
	if r.Scope == syntax.Glob {
		c.globs++
	} else {
		c.expressions++
	}
	c.keys[key] = true
	c.list.patterns = append(c.list.patterns, rule)
	return true
}

func compile(r *syntax.Rule) (*pattern.Pattern, error) {
	if r.Scope == syntax.Glob {
		return pattern.Glob(r.Pattern)
	}
	return pattern.Expression(r.Pattern)
}

func (c *compiler) addBad(key string) bool {
	if c.list.bad == nil {
		c.list.bad = map[string]bool{}
	}
	if len(c.list.bad) >= maxBad {
		return false
	}
	c.list.bad[key] = true
	return true
}

// finish drops what is there twice. To do so at the end takes one table of the right size.
func (c *compiler) finish() *List {
	l := c.list
	seen := newTable(c.entries, 0.15) // short-lived
	var dropped []uint64
	l.arena.each(func(ref uint64, entry []byte) {
		others := seen.add(&l.arena, ref, func(other uint64) bool { return sameRule(entry, l.arena.entry(other)) }, maxSubject)
		if others < 0 {
			dropped = append(dropped, ref)
		}
		if others == isFull {
			l.Ignored++
		}
	})
	if len(dropped) > 0 {
		var kept arena
		l.arena.each(func(ref uint64, entry []byte) {
			if len(dropped) > 0 && ref == dropped[0] {
				dropped = dropped[1:]
				return
			}
			kept.add(entry)
		})
		l.arena = kept
	}
	l.arena.clip()
	l.Entries = seen.used + len(l.patterns)
	return l
}

// canonical is an entry as one that is written otherwise has it, too.
func canonical(entry []byte) []byte {
	entry[0] &^= flagAdblock
	return entry
}

// key tells rules with patterns apart. It is no entry.
func (p patternRule) key(text string, expression bool) string {
	kind := "*"
	if expression {
		kind = "/"
	}
	return kind + string(p.header&^flagAdblock) + text + "\x00" + string(p.limits)
}
