// Package question holds what a query asks the rules about, in the one form in which they look it up: a name as it
// travels, in lower case, or an address. It lives on the stack of a look-up and takes no memory of its own.
package question

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"dnsfleet/internal/dns/rules/syntax"
)

// AddressMark marks, where a name has the length of its first label, the bytes of an address, and counts them. No label
// is as long.
const AddressMark = 0x40

// Question is a name in lower case as it travels, or an address, and the type that is asked for. Read methods start from
// a new one; when one reports false the Question means nothing.
type Question struct {
	Buf    [256]byte
	Size   int // of the name in Buf, with the root
	Labels int
	Type   uint16
}

// ReadWire takes a name as it travels, in any case. It reports whether it is one.
func (q *Question) ReadWire(name []byte) bool {
	at := 0
	for {
		if at >= len(name) || at > 254 {
			return false
		}
		n := int(name[at])
		if n == 0 {
			break
		}
		if n > 63 {
			return false
		}
		at += 1 + n
		q.Labels++
	}
	q.Size = at + 1
	copy(q.Buf[:], name[:q.Size])
	// Lengths of labels are below 'A', so that all bytes can be treated alike, eight at a time.
	for i := 0; i < q.Size; i += 8 {
		w := binary.LittleEndian.Uint64(q.Buf[i:])
		binary.LittleEndian.PutUint64(q.Buf[i:], lower8(w))
	}
	return true
}

// lower8 lower-cases eight bytes: it adds to the seven low bits of each what carries into the eighth from 'A' on, and
// from behind 'Z' on.
func lower8(w uint64) uint64 {
	const ones = 0x0101010101010101
	low := w & (0x7f * ones)
	fromA := low + (0x80-'A')*ones
	behindZ := low + (0x80-'Z'-1)*ones
	upper := (fromA &^ behindZ &^ w) & (0x80 * ones)
	return w | upper>>2
}

// ReadText takes a name as text, with or without the final dot; "\." and "\123" are bytes of a label (RFC 1035,
// section 5.1). It reports whether it is one.
func (q *Question) ReadText(name string) bool {
	start, at := 0, 1 // of the label under way, and where its next byte goes
	end := func() bool {
		n := at - start - 1
		if n == 0 || n > 63 || at > 254 {
			return false
		}
		q.Buf[start] = byte(n)
		q.Labels++
		start, at = at, at+1
		return true
	}
	if name == "." {
		name = ""
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		switch {
		case c == '.':
			if !end() {
				return false
			}
			continue
		case c >= 0x80:
			return false
		case c == '\\':
			if i++; i == len(name) {
				return false
			}
			if c = name[i]; isDigit(c) {
				if i+2 >= len(name) || !isDigit(name[i+1]) || !isDigit(name[i+2]) {
					return false
				}
				n := int(c-'0')*100 + int(name[i+1]-'0')*10 + int(name[i+2]-'0')
				if n > 255 {
					return false
				}
				c = byte(n)
				i += 2
			}
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if at > 254 {
			return false
		}
		q.Buf[at] = c
		at++
	}
	if at > start+1 && !end() {
		return false
	}
	q.Buf[start] = 0
	q.Size = start + 1
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// ReadForeign takes a text with characters beyond ASCII, as people write it.
func (q *Question) ReadForeign(name string) bool {
	ascii, ok := syntax.Normalize([]byte(name))
	*q = Question{Type: q.Type}
	return ok && q.ReadText(string(ascii))
}

// ReadAddress takes an address.
func (q *Question) ReadAddress(addr netip.Addr) {
	raw := addr.Unmap().As16()
	b := raw[:]
	if addr.Unmap().Is4() {
		b = raw[12:]
	}
	q.Buf[0] = AddressMark | byte(len(b))
	q.Size = 1 + copy(q.Buf[1:], b)
}

// Below reports whether the name is one of several names as they travel, or below it.
func (q *Question) Below(names []byte) bool {
	for len(names) > 0 {
		var name []byte
		name, names = CutName(names)
		for at := 0; ; at += 1 + int(q.Buf[at]) {
			if bytes.Equal(q.Buf[at:q.Size], name) {
				return true
			}
			if q.Buf[at] == 0 || q.Buf[at] >= AddressMark {
				break
			}
		}
	}
	return false
}

// Text appends the name as patterns match it: without the final dot, with bytes that are no part of a host name escaped.
func (q *Question) Text(b []byte) []byte {
	for at := 0; q.Buf[at] != 0; {
		n := int(q.Buf[at])
		if at > 0 {
			b = append(b, '.')
		}
		for _, c := range q.Buf[at+1 : at+1+n] {
			switch {
			case c == '.' || c == '\\':
				b = append(b, '\\', c)
			case c <= ' ' || c > '~':
				b = append(b, '\\', '0'+c/100, '0'+c/10%10, '0'+c%10)
			default:
				b = append(b, c)
			}
		}
		at += 1 + n
	}
	return b
}
