package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unicode/utf8"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
)

// ErrVersion says that bytes are of a version of batches that this program does not know.
var ErrVersion = errors.New("this version of a batch is not known here")

// What else can be wrong with a batch.
var (
	errSize   = fmt.Errorf("%w: a batch has at most %d bytes", fleet.ErrInvalid, MaxBytes)
	errShort  = fmt.Errorf("%w: the batch is cut short", fleet.ErrInvalid)
	errID     = fmt.Errorf("%w: instance and boot need an id", fleet.ErrInvalid)
	errSeq    = fmt.Errorf("%w: seq must be a whole number from 1 to %d", fleet.ErrInvalid, uint64(fleet.MaxCount))
	errCount  = fmt.Errorf("%w: a batch has 1 to %d events", fleet.ErrInvalid, MaxEvents)
	errTime   = fmt.Errorf("%w: times lie between 1970 and 6 February 2106", fleet.ErrInvalid)
	errOrder  = fmt.Errorf("%w: the events of a batch are of one UTC day, oldest first", fleet.ErrInvalid)
	errNumber = fmt.Errorf("%w: duration, outcome, rcode, qtype or qclass is out of range", fleet.ErrInvalid)
	errText   = fmt.Errorf("%w: texts are UTF-8 of at most %d bytes", fleet.ErrInvalid, MaxText)
	errAddr   = fmt.Errorf("%w: a client is an IPv4 or IPv6 address without a zone, or none", fleet.ErrInvalid)
	errRef    = fmt.Errorf("%w: an event names a text or address that the batch does not have", fleet.ErrInvalid)
	errRest   = fmt.Errorf("%w: there is more than the batch", fleet.ErrInvalid)
)

func checkHead(instance, boot string, seq, events uint64) error {
	switch {
	case !fleet.ValidID(instance) || !fleet.ValidID(boot):
		return errID
	case seq == 0 || seq > fleet.MaxCount:
		return errSeq
	case events == 0 || events > MaxEvents:
		return errCount
	}
	return nil
}

func checkNumbers(micros, outcome, rcode, qtype, qclass uint64) error {
	if micros > maxMicros || outcome >= fleet.NumOutcomes || rcode > maxRCode || qtype > 0xffff || qclass > 0xffff {
		return errNumber
	}
	return nil
}

// minEvent is the fewest bytes that an event takes: twelve numbers.
const minEvent = 12

// Decode reads what Encode wrote, from anybody: what is no batch within the limits is fleet.ErrInvalid. It keeps nothing
// of packed, and takes at most MaxBytes and the events.
func (c *Codec) Decode(packed []byte) (querylog.Batch, error) {
	b, err := c.decode(packed)
	if err != nil {
		return querylog.Batch{}, fmt.Errorf("decode batch: %w", err)
	}
	return b, nil
}

func (c *Codec) decode(packed []byte) (b querylog.Batch, err error) {
	switch {
	case len(packed) == 0:
		return b, errShort
	case len(packed) > MaxPacked:
		return b, errSize
	case packed[0] != version:
		return b, fmt.Errorf("%w: %w: got %d, want %d", fleet.ErrInvalid, ErrVersion, packed[0], version)
	}
	raw, err := c.dec.DecodeAll(packed[1:], nil)
	if err != nil {
		return b, fmt.Errorf("%w: %w", fleet.ErrInvalid, err)
	}
	if len(raw) > MaxBytes {
		return b, errSize
	}
	u := unpacker{raw: raw}
	b.InstanceID, b.BootID, b.Seq = u.string(), u.string(), u.number()
	events := u.number()
	if u.err != nil {
		return b, u.err
	}
	if err := checkHead(b.InstanceID, b.BootID, b.Seq, events); err != nil {
		return b, err
	}
	if events*minEvent > uint64(len(u.raw)) {
		return b, errShort
	}
	b.Events, err = u.events(int(events))
	if err == nil && len(u.raw) > 0 {
		err = errRest
	}
	return b, err
}

// unpacker reads a batch from the front of raw. After an error it reads zeros.
type unpacker struct {
	raw   []byte
	texts []string
	addrs []netip.Addr
	err   error
}

func (u *unpacker) events(n int) ([]fleet.QueryEvent, error) {
	first := u.number()
	if u.err == nil && first >= uint64(endMicros) {
		return nil, errTime
	}
	at, day := int64(first), dayOf(int64(first))
	events := make([]fleet.QueryEvent, n)
	for i := range events {
		passed := u.number()
		if u.err != nil {
			return nil, u.err
		}
		if passed >= uint64(dayMicros) || dayOf(at+int64(passed)) != day {
			return nil, errOrder
		}
		at += int64(passed)
		e := &events[i]
		e.Time = time.UnixMicro(at).UTC()
		took, outcome, rcode, qtype, qclass := u.number(), u.number(), u.number(), u.number(), u.number()
		if err := checkNumbers(took, outcome, rcode, qtype, qclass); err != nil {
			return nil, err
		}
		e.Duration = time.Duration(took) * time.Microsecond
		e.Outcome, e.RCode, e.QType, e.QClass = fleet.Outcome(outcome), int(rcode), uint16(qtype), uint16(qclass)
		e.Client = u.addr()
		e.ClientName, e.Protocol, e.QName, e.Upstream, e.List = u.text(), u.text(), u.text(), u.text(), u.text()
		if u.err != nil {
			return nil, u.err
		}
	}
	return events, nil
}

func (u *unpacker) fail(err error) {
	if u.err == nil {
		u.err, u.raw = err, nil
	}
}

func (u *unpacker) number() uint64 {
	n, size := binary.Uvarint(u.raw)
	if size <= 0 {
		u.fail(errShort)
		return 0
	}
	u.raw = u.raw[size:]
	return n
}

func (u *unpacker) bytes(n uint64) []byte {
	if n > uint64(len(u.raw)) {
		u.fail(errShort)
		return nil
	}
	b := u.raw[:n]
	u.raw = u.raw[n:]
	return b
}

func (u *unpacker) string() string { return string(u.bytes(u.number())) }

func (u *unpacker) text() string {
	if ref := u.number(); ref != 0 {
		if ref > uint64(len(u.texts)) {
			u.fail(errRef)
			return ""
		}
		return u.texts[ref-1]
	}
	b := u.bytes(u.number())
	if len(b) > MaxText || !utf8.Valid(b) {
		u.fail(errText)
		return ""
	}
	s := string(b)
	u.texts = append(u.texts, s)
	return s
}

func (u *unpacker) addr() netip.Addr {
	if ref := u.number(); ref != 0 {
		if ref > uint64(len(u.addrs)) {
			u.fail(errRef)
			return netip.Addr{}
		}
		return u.addrs[ref-1]
	}
	var a netip.Addr
	if b := u.bytes(u.number()); len(b) > 0 {
		var ok bool
		if a, ok = netip.AddrFromSlice(b); !ok {
			u.fail(errAddr)
		}
	}
	u.addrs = append(u.addrs, a)
	return a
}
