// Package packet reads queries and writes replies as they travel, without making anything of them: the way that most
// queries take. What is out of the ordinary it leaves to package message, which means the same by everything that both
// understand.
package packet

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

const (
	headerSize = 12
	maxName    = 255
	optSize    = 11 // an OPT without options
)

// MaxUDP is the largest answer over UDP, however much the client offers (DNS flag day 2020).
const MaxUDP = 1232

// Query is a query that was read. The zero value is ready for Read, and may be read into again and again.
type Query struct {
	ID   uint16
	Type uint16
	RD   bool
	AD   bool // the client understands the AD bit (RFC 6840, section 5.7): it set AD or DO
	CD   bool
	EDNS bool // the query has an OPT, and so has the reply; without it the following are zero
	DO   bool
	// UDPSize is the largest answer that the client takes over UDP: from 512 to MaxUDP.
	UDPSize int
	Padding bool // the client padded the query, so that over an encrypted transport the answer is to be padded
	// Cookie is the client's COOKIE option, 8 or 16 to 40 bytes (RFC 7873); nil for none. It lies in the message.
	Cookie []byte
	// Name is the question's name in wire form and lower case. It lies in the Query.
	Name []byte

	question []byte // as the client wrote it, with type and class
	buf      [maxName + 1]byte
}

// plain has the lower case of what names are usually made of, and 0 for all else.
var plain = func() (table [256]byte) {
	for c := range 256 {
		switch b := byte(c); {
		case b >= 'A' && b <= 'Z':
			table[c] = b | 0x20
		case b >= 'a' && b <= 'z', b >= '0' && b <= '9', b == '-', b == '_':
			table[c] = b
		}
	}
	return table
}()

// Read reads a message. It reports false for all that is not a plain query: one question of class IN for an ordinary
// type about a name of letters, digits, hyphens and underscores, with nothing else but an OPT of version 0 that is
// whole. Nothing is meant by that, and the Query is of no use then. It keeps raw, and reads no further than it.
func (q *Query) Read(raw []byte) bool {
	if len(raw) < headerSize+5 || raw[2]&0xFA != 0 || // a response, another opcode, cut
		binary.BigEndian.Uint32(raw[4:]) != 1<<16 || raw[8] != 0 || raw[9] != 0 || raw[10] != 0 || raw[11] > 1 {
		return false
	}
	at := headerSize
	for {
		if at >= len(raw) || at-headerSize >= maxName {
			return false
		}
		n := int(raw[at])
		q.buf[at-headerSize] = byte(n)
		at++
		if n == 0 {
			break
		}
		if n > 63 || at+n > len(raw) || at-headerSize+n >= maxName {
			return false
		}
		for end := at + n; at < end; at++ {
			c := plain[raw[at]]
			if c == 0 {
				return false
			}
			q.buf[at-headerSize] = c
		}
	}
	if at+4 > len(raw) || raw[at+2] != 0 || raw[at+3] != dns.ClassINET {
		return false
	}
	q.ID = binary.BigEndian.Uint16(raw)
	q.Type = binary.BigEndian.Uint16(raw[at:])
	q.Name = q.buf[:at-headerSize]
	q.question = raw[headerSize : at+4]
	q.RD, q.AD, q.CD = raw[2]&1 != 0, raw[3]&0x20 != 0, raw[3]&0x10 != 0
	q.EDNS, q.DO, q.Padding, q.Cookie, q.UDPSize = false, false, false, nil, dns.MinMsgSize
	at += 4
	if !ordinary(q.Type) {
		return false
	}
	if raw[11] == 0 {
		return at == len(raw)
	}
	return q.readOPT(raw[at:])
}

// ordinary reports whether a type is one that records have, not one of RFC 6895's for questions and the protocol.
func ordinary(qtype uint16) bool {
	return qtype != dns.TypeNone && qtype != dns.TypeOPT && (qtype < 128 || qtype > 255) && qtype < dns.TypeReserved
}

func (q *Query) readOPT(opt []byte) bool {
	if len(opt) < optSize || opt[0] != 0 || binary.BigEndian.Uint16(opt[1:]) != dns.TypeOPT || opt[5] != 0 || opt[6] != 0 {
		return false // opt[5]: the upper bits of an rcode, opt[6]: the version
	}
	q.EDNS = true
	q.UDPSize = min(max(int(binary.BigEndian.Uint16(opt[3:])), dns.MinMsgSize), MaxUDP)
	q.DO = opt[7]&0x80 != 0
	q.AD = q.AD || q.DO
	options := opt[optSize:]
	if int(binary.BigEndian.Uint16(opt[9:])) != len(options) {
		return false
	}
	for len(options) > 0 {
		if len(options) < 4 {
			return false
		}
		code, size := binary.BigEndian.Uint16(options), int(binary.BigEndian.Uint16(options[2:]))
		if len(options) < 4+size {
			return false
		}
		switch code {
		case dns.EDNS0COOKIE:
			if q.Cookie != nil || !validCookie(size) {
				return false
			}
			q.Cookie = options[4 : 4+size]
		case dns.EDNS0PADDING:
			q.Padding = true
		case dns.EDNS0NSID, dns.EDNS0TCPKEEPALIVE: // not answered; of no other length than zero in a query
			if size != 0 {
				return false
			}
		default:
			return false // rare: package message judges whether it is well formed
		}
		options = options[4+size:]
	}
	return true
}

// validCookie reports whether a COOKIE option may be this long (RFC 7873, section 4).
func validCookie(size int) bool { return size == 8 || size >= 16 && size <= 40 }

// AppendText appends the name as it is read: lower case, with the final dot.
func (q *Query) AppendText(dst []byte) []byte {
	if len(q.Name) == 1 {
		return append(dst, '.')
	}
	start := len(dst)
	dst = append(dst, q.Name[1:]...)
	for at := start + int(q.Name[0]); ; {
		n := int(dst[at])
		dst[at] = '.'
		if n == 0 {
			return dst
		}
		at += 1 + n
	}
}
