// Package message decides which messages are queries that are served, one rule for all transports, and finishes
// replies: OPT only where asked, and no more bytes than the client can take.
package message

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// HeaderSize is the length of a DNS header; nothing shorter is a message.
const HeaderSize = 12

// MaxUDP is the largest answer over UDP, however much the client offers (DNS flag day 2020).
const MaxUDP = 1232

// Query is a question that was accepted.
type Query struct {
	Msg      *dns.Msg
	Question dns.Question // as the client wrote it
	Name     string       // of the question, in lower case, with the final dot
	OPT      *dns.OPT     // nil when the client sent none
}

// ErrIgnore says that a message is not to be answered or counted: it is a response, or claims to be.
var ErrIgnore = errors.New("not a query")

// RefusalError is why a query is not served: the rcode to answer with.
type RefusalError struct {
	RCode  int
	Reason string
}

// Error is the reason.
func (r *RefusalError) Error() string { return r.Reason }

// Parse reads a message. The error is ErrIgnore or a *RefusalError; with a RefusalError, Query holds what could be read, and Msg
// is nil when not even the header could.
func Parse(raw []byte) (Query, error) {
	if IsResponse(raw) {
		return Query{}, ErrIgnore
	}
	if len(raw) < HeaderSize {
		return Query{}, &RefusalError{dns.RcodeFormatError, "shorter than a header"}
	}
	opcode := int(raw[2]>>3) & 0xF
	questions := binary.BigEndian.Uint16(raw[4:])
	q := Query{Msg: &dns.Msg{MsgHdr: dns.MsgHdr{
		Id: binary.BigEndian.Uint16(raw), Opcode: opcode, RecursionDesired: raw[2]&1 != 0, CheckingDisabled: raw[3]&0x10 != 0,
	}}}
	if opcode != dns.OpcodeQuery {
		return q, &RefusalError{dns.RcodeNotImplemented, "opcode is not QUERY"}
	}
	if questions != 1 {
		return q, &RefusalError{dns.RcodeFormatError, "question count is not 1"}
	}
	msg := new(dns.Msg)
	if err := msg.Unpack(raw); err != nil || len(msg.Question) != 1 || !whole(raw, msg) {
		return q, &RefusalError{dns.RcodeFormatError, "malformed"}
	}
	q.Msg, q.Question = msg, msg.Question[0]
	q.Name = strings.ToLower(dns.Fqdn(q.Question.Name))
	for _, rr := range msg.Extra {
		opt, ok := rr.(*dns.OPT)
		if !ok {
			continue
		}
		if q.OPT != nil || opt.Hdr.Name != "." {
			q.OPT = nil
			return q, &RefusalError{dns.RcodeFormatError, "more than one OPT, or one with a name"}
		}
		q.OPT = opt
	}
	if len(q.cookies()) > 1 || len(q.cookies()) == 1 && q.Cookie() == nil {
		return q, &RefusalError{dns.RcodeFormatError, "more than one cookie, or one of a wrong length"}
	}
	return q, check(q)
}

// whole reports whether a message has the question and the records that it says, which Unpack does not mind. The
// question's name is not compressed: there is no name before it.
func whole(raw []byte, msg *dns.Msg) bool {
	at := HeaderSize
	for at < len(raw) && raw[at] != 0 {
		if raw[at] > 63 {
			return false
		}
		at += 1 + int(raw[at])
	}
	return at+5 <= len(raw) && int(binary.BigEndian.Uint16(raw[6:])) == len(msg.Answer) &&
		int(binary.BigEndian.Uint16(raw[8:])) == len(msg.Ns) && int(binary.BigEndian.Uint16(raw[10:])) == len(msg.Extra)
}

// check refuses well-formed queries that are not served.
func check(q Query) error {
	switch {
	case q.OPT != nil && q.OPT.Version() != 0:
		return &RefusalError{dns.RcodeBadVers, "EDNS version is not 0"}
	case q.Question.Qtype == dns.TypeOPT || q.Question.Qtype == dns.TypeNone:
		return &RefusalError{dns.RcodeFormatError, "type cannot be asked for"}
	case q.Question.Qclass != dns.ClassINET:
		return &RefusalError{dns.RcodeRefused, "class is not IN"}
	case q.Question.Qtype == dns.TypeAXFR || q.Question.Qtype == dns.TypeIXFR:
		return &RefusalError{dns.RcodeRefused, "no zone transfers"}
	}
	return nil
}

// IsResponse reports whether the QR bit is set.
func IsResponse(raw []byte) bool { return len(raw) > 2 && raw[2]&0x80 != 0 }

// DO reports whether the client wants DNSSEC records.
func (q Query) DO() bool { return q.OPT != nil && q.OPT.Do() }

// CD reports whether the client wants answers that do not validate.
func (q Query) CD() bool { return q.Msg.CheckingDisabled }

// Cookie is the client's COOKIE option, 8 or 16 to 40 bytes (RFC 7873); nil for none.
func (q Query) Cookie() []byte {
	for _, text := range q.cookies() {
		if raw, err := hex.DecodeString(text); err == nil && (len(raw) == 8 || len(raw) >= 16 && len(raw) <= 40) {
			return raw
		}
	}
	return nil
}

func (q Query) cookies() (texts []string) {
	if q.OPT != nil {
		for _, o := range q.OPT.Option {
			if c, ok := o.(*dns.EDNS0_COOKIE); ok {
				texts = append(texts, c.Cookie)
			}
		}
	}
	return texts
}

// Padded reports whether the client padded the query (RFC 7830), and so wants answers that are padded where nobody can
// look inside.
func (q Query) Padded() bool {
	return q.OPT != nil && slices.ContainsFunc(q.OPT.Option, func(o dns.EDNS0) bool { return o.Option() == dns.EDNS0PADDING })
}

// AD reports whether the client understands the AD bit (RFC 6840, section 5.7).
func (q Query) AD() bool { return q.Msg.AuthenticatedData || q.DO() }
