package packet

import (
	"encoding/binary"
	"net/netip"

	"github.com/miekg/dns"
)

// Section is where in a message a record is.
type Section uint8

// The sections.
const (
	AnswerSection Section = iota
	AuthoritySection
	AdditionalSection
)

// Record is one record of a message.
type Record struct {
	Section     Section
	Type, Class uint16
	Start       int // where its owner begins
	TTL         int // where its TTL is
	Data, End   int // where its data begin and end
}

// Cursor goes through the records of a message. It trusts nothing: at the first record that is not whole it ends.
type Cursor struct {
	msg     []byte
	off     int
	left    [3]int
	section Section
	broken  bool
}

// RecordsOf is a Cursor before the first record of a message with one question or none.
func RecordsOf(msg []byte) Cursor {
	c := Cursor{msg: msg, off: headerSize}
	if len(msg) < headerSize {
		c.broken = true
		return c
	}
	for i := range c.left {
		c.left[i] = int(binary.BigEndian.Uint16(msg[6+2*i:]))
	}
	for range binary.BigEndian.Uint16(msg[4:]) {
		next, ok := skipName(msg, c.off)
		if !ok || next+4 > len(msg) {
			c.broken = true
			return c
		}
		c.off = next + 4
	}
	return c
}

// Next is the next record; false behind the last one that is whole.
func (c *Cursor) Next() (r Record, ok bool) {
	for c.section < 2 && c.left[c.section] == 0 {
		c.section++
	}
	if c.broken || c.left[c.section] == 0 {
		return r, false
	}
	r.Section, r.Start = c.section, c.off
	at, ok := skipName(c.msg, c.off)
	if !ok || at+10 > len(c.msg) {
		c.broken = true
		return r, false
	}
	r.Type, r.Class = binary.BigEndian.Uint16(c.msg[at:]), binary.BigEndian.Uint16(c.msg[at+2:])
	r.TTL, r.Data = at+4, at+10
	r.End = r.Data + int(binary.BigEndian.Uint16(c.msg[at+8:]))
	if r.End > len(c.msg) {
		c.broken = true
		return r, false
	}
	c.off = r.End
	c.left[c.section]--
	return r, true
}

// Addr is the address of an A or AAAA record; false for others.
func (r Record) Addr(msg []byte) (addr netip.Addr, ok bool) {
	if r.Type != dns.TypeA && r.Type != dns.TypeAAAA || r.Class != dns.ClassINET {
		return addr, false
	}
	addr, ok = netip.AddrFromSlice(msg[r.Data:r.End])
	return addr, ok && addr.Is4() == (r.Type == dns.TypeA)
}

// skipName returns where what follows a name begins; a pointer ends it.
func skipName(msg []byte, off int) (next int, ok bool) {
	for off < len(msg) {
		switch n := int(msg[off]); {
		case n == 0:
			return off + 1, true
		case n < 64:
			off += 1 + n
		case n >= 0xC0 && off+1 < len(msg):
			return off + 2, true
		default:
			return 0, false
		}
	}
	return 0, false
}

// AppendName appends the name at off, uncompressed and in lower case; false if there is none, or it is too long.
func AppendName(dst, msg []byte, off int) (name []byte, ok bool) {
	start, before := len(dst), off+1
	for off < len(msg) {
		n := int(msg[off])
		switch {
		case n == 0:
			return append(dst, 0), true
		case n < 64:
			if off+1+n > len(msg) || len(dst)-start+1+n >= maxName {
				return dst, false
			}
			dst = append(dst, byte(n))
			for _, c := range msg[off+1 : off+1+n] {
				if c >= 'A' && c <= 'Z' {
					c |= 0x20
				}
				dst = append(dst, c)
			}
			off += 1 + n
		case n >= 0xC0 && off+1 < len(msg):
			target := n&0x3F<<8 | int(msg[off+1])
			if target >= before-1 { // strictly backwards, so that it ends
				return dst, false
			}
			off, before = target, target+1
		default:
			return dst, false
		}
	}
	return dst, false
}

// CutOPT takes the OPT off a message whose last record it is, and returns the rest. A message without one, or with one
// elsewhere, is returned as it is. It changes msg.
func CutOPT(msg []byte) []byte {
	c := RecordsOf(msg)
	for {
		r, ok := c.Next()
		if !ok {
			return msg
		}
		if r.Type == dns.TypeOPT && r.Section == AdditionalSection && c.left[2] == 0 {
			count := msg[10:]
			binary.BigEndian.PutUint16(count, binary.BigEndian.Uint16(count)-1)
			return msg[:r.Start]
		}
	}
}
