package rules

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"dnsfleet/internal/fleet"
)

const maxRegexp = 1024

// pattern is one parsed rule: a name with everything below it, only what is below it, or an expression.
type pattern struct {
	name      []byte // normalized; nil for an expression
	belowOnly bool
	exception bool // @@
	expr      *regexp.Regexp
}

// parsePattern reads "name", ".name", "*.name", "/expression/", "||name^" and "@@||name^". It may change raw.
func parsePattern(raw []byte) (pattern, bool) {
	if len(raw) > 2 && raw[0] == '/' && raw[len(raw)-1] == '/' {
		return parseExpression(string(raw[1 : len(raw)-1]))
	}
	var p pattern
	rest, exception := bytes.CutPrefix(raw, []byte("@@"))
	rest, adblock := bytes.CutPrefix(rest, []byte("||"))
	if adblock {
		rest = bytes.TrimSuffix(rest, []byte("|"))
		if rest, adblock = bytes.CutSuffix(rest, []byte("^")); !adblock {
			return p, false
		}
	}
	if exception && !adblock {
		return p, false
	}
	p.exception = exception
	rest, p.belowOnly = bytes.CutPrefix(rest, []byte("*."))
	var ok bool
	p.name, ok = normalize(rest)
	return p, ok
}

// parseExpression compiles an RE2 expression. Names are matched in lower case and without the final dot.
func parseExpression(text string) (pattern, bool) {
	if len(text) > maxRegexp {
		return pattern{}, false
	}
	expr, err := regexp.Compile("(?i)" + text)
	return pattern{expr: expr}, err == nil
}

// Check says why a policy's allow or deny pattern cannot be used, as fleet.ErrInvalid; nil when it can.
func Check(text string) error {
	p, ok := parsePattern([]byte(strings.TrimSpace(text)))
	if !ok || p.exception {
		return fmt.Errorf("%w: %q is not a domain, *.domain, ||domain^ or /expression/", fleet.ErrInvalid, text)
	}
	return nil
}

type expression struct {
	expr *regexp.Regexp
	list int // index of the list it is from
}

func (e expression) rule() string { return "/" + strings.TrimPrefix(e.expr.String(), "(?i)") + "/" }
