package rules

import (
	"encoding/binary"
	"strings"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/rules/question"
	"dnsfleet/internal/dns/rules/syntax"
)

// Limits say when a rule does not hold, and how it rewrites. They are kept as bytes: two of total length, then parts of
// a letter, two bytes of length and what the letter says.
const (
	limitTypes    = 'T' // holds for these query types alone
	limitNotTypes = 't' // does not hold for these
	limitNames    = 'D' // does not hold for these names and what is below them; one behind the other as they travel
	limitRewrite  = 'R' // as syntax.ParseRewrite reads it
)

const maxLimits = 32 << 10 // bytes

// limitsOf are the limits of a rule, nil when it has none. ok is false when they are too long.
func limitsOf(r *syntax.Rule) (limits []byte, ok bool) {
	if len(r.Types) == 0 && len(r.NotTypes) == 0 && len(r.DenyAllow) == 0 && r.Rewrite == "" {
		return nil, true
	}
	b := []byte{0, 0}
	part := func(letter byte, data []byte) {
		if len(data) > 0 {
			b = append(b, letter, byte(len(data)>>8), byte(len(data))) // one that is longer is too long in all
			b = append(b, data...)
		}
	}
	part(limitTypes, typesOf(r.Types))
	part(limitNotTypes, typesOf(r.NotTypes))
	var names []byte
	for _, name := range r.DenyAllow {
		names = question.AppendName(names, name)
	}
	part(limitNames, names)
	part(limitRewrite, []byte(r.Rewrite))
	if len(b) > maxLimits {
		return nil, false
	}
	binary.BigEndian.PutUint16(b, uint16(len(b)))
	return b, true
}

func typesOf(types []uint16) []byte {
	var b []byte
	for _, t := range types {
		b = binary.BigEndian.AppendUint16(b, t)
	}
	return b
}

func limitsSize(limits []byte) int { return int(binary.BigEndian.Uint16(limits)) }

// eachLimit calls f with each part until it returns false.
func eachLimit(limits []byte, f func(letter byte, data []byte) bool) {
	for parts := limits[2:limitsSize(limits)]; len(parts) > 0; {
		end := 3 + int(binary.BigEndian.Uint16(parts[1:]))
		if !f(parts[0], parts[3:end]) {
			return
		}
		parts = parts[end:]
	}
}

// holds reports whether a rule with these limits is for the question.
func holds(limits []byte, q *question.Question) bool {
	yes := true
	eachLimit(limits, func(letter byte, data []byte) bool {
		switch letter {
		case limitTypes:
			yes = hasType(data, q.Type)
		case limitNotTypes:
			yes = !hasType(data, q.Type)
		case limitNames:
			yes = !q.Below(data)
		}
		return yes
	})
	return yes
}

func hasType(types []byte, qtype uint16) bool {
	for ; len(types) > 0; types = types[2:] {
		if binary.BigEndian.Uint16(types) == qtype {
			return true
		}
	}
	return false
}

// rewriteOf is the value of $dnsrewrite, "" when it has none.
func rewriteOf(limits []byte) (value string) {
	eachLimit(limits, func(letter byte, data []byte) bool {
		if letter == limitRewrite {
			value = string(data)
		}
		return true
	})
	return value
}

// modifiers writes flags and limits as a rule may have them, without "$".
func modifiers(header byte, limits []byte) string {
	var parts []string
	if header&flagImportant != 0 {
		parts = append(parts, "important")
	}
	rewrite := ""
	if header&flagLimits != 0 {
		eachLimit(limits, func(letter byte, data []byte) bool {
			switch letter {
			case limitTypes:
				parts = append(parts, "dnstype="+typesText("", data))
			case limitNotTypes:
				parts = append(parts, "dnstype="+typesText("~", data))
			case limitNames:
				var names []string
				for len(data) > 0 {
					name, rest := question.CutName(data)
					names, data = append(names, question.NameText(name)), rest
				}
				parts = append(parts, "denyallow="+strings.Join(names, "|"))
			case limitRewrite:
				rewrite = "=" + string(data)
			}
			return true
		})
	}
	if header&flagRewrite != 0 {
		parts = append(parts, "dnsrewrite"+rewrite)
	}
	return strings.Join(parts, ",")
}

func typesText(sign string, types []byte) string {
	var names []string
	for ; len(types) > 0; types = types[2:] {
		names = append(names, sign+dns.Type(binary.BigEndian.Uint16(types)).String())
	}
	return strings.Join(names, "|")
}
