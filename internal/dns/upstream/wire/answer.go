package wire

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/miekg/dns"
)

// ErrChain says that the aliases of an answer go round in a circle, or are too many to follow.
var ErrChain = errors.New("aliases go round in a circle")

// maxChain bounds the aliases of one answer.
const maxChain = 16

// Answer is an answer that was read.
type Answer struct {
	Wire      []byte
	RCode     int // with the OPT's upper bits
	Truncated bool
}

// Answers reports whether msg is a response to query: its id, its opcode, its question. A server that understood
// nothing may leave the question out. The query is one that QuestionEnd takes.
func Answers(msg, query []byte) bool {
	if len(msg) < headerSize || ID(msg) != ID(query) || msg[2]&0xF8 != 0x80 {
		return false
	}
	rcode := int(msg[3] & 0xF)
	switch binary.BigEndian.Uint16(msg[4:]) {
	case 0:
		return rcode != dns.RcodeSuccess && rcode != dns.RcodeNameError && binary.BigEndian.Uint16(msg[6:]) == 0
	case 1:
	default:
		return false
	}
	end, ok := questionEnd(query)
	if !ok || len(msg) < end {
		return false
	}
	if string(msg[end-4:end]) != string(query[end-4:end]) {
		return false
	}
	return equalFold(msg[headerSize:end-4], query[headerSize:end-4]) // the length of a label is below 'A'
}

// Read checks a message that Answers the query to its last record, in place, and leaves only what has to do with the
// question: of the answer section the names that the question's aliases lead to, of the authority section the zones
// above them and proofs, of the additional section the OPT. What follows the last record is cut off. Only a message
// with foreign records is copied. A truncated one is not read beyond its header.
func Read(msg, query []byte) (Answer, error) {
	a := Answer{Wire: msg, RCode: int(msg[3] & 0xF), Truncated: msg[2]&2 != 0}
	if a.Truncated {
		return a, nil
	}
	r := reader{msg: msg, off: headerSize}
	if binary.BigEndian.Uint16(msg[4:]) == 1 {
		r.off, _ = questionEnd(query)
		r.qtype, r.qclass = binary.BigEndian.Uint16(msg[r.off-4:]), binary.BigEndian.Uint16(msg[r.off-2:])
		r.chain[0], r.links = name{msg, headerSize}, 1
	}
	for range binary.BigEndian.Uint16(msg[6:]) {
		rr, err := r.next()
		if err != nil {
			return Answer{}, err
		}
		if err := r.answer(rr); err != nil {
			return Answer{}, err
		}
	}
	for range binary.BigEndian.Uint16(msg[8:]) {
		rr, err := r.next()
		if err != nil {
			return Answer{}, err
		}
		if rr.rrtype == typeOPT {
			return Answer{}, ErrMalformed
		}
		r.foreign = r.foreign || !r.authority(rr)
	}
	end, err := r.additional(&a)
	if err != nil {
		return Answer{}, err
	}
	a.Wire = msg[:end]
	if r.foreign {
		a.Wire, err = scrub(a.Wire)
	}
	return a, err
}

// reader walks the records of a message.
type reader struct {
	msg           []byte
	off           int
	qtype, qclass uint16
	chain         [maxChain]name // the question's name, and what its aliases lead to
	links         int
	foreign       bool // there are records that are not about the question
}

type record struct {
	owner         name
	rrtype, class uint16
	rdata, end    int
}

func (r *reader) next() (record, error) {
	rr := record{owner: name{r.msg, r.off}}
	off, ok := skip(r.msg, r.off)
	if !ok || off+10 > len(r.msg) {
		return rr, ErrMalformed
	}
	rr.rrtype, rr.class = binary.BigEndian.Uint16(r.msg[off:]), binary.BigEndian.Uint16(r.msg[off+2:])
	rr.rdata = off + 10
	rr.end = rr.rdata + int(binary.BigEndian.Uint16(r.msg[off+8:]))
	if rr.end > len(r.msg) || !rr.whole(r.msg) {
		return rr, ErrMalformed
	}
	r.off = rr.end
	return rr, nil
}

