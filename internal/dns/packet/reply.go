package packet

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// Flags of a reply's header.
const (
	flagQR = 0x80
	flagTC = 0x02
	flagRD = 0x01
	flagRA = 0x80
	flagAD = 0x20
	flagCD = 0x10
)

// paddingBlock is what padded answers are multiples of (RFC 8467, section 4.1).
const paddingBlock = 468

// Extra is what a reply's OPT says. The zero value says nothing.
type Extra struct {
	EDE     bool   // there is an extended error (RFC 8914)
	Code    uint16 // of it
	Text    [2]string
	Cookie  []byte // the whole COOKIE option, client's and server's part; nil for none
	Padding bool   // pad the reply
}

// AppendHead begins a reply without records: header and question as the client wrote it.
func (q *Query) AppendHead(dst []byte, rcode int) []byte {
	dst = binary.BigEndian.AppendUint16(dst, q.ID)
	dst = append(dst, flagQR, flagRA|byte(rcode&0xF), 0, 1, 0, 0, 0, 0, 0, 0)
	q.setFlags(dst[len(dst)-headerSize:])
	return append(dst, q.question...)
}

func (q *Query) setFlags(head []byte) {
	if q.RD {
		head[2] |= flagRD
	}
	if q.CD {
		head[3] |= flagCD
	}
}

// SetTruncated makes a reply one that was cut short, so that the client asks again over TCP.
func SetTruncated(reply []byte) { reply[2] |= flagTC }

// Adopt makes a whole answer to the same question, without an OPT, the reply to this query: its id, its flags, its question
// as the client wrote it. The answer's name must be as long as the question's.
func (q *Query) Adopt(answer []byte) {
	binary.BigEndian.PutUint16(answer, q.ID)
	answer[2] = flagQR
	answer[3] = flagRA | answer[3]&0xF | answer[3]&flagAD
	if !q.AD {
		answer[3] &^= flagAD
	}
	q.setFlags(answer)
	copy(answer[headerSize:], q.question)
}

// AppendRecord appends a record about the question's name to a reply whose sections before are complete, and counts it in
// the section. The reply begins at start; tail is the record from its type on.
func AppendRecord(reply []byte, start int, section Section, tail []byte) []byte {
	reply = append(reply, 0xC0, headerSize)
	reply = append(reply, tail...)
	count := reply[start+6+2*int(section):]
	binary.BigEndian.PutUint16(count, binary.BigEndian.Uint16(count)+1)
	return reply
}

// Finish appends the OPT, if the client sent one. The reply begins at start, and has no OPT yet.
func (q *Query) Finish(reply []byte, start int, x *Extra) []byte {
	if !q.EDNS {
		return reply
	}
	extended := byte(0)
	if q.DO {
		extended = 0x80
	}
	reply = append(reply, 0, 0, byte(dns.TypeOPT), MaxUDP>>8, MaxUDP&0xFF, 0, 0, extended, 0, 0, 0)
	opt := len(reply)
	if x.EDE {
		size := 2 + len(x.Text[0]) + len(x.Text[1])
		reply = append(reply, 0, dns.EDNS0EDE, byte(size>>8), byte(size), byte(x.Code>>8), byte(x.Code))
		reply = append(append(reply, x.Text[0]...), x.Text[1]...)
	}
	if x.Cookie != nil {
		reply = append(reply, 0, dns.EDNS0COOKIE, 0, byte(len(x.Cookie)))
		reply = append(reply, x.Cookie...)
	}
	if x.Padding {
		n := (paddingBlock - (len(reply)-start+4)%paddingBlock) % paddingBlock
		reply = append(reply, 0, dns.EDNS0PADDING, byte(n>>8), byte(n))
		reply = append(reply, zeros[:n]...)
	}
	binary.BigEndian.PutUint16(reply[opt-2:], uint16(len(reply)-opt))
	count := reply[start+10:]
	binary.BigEndian.PutUint16(count, binary.BigEndian.Uint16(count)+1)
	return reply
}

var zeros [paddingBlock]byte

// Fits reports whether a reply of this size may go to the client as it is.
func (q *Query) Fits(size int, udp bool) bool {
	if udp {
		return size <= q.UDPSize
	}
	return size <= dns.MaxMsgSize
}
