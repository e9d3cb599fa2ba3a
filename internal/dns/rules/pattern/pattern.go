// Package pattern matches names by wildcards and regular expressions, many at once: an Index finds the few of a large
// number of patterns that can match a name at all, at the price of one pass over the name.
package pattern

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

const (
	maxText = 1024 // of an expression
	maxCost = 2000 // of an expression, in instructions of its program
)

// Why an expression is refused.
var (
	errLong   = fmt.Errorf("is longer than %d characters", maxText)
	errCostly = errors.New("takes too long to match")
	errShort  = errors.New("has fewer than three characters in a row that are fixed")
)

// Pattern matches names in lower case, written without the final dot. It is immutable.
type Pattern struct {
	text     string
	expr     *regexp.Regexp // nil for a glob
	parts    []string       // of a glob: what is between its "*"
	literals []string       // one of them is in every name that matches; none when nothing is known
}

// Glob makes a pattern in which "*" stands for any text, dots included. It matches from the beginning of any label to
// the end of the name. Only patterns with three fixed characters in a row are taken.
func Glob(text string) (*Pattern, error) {
	p := &Pattern{text: text, parts: strings.Split(text, "*")}
	longest := ""
	for _, part := range p.parts {
		if len(part) > len(longest) {
			longest = part
		}
	}
	if len(longest) < 3 {
		return nil, errShort
	}
	p.literals = []string{longest}
	return p, nil
}

// Expression compiles an RE2 expression, which is found anywhere in a name unless it says otherwise.
func Expression(text string) (*Pattern, error) {
	if len(text) > maxText {
		return nil, errLong
	}
	tree, err := syntax.Parse(text, syntax.Perl|syntax.FoldCase)
	if err != nil {
		return nil, err
	}
	if cost(tree) > maxCost {
		return nil, errCostly
	}
	expr, err := regexp.Compile("(?i)" + text)
	if err != nil {
		return nil, err
	}
	return &Pattern{text: text, expr: expr, literals: required(tree.Simplify())}, nil
}

// String is the pattern as it was written; an expression stands between slashes.
func (p *Pattern) String() string {
	if p.expr != nil {
		return "/" + p.text + "/"
	}
	return p.text
}

// Text is the pattern as Glob or Expression took it.
func (p *Pattern) Text() string { return p.text }

// IsExpression tells expressions from globs.
func (p *Pattern) IsExpression() bool { return p.expr != nil }

// Filtered reports whether names that cannot match are told without trying the pattern.
func (p *Pattern) Filtered() bool { return len(p.literals) > 0 }

// Match reports whether the pattern matches a name.
func (p *Pattern) Match(name string) bool {
	if p.expr != nil {
		return p.expr.MatchString(name)
	}
	for rest, more := name, true; more; _, rest, more = strings.Cut(rest, ".") {
		if p.matchFrom(rest) {
			return true
		}
	}
	return false
}

// matchFrom matches a glob against all of a text. Taking the first place for each part but the last finds a match if
// there is one.
func (p *Pattern) matchFrom(text string) bool {
	first, last := p.parts[0], p.parts[len(p.parts)-1]
	if len(p.parts) == 1 {
		return text == first
	}
	rest, ok := strings.CutPrefix(text, first)
	if !ok || len(rest) < len(last) || !strings.HasSuffix(rest, last) {
		return false
	}
	rest = rest[:len(rest)-len(last)]
	for _, part := range p.parts[1 : len(p.parts)-1] {
		if _, rest, ok = strings.Cut(rest, part); !ok {
			return false
		}
	}
	return true
}

// Unfiltered is the pattern as one of which nothing is known, so that an Index always tries it.
func (p *Pattern) Unfiltered() *Pattern {
	plain := *p
	plain.literals = nil
	return &plain
}
