package rules

import (
	"bytes"
	"hash/maphash"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

const maxName = 253

var (
	// seed is one for the process, so that lists read at different times agree; nobody outside can know it, so nobody
	// can craft two names that collide.
	seed = maphash.MakeSeed()

	// toASCII maps what people write to what travels in a query.
	toASCII = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false))
)

func hashBytes(name []byte) uint64 { return max(maphash.Bytes(seed, name), 1) } // 0 marks a free slot

func hashString(name string) uint64 { return max(maphash.String(seed, name), 1) }

// normalize lower-cases a domain name, turns IDN into its ASCII form and drops dots at both ends. It may change and
// return raw itself. ok is false for what is no host-like name.
func normalize(raw []byte) (name []byte, ok bool) {
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

// parent is the name without its first label, "" at the end. Dots that are part of a label are written "\." and
// do not end it.
func parent(name string) string {
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '\\':
			i++
		case '.':
			return name[i+1:]
		}
	}
	return ""
}
