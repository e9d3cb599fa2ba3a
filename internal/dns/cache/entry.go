package cache

import (
	"encoding/binary"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/cache/answer"
	"dnsfleet/internal/fleet"
)

const (
	headerSize = 12
	// staleTTL is what a stale answer is served with (RFC 8767, section 4), in seconds.
	staleTTL = 30
)

// epoch is where the cache's own time begins. It runs by the monotonic clock wherever the caller's times do.
var epoch = time.Now()

// since is now in the cache's own time.
func since(now time.Time) int64 { return int64(now.Sub(epoch)) }

// Entry is one answer. It never changes but for its stamp, and stays valid however long it is held, also when the cache
// has dropped it. Its methods are safe for concurrent use and allocate nothing.
type Entry struct {
	hash    uint64
	stored  int64 // the cache's own time, in nanoseconds
	expires int64
	stamp   atomic.Uint64
	use     usage
	data    string // name as text, message, and for each TTL two bytes that say where it is
	size    int32  // of all memory that the entry takes
	text    uint16 // bytes of the name as text
	wire    uint16 // bytes of the message
	ttls    uint16 // number of TTLs
	qtype   uint16
	flags   uint8
	rcode   uint8
}

// Flags of an entry.
const (
	flagDO = 1 << iota
	flagCD
	flagFailure
	flagNoData
)

// newEntry makes an entry of an answer that was read. It is put into its final form here: no id, the question in lower
// case, the flags of a response, TTLs within the limits.
func newEntry(q Question, hash uint64, a *answer.Answer, lifetime time.Duration, limits *fleet.CachePolicy, stored int64) (*Entry, bool) {
	text, _, err := dns.UnpackDomainName(q.Name, 0)
	if err != nil {
		return nil, false
	}
	e := &Entry{
		hash: hash, stored: stored, expires: stored + int64(lifetime), text: uint16(len(text)), wire: uint16(len(a.Wire)),
		ttls: uint16(len(a.TTLs)), qtype: q.Type, flags: q.flags(), rcode: uint8(a.RCode),
	}
	switch {
	case a.RCode == dns.RcodeServerFailure:
		e.flags |= flagFailure
	case a.RCode == dns.RcodeSuccess && !a.Positive():
		e.flags |= flagNoData
	}
	var b strings.Builder
	b.Grow(len(text) + len(a.Wire) + 2*len(a.TTLs))
	b.WriteString(text)
	header := a.Header(q.CD)
	b.Write(header[:])
	b.Write(q.Name)
	at := headerSize + len(q.Name)
	var number [4]byte
	for i, off := range a.TTLs {
		b.Write(a.Wire[at:off])
		binary.BigEndian.PutUint32(number[:], a.TTL(i, lifetime, limits))
		b.Write(number[:])
		at = int(off) + 4
	}
	b.Write(a.Wire[at:])
	for _, off := range a.TTLs {
		binary.BigEndian.PutUint16(number[:], off)
		b.Write(number[:2])
	}
	e.data, e.size = b.String(), int32(entrySize+b.Cap())
	return e, true
}

// entrySize is what the allocator gives an Entry; what it gives the data shows in the capacity of its buffer.
const entrySize = (int(unsafe.Sizeof(Entry{})) + 15) / 16 * 16

// is reports whether the entry answers the question.
func (e *Entry) is(q *Question) bool {
	from := int(e.text) + headerSize
	return e.qtype == q.Type && e.flags&(flagDO|flagCD) == q.flags() && len(q.Name) <= int(e.wire)-headerSize-4 &&
		e.data[from:from+len(q.Name)] == string(q.Name)
}

// question is what the entry answers; the name is a copy.
func (e *Entry) question() Question {
	from := int(e.text) + headerSize
	end := from
	for e.data[end] != 0 {
		end += 1 + int(e.data[end])
	}
	return Question{Name: []byte(e.data[from : end+1]), Type: e.qtype, DO: e.flags&flagDO != 0, CD: e.flags&flagCD != 0}
}

// AppendAnswer appends the whole message: id 0, QR, RD and RA set, AD as the upstream had it, CD as in the question, the
// question in lower case, no OPT. The caller may write the client's form of the name over bytes 12 to 12+len(name). While
// the answer is fresh every TTL is less by the whole seconds since it was stored, but never below 1, unless it came with
// 0 (beside the answer section); a stale one has 30 s everywhere.
func (e *Entry) AppendAnswer(dst []byte, now time.Time) []byte {
	t := since(now)
	start := len(dst)
	end := int(e.text) + int(e.wire)
	dst = append(dst, e.message()...)
	msg := dst[start:]
	if t >= e.expires {
		for at := end; at+1 < len(e.data); at += 2 {
			off := int(e.data[at])<<8 | int(e.data[at+1])
			binary.BigEndian.PutUint32(msg[off:], staleTTL)
		}
		return dst
	}
	seconds := uint32(max(t-e.stored, 0) / int64(time.Second))
	if seconds == 0 {
		return dst
	}
	for at := end; at+1 < len(e.data); at += 2 {
		off := int(e.data[at])<<8 | int(e.data[at+1])
		ttl := msg[off : off+4 : off+4]
		binary.BigEndian.PutUint32(ttl, answer.Aged(binary.BigEndian.Uint32(ttl), seconds))
	}
	return dst
}

// message is the whole message as it was stored.
func (e *Entry) message() string { return e.data[e.text : int(e.text)+int(e.wire)] }

// Size is how many bytes AppendAnswer appends.
func (e *Entry) Size() int { return int(e.wire) }

// RCode is NOERROR, NXDOMAIN or SERVFAIL.
func (e *Entry) RCode() int { return int(e.rcode) }

// Type is the type that was asked for.
func (e *Entry) Type() uint16 { return e.qtype }

// AD reports whether the upstream said that it has validated the answer.
func (e *Entry) AD() bool { return e.data[int(e.text)+3]&0x20 != 0 }

// Answers is how many records the answer section has.
func (e *Entry) Answers() int {
	return int(e.data[int(e.text)+6])<<8 | int(e.data[int(e.text)+7])
}

// Name is the name that was asked for: in lower case, with the final dot, escaped as miekg/dns does.
func (e *Entry) Name() string { return e.data[:e.text] }

// TTL is how long the entry is fresh from now on; 0 or less when it is not.
func (e *Entry) TTL(now time.Time) time.Duration { return time.Duration(e.expires - since(now)) }

// Stamp is what SetStamp has set, 0 before: the cache does not look at it. An answer that takes the place of another
// begins with 0.
func (e *Entry) Stamp() uint64 { return e.stamp.Load() }

// SetStamp notes under which generation of the engine's rules the entry was found fit to serve.
func (e *Entry) SetStamp(generation uint64) { e.stamp.Store(generation) }

func (e *Entry) failed() bool { return e.flags&flagFailure != 0 }

// deadline is when the entry is of no use any more. Failures are never served stale.
func (e *Entry) deadline(serveStale int64) int64 {
	if e.failed() {
		return e.expires
	}
	return e.expires + serveStale
}
