package answer

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/miekg/dns"
)

// errUnusual says that a message may be right, but is not laid out so that it can be kept as it is.
var errUnusual = errors.New("unusual message")

// reader walks the records of a message once.
type reader struct {
	msg   []byte
	off   int
	plain bool // nothing is compressed, and data of unknown form is no matter
	// labels marks where labels begin: the only places that a name may be compressed towards. A pointer has 14 bits.
	labels [1 << 14 / 64]uint64
}

type record struct {
	rrtype, class uint16
	start         int // of the name
	ttl           int // offset
	end           int
}

// read reads msg, whose question has been compared. On errUnusual only the RCode is set, to the upper bits that an OPT
// gave it.
func (r *reader) read(msg []byte, nameSize int, qtype uint16, offsets []uint16) (Answer, error) {
	r.msg, r.off = msg, headerSize
	a := Answer{RCode: int(msg[3] & 0xF), truncated: msg[2]&2 != 0, qtype: qtype, shortest: math.MaxUint32, TTLs: offsets[:0]}
	if err := r.name(); err != nil || r.off != headerSize+nameSize {
		return Answer{}, ErrMalformed
	}
	r.off += 4
	end, unusual, extended := 0, false, 0
	sections := [3]int{int(binary.BigEndian.Uint16(msg[6:])), int(binary.BigEndian.Uint16(msg[8:])), int(binary.BigEndian.Uint16(msg[10:]))}
	opts := 0
	for section, count := range sections {
		for range count {
			rr, err := r.next()
			if errors.Is(err, errUnusual) {
				unusual = true
			} else if err != nil {
				return Answer{}, err
			}
			if rr.rrtype == dns.TypeOPT {
				if opts++; opts > 1 || section < 2 || msg[rr.start] != 0 {
					return Answer{}, ErrMalformed
				}
				extended = int(msg[rr.ttl]) << 4
				end = rr.start
				continue
			}
			unusual = unusual || opts > 0 // the OPT is not the last
			a.TTLs = append(a.TTLs, uint16(rr.ttl))
			a.note(msg, section, rr)
		}
	}
	if unusual {
		return Answer{RCode: extended}, errUnusual
	}
	if opts == 0 {
		end = r.off
	}
	a.RCode |= extended
	a.additional = uint16(sections[2] - opts)
	a.Wire = msg[:end:end]
	return a, nil
}

// note takes what the lifetime of the answer depends on.
func (a *Answer) note(msg []byte, section int, rr record) {
	switch {
	case section == 0:
		a.shortest = min(a.shortest, ttlAt(msg, rr.ttl))
		a.answered = a.answered || rr.rrtype == a.qtype
	case section == 1 && rr.rrtype == dns.TypeSOA && !a.hasSOA:
		a.hasSOA = true
		a.negative = min(ttlAt(msg, rr.ttl), binary.BigEndian.Uint32(msg[rr.end-4:]))
	}
}

// next walks a record. errUnusual still tells where it ends.
func (r *reader) next() (record, error) {
	rr := record{start: r.off}
	err := r.name()
	if err != nil && !errors.Is(err, errUnusual) {
		return rr, err
	}
	if r.off+fixedSize > len(r.msg) {
		return rr, ErrMalformed
	}
	rr.rrtype, rr.class = binary.BigEndian.Uint16(r.msg[r.off:]), binary.BigEndian.Uint16(r.msg[r.off+2:])
	rr.ttl = r.off + 4
	r.off += fixedSize
	rr.end = r.off + int(binary.BigEndian.Uint16(r.msg[r.off-2:]))
	if rr.end > len(r.msg) {
		return rr, ErrMalformed
	}
	dataErr := r.data(rr)
	if dataErr != nil && !errors.Is(dataErr, errUnusual) {
		return rr, dataErr
	}
	r.off = rr.end
	if err == nil {
		err = dataErr
	}
	return rr, err
}

// data checks the data of the common types to its last byte, names in it above all.
func (r *reader) data(rr record) error {
	names, tail := 1, 0
	switch rr.rrtype {
	case dns.TypeA:
		names, tail = 0, 4
	case dns.TypeAAAA:
		names, tail = 0, 16
	case dns.TypeCNAME, dns.TypeNS, dns.TypePTR, dns.TypeDNAME:
	case dns.TypeMX:
		r.off += 2
	case dns.TypeSRV:
		r.off += 6
	case dns.TypeSOA:
		names, tail = 2, 20
	case dns.TypeHTTPS, dns.TypeSVCB:
		r.off, tail = r.off+2, -1
	case dns.TypeRRSIG:
		r.off, tail = r.off+18, -1
	case dns.TypeNSEC:
		tail = -1
	case dns.TypeTXT, dns.TypeDS, dns.TypeDNSKEY, dns.TypeNSEC3, dns.TypeCAA, dns.TypeTLSA, dns.TypeSSHFP, dns.TypeOPT:
		return nil // holds no name
	default:
		if r.plain {
			return nil
		}
		return errUnusual
	}
	unusual := false
	for range names {
		if r.off >= rr.end {
			return ErrMalformed
		}
		if err := r.name(); errors.Is(err, errUnusual) {
			unusual = true
		} else if err != nil {
			return err
		}
	}
	if tail >= 0 && r.off+tail != rr.end || r.off > rr.end {
		return ErrMalformed
	}
	if unusual {
		return errUnusual
	}
	return nil
}

// name walks the name at off and marks its labels. Pointers must lead strictly backwards, so there are no loops, and
// all labels together must fit into 255 bytes (RFC 1035, sections 2.3.4 and 4.1.4). errUnusual is a pointer to where no
// label begins.
func (r *reader) name() error {
	length, off, start, jumped, unusual := 0, r.off, r.off, false, false
	for off < len(r.msg) {
		b := int(r.msg[off])
		switch b & 0xC0 {
		case 0:
			if length += b + 1; length > maxName || off+b+1 > len(r.msg) {
				return ErrMalformed
			}
			if !jumped {
				r.mark(off)
			}
			off += b + 1
			if b > 0 {
				continue
			}
			if !jumped {
				r.off = off
			}
			if unusual {
				return errUnusual
			}
			return nil
		case 0xC0:
			if off+2 > len(r.msg) {
				return ErrMalformed
			}
			target := (b&0x3F)<<8 | int(r.msg[off+1])
			if target < headerSize || target >= start {
				return ErrMalformed
			}
			unusual = unusual || !r.marked(target)
			if !jumped {
				r.mark(off)
				r.off, jumped = off+2, true
			}
			off, start = target, target
		default:
			return ErrMalformed
		}
	}
	return ErrMalformed
}

func (r *reader) mark(off int) {
	if off < 1<<14 {
		r.labels[off/64] |= 1 << (off % 64)
	}
}

func (r *reader) marked(off int) bool { return r.labels[off/64]&(1<<(off%64)) != 0 }
