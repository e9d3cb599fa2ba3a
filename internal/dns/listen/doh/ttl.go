package doh

import (
	"encoding/binary"
	"time"
)

const (
	headerSize = 12
	typeSOA    = 6
)

// Freshness is how long a cache may keep a DNS message (RFC 8484, section 5.1): the lowest TTL of its answer, or without an answer
// what its SOA allows (RFC 2308). It is 0 for a message that is cut, malformed or tells of a failure.
func Freshness(message []byte) time.Duration {
	if len(message) < headerSize || message[2]&0x02 != 0 {
		return 0
	}
	if rcode := message[3] & 0xF; rcode != 0 && rcode != 3 {
		return 0
	}
	questions, answers, authorities := int(binary.BigEndian.Uint16(message[4:])), int(binary.BigEndian.Uint16(message[6:])), int(binary.BigEndian.Uint16(message[8:]))
	at := headerSize
	for range questions {
		if at = skipName(message, at); at == 0 || at+4 > len(message) {
			return 0
		}
		at += 4
	}
	lowest, ok := uint32(1<<32-1), false
	for i := range answers + authorities {
		r, next := readRecord(message, at)
		if next == 0 {
			return 0
		}
		at = next
		switch {
		case i < answers:
			lowest, ok = min(lowest, r.ttl), true
		case answers == 0 && r.kind == typeSOA && len(r.data) >= 4:
			minimum := positive(binary.BigEndian.Uint32(r.data[len(r.data)-4:]))
			lowest, ok = min(lowest, r.ttl, minimum), true
		}
	}
	if !ok {
		return 0
	}
	return time.Duration(lowest) * time.Second
}

type record struct {
	kind uint16
	ttl  uint32
	data []byte
}

// readRecord returns where the next record begins, 0 for a malformed one.
func readRecord(message []byte, at int) (r record, next int) {
	at = skipName(message, at)
	if at == 0 || at+10 > len(message) {
		return r, 0
	}
	next = at + 10 + int(binary.BigEndian.Uint16(message[at+8:]))
	if next > len(message) {
		return r, 0
	}
	r.kind = binary.BigEndian.Uint16(message[at:])
	r.ttl = positive(binary.BigEndian.Uint32(message[at+4:]))
	r.data = message[at+10 : next]
	return r, next
}

// positive takes a TTL with the highest bit set for 0 (RFC 2181, section 8).
func positive(ttl uint32) uint32 {
	if ttl > 1<<31-1 {
		return 0
	}
	return ttl
}

// skipName returns where the name ends, 0 if it does not. It follows no pointer: one ends a name.
func skipName(message []byte, at int) int {
	for at < len(message) {
		size := int(message[at])
		switch {
		case size == 0:
			return at + 1
		case size >= 0xC0:
			return at + 2
		case size > 63:
			return 0
		}
		at += 1 + size
	}
	return 0
}
