package syntax

import (
	"bytes"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

const maxName = 253

// toASCII maps what people write to what travels in a query.
var toASCII = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false))

// Normalize lower-cases a domain name, turns IDN into its ASCII form and drops dots at both ends. It may change and
// return raw itself. ok is false for what is no host-like name.
func Normalize(raw []byte) (name []byte, ok bool) {
	name = raw
	for _, c := range raw {
		if c >= utf8.RuneSelf {
			if len(raw) > 4*maxName || !utf8.Valid(raw) {
				return nil, false
			}
			ascii, err := toASCII.ToASCII(string(raw))
			if err != nil {
				return nil, false
			}
			name = []byte(ascii)
			break
		}
	}
	name = bytes.TrimSuffix(bytes.TrimPrefix(name, []byte(".")), []byte("."))
	if len(name) == 0 || len(name) > maxName {
		return nil, false
	}
	label := 0
	for i, c := range name {
		switch {
		case c == '.':
			if label == 0 {
				return nil, false
			}
			label = 0
			continue
		case 'A' <= c && c <= 'Z':
			name[i] = c + 'a' - 'A'
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return nil, false
		}
		if label++; label > 63 {
			return nil, false
		}
	}
	return name, label > 0
}
