// Package answer reads responses in wire form for what a cache must know of them: whether they answer a question,
// where their TTLs are, and how long they may be kept (RFC 1035, 2181, 2308, 8767, 9520).
package answer

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/miekg/dns"
)

const (
	headerSize = 12
	maxName    = 255
	// fixedSize is what a record has between its name and its data.
	fixedSize = 10
)

// Why a message is not read.
var (
	ErrMalformed = errors.New("malformed answer")
	ErrQuestion  = errors.New("not an answer to the question")
)

// Answer is a response that was read. Its bytes are those it was read from, or a copy of its own where the message had
// to be written anew.
type Answer struct {
	Wire  []byte   // the whole message, without OPT and without what follows the last record; Header replaces its header
	TTLs  []uint16 // where the TTLs are in Wire, ascending
	RCode int      // with the upper bits of the OPT

	additional uint16 // records of the additional section without OPT
	truncated  bool
	qtype      uint16
	shortest   uint32 // TTL of the answer section
	answered   bool   // there is a record of the type that is asked for
	negative   uint32 // how long a negative answer lives
	hasSOA     bool
}

// Positive reports whether there is a record of the type that is asked for.
func (a *Answer) Positive() bool { return a.RCode == dns.RcodeSuccess && a.answered }

// AD reports whether the upstream says that it has validated the answer.
func (a *Answer) AD() bool { return a.Wire[3]&0x20 != 0 }

// Header is the header with which the message is kept: no id, QR, RD and RA set, AD as the upstream had it, the four lower
// bits of the rcode, and the numbers of records that are in Wire.
func (a *Answer) Header(cd bool) [headerSize]byte {
	h := [headerSize]byte(a.Wire)
	h[0], h[1], h[2], h[3] = 0, 0, 0x81, 0x80|h[3]&0x2F
	if cd {
		h[3] |= 0x10
	}
	binary.BigEndian.PutUint16(h[10:], a.additional)
	return h
}

// Read reads a response to the question for name, which is uncompressed, in lower case and of class IN. The TTLs are
// appended to offsets[:0]. Names must be compressed towards other names only, so that no change of a TTL changes a name;
// a message that has it otherwise, or an OPT that is not the last record, is written anew.
func Read(msg, name []byte, qtype uint16, offsets []uint16) (Answer, error) {
	if !answers(msg, name, qtype) {
		return Answer{}, ErrQuestion
	}
	var r reader
	a, err := r.read(msg, len(name), qtype, offsets)
	if !errors.Is(err, errUnusual) {
		return a, err
	}
	plain, ok := rewrite(msg)
	if !ok || !answers(plain, name, qtype) {
		return Answer{}, ErrMalformed
	}
	r = reader{plain: true}
	extended := a.RCode
	if a, err = r.read(plain, len(name), qtype, offsets); err != nil {
		return Answer{}, ErrMalformed
	}
	a.RCode |= extended
	return a, nil
}

// answers reports whether msg is a response to one question, and that the one for name.
func answers(msg, name []byte, qtype uint16) bool {
	end := headerSize + len(name) + 4
	if len(name) > maxName || len(msg) < end || len(msg) > dns.MaxMsgSize || msg[2]&0xF8 != 0x80 || binary.BigEndian.Uint16(msg[4:]) != 1 {
		return false
	}
	for i, c := range msg[headerSize : end-4] {
		if 'A' <= c && c <= 'Z' { // no length of a label is as large
			c += 'a' - 'A'
		}
		if c != name[i] {
			return false
		}
	}
	return binary.BigEndian.Uint16(msg[end-4:]) == qtype && binary.BigEndian.Uint16(msg[end-2:]) == dns.ClassINET && wholeName(name)
}

// wholeName reports whether name is one uncompressed name and nothing more.
func wholeName(name []byte) bool {
	at := 0
	for at < len(name) && name[at] != 0 {
		if name[at] > 63 {
			return false
		}
		at += 1 + int(name[at])
	}
	return at == len(name)-1
}

// rewrite writes a message anew without OPT and without compressed names. It is ok if the records come back as they were.
func rewrite(msg []byte) (plain []byte, ok bool) {
	defer func() {
		if recover() != nil { // of records that can be read but not written
			plain, ok = nil, false
		}
	}()
	m := new(dns.Msg)
	if m.Unpack(msg) != nil || len(m.Question) != 1 {
		return nil, false
	}
	kept := m.Extra[:0]
	for _, rr := range m.Extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			kept = append(kept, rr)
		}
	}
	m.Extra, m.Rcode, m.Compress = kept, m.Rcode&0xF, false
	plain, err := m.Pack()
	again := new(dns.Msg)
	if err != nil || again.Unpack(plain) != nil {
		return nil, false
	}
	same := slices.EqualFunc[[]dns.RR, []dns.RR]
	return plain, same(m.Answer, again.Answer, equal) && same(m.Ns, again.Ns, equal) && same(m.Extra, again.Extra, equal)
}

func equal(a, b dns.RR) bool { return a.String() == b.String() }
