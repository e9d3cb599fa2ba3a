// Package wire reads and changes DNS messages in place, as far as a forwarder must: whether a message answers a query,
// whether it is whole, and which of its records have to do with the question. It panics on no input, allocates only
// where it says so, and keeps nothing.
package wire

import (
	"encoding/binary"
	"errors"
)

// Size is the smallest message: a header.
const Size = headerSize

// UDPSize is the largest UDP answer that is asked for (DNS flag day 2020).
const UDPSize = 1232

// ErrMalformed says that a message cannot be read to its end.
var ErrMalformed = errors.New("malformed message")

const (
	typeOPT     = 41
	optSize     = 11 // an OPT without options
	padding     = 12 // option code (RFC 7830)
	paddedBlock = 128
)

// ID is the id of a message of at least two bytes.
func ID(msg []byte) uint16 { return binary.BigEndian.Uint16(msg) }

// SetID changes it.
func SetID(msg []byte, id uint16) { binary.BigEndian.PutUint16(msg, id) }

// AppendQuery appends a query with id 0 that asks for recursion and the AD bit, with an OPT that carries do and
// UDPSize: what NewQuery of package upstream packs to. name is in wire form and not compressed.
func AppendQuery(dst, name []byte, qtype, qclass uint16, do, cd bool) []byte {
	flags := byte(0x20) // AD
	if cd {
		flags |= 0x10
	}
	dst = append(dst, 0, 0, 1, flags, 0, 1, 0, 0, 0, 0, 0, 1)
	dst = append(dst, name...)
	dst = binary.BigEndian.AppendUint16(dst, qtype)
	dst = binary.BigEndian.AppendUint16(dst, qclass)
	extended := byte(0)
	if do {
		extended = 0x80
	}
	return append(dst, 0, 0, typeOPT, UDPSize>>8, UDPSize&0xFF, 0, 0, extended, 0, 0, 0)
}

// QuestionEnd is where the question of a query ends. It is false for what cannot be forwarded: a response, an opcode
// other than QUERY, not exactly one question, records other than an OPT, a compressed or too long name.
func QuestionEnd(query []byte) (int, bool) {
	if len(query) < headerSize || query[2]&0xF8 != 0 || binary.BigEndian.Uint32(query[4:]) != 1<<16 ||
		binary.BigEndian.Uint32(query[8:]) > 1 {
		return 0, false
	}
	return questionEnd(query)
}

// questionEnd skips a name without compression, and type and class.
func questionEnd(msg []byte) (int, bool) {
	off := headerSize
	for off < len(msg) && msg[off] != 0 {
		if msg[off] > 63 {
			return 0, false
		}
		off += int(msg[off]) + 1
	}
	end := off + 5
	return end, end <= len(msg) && off < headerSize+maxName
}

// AppendSuffixes appends the name of a query, in lower case, to buf, and hands each suffix of it in wire form to found,
// the longest first, the root not, until found returns true. It reports whether that happened.
func AppendSuffixes(buf, query []byte, found func(suffix []byte) bool) bool {
	end, ok := questionEnd(query)
	if !ok {
		return false
	}
	buf = appendLower(buf, query[headerSize:end-4])
	for rest := buf; len(rest) > 1; rest = rest[1+int(rest[0]):] {
		if found(rest) {
			return true
		}
	}
	return false
}

// AppendQuestion appends the question of a query that QuestionEnd takes, with its name in lower case.
func AppendQuestion(dst, query []byte) []byte {
	end, _ := questionEnd(query)
	dst = appendLower(dst, query[headerSize:end-4])
	return append(dst, query[end-4:end]...)
}

// appendLower appends a name that is not compressed. The length of a label is below 'A'.
func appendLower(dst, name []byte) []byte {
	for _, b := range name {
		dst = append(dst, lower(b))
	}
	return dst
}

// HasOPT reports whether a query carries an OPT right behind its question, and nothing else.
func HasOPT(query []byte) bool {
	end, ok := QuestionEnd(query)
	if !ok || binary.BigEndian.Uint16(query[10:]) != 1 || len(query) < end+optSize {
		return false
	}
	opt := query[end:]
	return opt[0] == 0 && binary.BigEndian.Uint16(opt[1:]) == typeOPT && len(opt) == optSize+int(binary.BigEndian.Uint16(opt[9:]))
}

// WithoutOPT is a copy of the query without its OPT, for servers from before EDNS. The query must have one.
func WithoutOPT(query []byte) []byte {
	end, _ := QuestionEnd(query)
	plain := append([]byte(nil), query[:end]...)
	binary.BigEndian.PutUint16(plain[10:], 0)
	return plain
}

// AppendPadded appends the query to dst, padded to a multiple of 128 bytes (RFC 8467, section 4.1) if it has an OPT
// without padding that there is room behind.
func AppendPadded(dst, query []byte) []byte {
	start := len(dst)
	dst = append(dst, query...)
	if !HasOPT(query) {
		return dst
	}
	end, _ := QuestionEnd(query)
	for off := end + optSize; off+4 <= len(query); off += 4 + int(binary.BigEndian.Uint16(query[off+2:])) {
		if binary.BigEndian.Uint16(query[off:]) == padding {
			return dst
		}
	}
	missing := (paddedBlock - (len(query)+4)%paddedBlock) % paddedBlock
	length := start + end + 9
	binary.BigEndian.PutUint16(dst[length:], binary.BigEndian.Uint16(dst[length:])+4+uint16(missing))
	dst = append(dst, 0, padding, byte(missing>>8), byte(missing))
	return append(dst, make([]byte, missing)...)
}
