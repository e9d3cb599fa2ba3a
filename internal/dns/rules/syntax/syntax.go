// Package syntax reads the lines of block lists and the policy's patterns: hosts files, plain domains, wildcards, DNS
// rules of ad blockers and regular expressions, in any mix. It says what a line means and keeps nothing of it.
//
// A line that means nothing here is Ignored, never guessed at: a rule whose limits are not understood would otherwise
// hold for everything.
package syntax

import (
	"bytes"
	"net/netip"
)

// Scope is which names a rule is about.
type Scope uint8

// The scopes.
const (
	Tree       Scope = iota // the name and everything below it
	Below                   // only what is below the name
	Exact                   // only the name
	Address                 // answers that hold the address
	Glob                    // names that Pattern matches, with "*" for any text, and everything below them
	Expression              // names in which the regular expression Pattern is found
)

// Rule is one rule of a line. What its slices hold is valid until the Parser reads the next line.
type Rule struct {
	Scope   Scope
	Name    []byte     // of Tree, Below and Exact: as Normalize returns it, empty for all names
	Addr    netip.Addr // of Address: unmapped, without zone
	Pattern string     // of Glob and Expression

	Adblock   bool // written in the syntax of ad blockers
	Exception bool // @@
	Important bool
	BadFilter bool // disables the rule that is written like it without this modifier

	Types     []uint16 // the rule holds for these query types alone, sorted; none means all
	NotTypes  []uint16 // the rule does not hold for these, sorted
	DenyAllow []string // nor for these names and what is below them; normalized, sorted
	Rewrite   string   // what to answer, as ParseRewrite reads it; "" with IsRewrite stands for all rewrites
	IsRewrite bool
}

// Verdict is what became of a line.
type Verdict uint8

// The verdicts.
const (
	Blank Verdict = iota
	Comment
	Understood // it may hold no rule all the same, such as "127.0.0.1 localhost"
	Ignored
)

// Parser reads lines. The zero Parser reads lists. It is not safe for concurrent use.
type Parser struct {
	// Policy reads patterns that an operator writes for a policy: a top-level domain needs no special form, and names
	// that hosts files hold for the machine's own sake are names like others.
	Policy bool

	rule Rule
}

// Line reads one line, which it may change, and calls take for each rule in it. A rule that take refuses makes the
// line Ignored.
func (p *Parser) Line(line []byte, take func(*Rule) bool) Verdict {
	line = bytes.TrimSpace(line)
	switch {
	case len(line) == 0:
		return Blank
	case isComment(line):
		return Comment
	case isCosmetic(line):
		return Ignored
	}
	understood := false
	if body := bytes.TrimPrefix(line, []byte("@@")); len(body) > 0 && body[0] == '/' {
		understood = p.expression(body, len(body) < len(line)) && take(&p.rule)
	} else {
		word, rest := cutWord(cutComment(line))
		switch {
		case len(rest) > 0:
			understood = p.hosts(word, rest, take)
		case !p.Policy && isLocalName(string(word)):
			understood = true
		default:
			understood = p.word(word) && take(&p.rule)
		}
	}
	if understood {
		return Understood
	}
	return Ignored
}

// hosts takes the names of a hosts line. It reports whether it understood all of them.
func (p *Parser) hosts(word, names []byte, take func(*Rule) bool) bool {
	blocks := isSinkhole(word)
	if !blocks && !isAnyAddress(word) {
		return false
	}
	understood := true
	for len(names) > 0 {
		var name []byte
		name, names = cutWord(names)
		if isLocalName(string(name)) {
			continue
		}
		name, ok := Normalize(name)
		if !ok || !blocks || bytes.IndexByte(name, '.') < 0 || isNumeric(name) {
			understood = false
			continue
		}
		p.rule = Rule{Name: name}
		understood = take(&p.rule) && understood
	}
	return understood
}

// word reads a line of one word that is no expression.
func (p *Parser) word(word []byte) bool {
	r := &p.rule
	*r = Rule{}
	word, r.Exception = bytes.CutPrefix(word, []byte("@@"))
	name, modifiers, modified := bytes.Cut(word, []byte("$"))
	if modified && !r.modify(modifiers) {
		return false
	}
	anchored, whole := false, false
	if name, anchored = bytes.CutPrefix(name, []byte("||")); !anchored {
		name, whole = bytes.CutPrefix(name, []byte("|"))
	}
	r.Adblock = modified || r.Exception || anchored || whole
	name, ended := cutEnd(name)
	if ended && !anchored && !whole || whole && !ended {
		return false // a part of a name, which would match names of others
	}
	if bytes.Equal(name, []byte("*")) || r.Adblock && len(name) == 0 {
		return r.everything(whole)
	}
	if addr, err := netip.ParseAddr(string(name)); err == nil && !whole {
		r.Scope, r.Addr = Address, addr.Unmap()
		return addr.Zone() == "" && !isSinkhole(name) && !r.IsRewrite
	}
	if rest, below := bytes.CutPrefix(name, []byte("*.")); below && !whole {
		r.Scope, name = Below, rest
	}
	if bytes.IndexByte(name, '*') >= 0 {
		return !whole && r.glob(name)
	}
	if anchored && !ended && bytes.HasSuffix(name, []byte(".")) {
		return false // "||ads." is about every name that begins so
	}
	if whole {
		r.Scope = Exact
	}
	var ok bool
	r.Name, ok = Normalize(name)
	if !ok || isNumeric(r.Name) {
		return false
	}
	// A bare word is more likely a stray text than meant to block a whole top-level domain.
	return p.Policy || anchored || whole || r.Scope == Below || bytes.IndexByte(r.Name, '.') >= 0
}

// everything is a rule for all names. It must be limited, so that no slip blocks, or allows, the whole Internet.
func (r *Rule) everything(whole bool) bool {
	limited := len(r.Types) > 0 || len(r.NotTypes) > 0 || len(r.DenyAllow) > 0
	return limited && !whole
}

// glob takes a name with "*" in it.
func (r *Rule) glob(name []byte) bool {
	if r.Scope == Below { // "*.ads*.example" needs no "*." in front: a glob holds for what is below as well
		r.Scope = Tree
	}
	for i, c := range name {
		switch {
		case 'A' <= c && c <= 'Z':
			name[i] = c + 'a' - 'A'
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_', c == '.', c == '*':
		default:
			return false
		}
	}
	r.Scope, r.Pattern = Glob, string(name)
	return true
}

// expression reads /expression/ with modifiers behind it.
func (p *Parser) expression(body []byte, exception bool) bool {
	end := bytes.LastIndexByte(body, '/')
	if modifiers := bytes.LastIndex(body, []byte("/$")); modifiers > 0 {
		end = modifiers
	}
	if end < 2 {
		return false
	}
	r := &p.rule
	*r = Rule{Scope: Expression, Pattern: string(body[1:end]), Exception: exception}
	tail, modified := bytes.CutPrefix(body[end+1:], []byte("$"))
	r.Adblock = modified || exception
	if modified {
		return r.modify(cutComment(tail))
	}
	tail = bytes.TrimSpace(tail)
	return len(tail) == 0 || tail[0] == '#' && len(body) > end+1 && body[end+1] != '#'
}

func cutEnd(name []byte) (rest []byte, ended bool) {
	if rest, ended = bytes.CutSuffix(name, []byte("^|")); ended {
		return rest, true
	}
	if rest, ended = bytes.CutSuffix(name, []byte("^")); ended {
		return rest, true
	}
	return bytes.CutSuffix(name, []byte("|"))
}
