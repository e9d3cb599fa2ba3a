package pattern

import (
	"regexp/syntax"
	"unicode"
	"unicode/utf8"
)

const maxLiterals = 16 // of one expression

// cost is about how many instructions the program of an expression has. It never overflows: what is too much is cut.
func cost(tree *syntax.Regexp) int {
	n := 1
	for _, sub := range tree.Sub {
		n += cost(sub)
	}
	switch tree.Op {
	case syntax.OpLiteral:
		n += len(tree.Rune)
	case syntax.OpRepeat:
		n *= max(tree.Min+1, tree.Max, 1)
	default:
	}
	return min(n, 1<<20)
}

// required are texts of two characters or more of which each match of the expression holds at least one; none when no
// such texts are known. The longer the better. The expression is simplified: it holds no counted repetition.
func required(tree *syntax.Regexp) []string {
	switch tree.Op {
	case syntax.OpLiteral:
		return usable([]string{lower(tree.Rune)})
	case syntax.OpCapture, syntax.OpPlus:
		return required(tree.Sub[0])
	case syntax.OpAlternate:
		var all []string
		for _, sub := range tree.Sub {
			literals := required(sub)
			if len(literals) == 0 || len(all)+len(literals) > maxLiterals {
				return nil
			}
			all = append(all, literals...)
		}
		return all
	case syntax.OpConcat:
		var best []string
		for _, sub := range tree.Sub {
			if literals := required(sub); shortest(literals) > shortest(best) {
				best = literals
			}
		}
		return best
	default:
	}
	return nil
}

// lower is what of a literal is sure to stand in a name in lower case: its longest part of ASCII. Folding case can make
// "k" match a sign that is no ASCII, but names hold none.
func lower(runes []rune) string {
	var best, run []byte
	for _, r := range runes {
		if r = unicode.ToLower(r); r >= utf8.RuneSelf {
			run = nil
			continue
		}
		if run = append(run, byte(r)); len(run) > len(best) {
			best = run
		}
	}
	return string(best)
}

func usable(literals []string) []string {
	if shortest(literals) < 2 {
		return nil
	}
	return literals
}

func shortest(literals []string) int {
	if len(literals) == 0 {
		return 0
	}
	n := len(literals[0])
	for _, l := range literals[1:] {
		n = min(n, len(l))
	}
	return n
}