// whole reports whether the data of the common types fits its length.
func (rr record) whole(msg []byte) bool {
	msg = msg[:rr.end]
	off, ok := rr.rdata, true
	switch rr.rrtype {
	case dns.TypeA:
		off += 4
	case dns.TypeAAAA:
		off += 16
	case dns.TypeCNAME, dns.TypeNS, dns.TypePTR, dns.TypeDNAME:
		off, ok = skip(msg, off)
	case dns.TypeMX:
		off, ok = skip(msg, off+2)
	case dns.TypeSRV:
		off, ok = skip(msg, off+6)
	case dns.TypeSOA:
		if off, ok = skip(msg, off); ok {
			off, ok = skip(msg, off)
			off += 20
		}
	default:
		return true
	}
	return ok && off == rr.end
}

// answer takes a record of the answer section, whose names follow the aliases in order nearly always.
func (r *reader) answer(rr record) error {
	if rr.rrtype == typeOPT {
		return ErrMalformed
	}
	if rr.class != r.qclass || !wanted(rr.rrtype, r.qtype) {
		r.foreign = true
		return nil
	}
	i := r.links - 1
	for i >= 0 && !rr.owner.equal(r.chain[i]) {
		i--
	}
	switch {
	case i < 0 && ofParent(rr.rrtype) && r.within(rr.owner):
	case i < 0:
		r.foreign = true // or out of order, which scrub sorts out
	case rr.rrtype == dns.TypeCNAME && aliases(r.qtype):
		target := name{r.msg, rr.rdata}
		if r.links == maxChain || slices.ContainsFunc(r.chain[:r.links], target.equal) {
			return ErrChain
		}
		r.chain[r.links] = target
		r.links++
	}
	return nil
}

// ofParent reports whether a record of the type may belong to a name by standing above it.
func ofParent(rrtype uint16) bool { return rrtype == dns.TypeDNAME || rrtype == dns.TypeRRSIG }

// within reports whether a name of the chain is the zone's, or below it.
func (r *reader) within(zone name) bool {
	return slices.ContainsFunc(r.chain[:r.links], func(n name) bool { return n.within(zone) })
}

// wanted reports whether a record of the type may be in the answer to a question for qtype.
func wanted(rrtype, qtype uint16) bool {
	switch rrtype {
	case qtype, dns.TypeCNAME, dns.TypeDNAME, dns.TypeRRSIG:
		return true
	}
	return qtype == dns.TypeANY
}

// aliases reports whether a question for the type follows aliases.
func aliases(qtype uint16) bool { return qtype != dns.TypeCNAME && qtype != dns.TypeANY }

// authority reports whether a record of the authority section belongs there.
func (r *reader) authority(rr record) bool {
	switch rr.rrtype {
	case dns.TypeNSEC, dns.TypeNSEC3, dns.TypeRRSIG, dns.TypeDS:
		return true
	case dns.TypeSOA, dns.TypeNS:
		return r.within(rr.owner)
	}
	return false
}

// additional moves the OPT to where the additional section begins, and returns where it ends then. Neither the OPT's
// owner nor its data is compressed, so it may be moved.
func (r *reader) additional(a *Answer) (end int, err error) {
	end = r.off
	opts := 0
	for range binary.BigEndian.Uint16(r.msg[10:]) {
		start := r.off
		rr, err := r.next()
		if err != nil {
			return 0, err
		}
		if rr.rrtype != typeOPT {
			continue
		}
		if opts++; opts > 1 || r.msg[start] != 0 {
			return 0, ErrMalformed
		}
		a.RCode |= int(r.msg[start+5]) << 4
		end += copy(r.msg[end:], r.msg[start:rr.end])
	}
	binary.BigEndian.PutUint16(r.msg[10:], uint16(opts))
	return end, nil
}
