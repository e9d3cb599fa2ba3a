package rules

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"dnsfleet/internal/dns/rules/syntax"
)

// question is a name in lower case as it travels, or an address, and the type that is asked for.
type question struct {
	buf    [256]byte
	size   int // of the name in buf, with the root
	labels int
	qtype  uint16
}

// readWire takes a name as it travels, in any case. It reports whether it is one.
func (q *question) readWire(name []byte) bool {
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
		q.labels++
	}
	q.size = at + 1
	copy(q.buf[:], name[:q.size])
	// Lengths of labels are below 'A', so that all bytes can be treated alike, eight at a time.
	for i := 0; i < q.size; i += 8 {
		w := binary.LittleEndian.Uint64(q.buf[i:])
		binary.LittleEndian.PutUint64(q.buf[i:], lower8(w))
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

// readText takes a name as text, with or without the final dot; "\." and "\123" are bytes of a label (RFC 1035,
// section 5.1). It reports whether it is one.
func (q *question) readText(name string) bool {
	start, at := 0, 1 // of the label under way, and where its next byte goes
	end := func() bool {
		n := at - start - 1
		if n == 0 || n > 63 || at > 254 {
			return false
		}
		q.buf[start] = byte(n)
		q.labels++
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
		q.buf[at] = c
		at++
	}
	if at > start+1 && !end() {
		return false
	}
	q.buf[start] = 0
	q.size = start + 1
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// readForeign takes a text with characters beyond ASCII, as people write it.
func (q *question) readForeign(name string) bool {
	ascii, ok := syntax.Normalize([]byte(name))
	*q = question{qtype: q.qtype}
	return ok && q.readText(string(ascii))
}

// readAddress takes an address.
func (q *question) readAddress(addr netip.Addr) {
	raw := addr.Unmap().As16()
	b := raw[:]
	if addr.Unmap().Is4() {
		b = raw[12:]
	}
	q.buf[0] = addressLabel | byte(len(b))
	q.size = 1 + copy(q.buf[1:], b)
}

// below reports whether the name is one of several names as they travel, or below it.
func (q *question) below(names []byte) bool {
	for len(names) > 0 {
		var name []byte
		name, names = cutName(names)
		for at := 0; ; at += 1 + int(q.buf[at]) {
			if bytes.Equal(q.buf[at:q.size], name) {
				return true
			}
			if q.buf[at] == 0 || q.buf[at] >= addressLabel {
				break
			}
		}
	}
	return false
}

// text is the name as patterns match it: without the final dot, with bytes that are no part of a host name escaped.
func (q *question) text(b []byte) []byte {
	for at := 0; q.buf[at] != 0; {
		n := int(q.buf[at])
		if at > 0 {
			b = append(b, '.')
		}
		for _, c := range q.buf[at+1 : at+1+n] {
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
