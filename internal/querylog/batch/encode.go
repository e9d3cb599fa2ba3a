package batch

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
)

// version is the first byte of an encoded batch.
const version = 1

// Codec turns batches into bytes and back. It may be used concurrently. It holds some megabytes, so a process has one.
type Codec struct {
	enc     *zstd.Encoder
	dec     *zstd.Decoder
	packers sync.Pool // of *packer
}

// NewCodec makes a codec.
func NewCodec() (*Codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2),
		zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("batch codec: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(MaxBytes), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, fmt.Errorf("batch codec: %w", err)
	}
	return &Codec{enc: enc, dec: dec, packers: sync.Pool{New: func() any { return newPacker() }}}, nil
}

// Encode is the bytes of b. Parts of a microsecond are cut off, all else comes back from Decode as it was. A batch that
// Decode would refuse is fleet.ErrInvalid.
func (c *Codec) Encode(b querylog.Batch) ([]byte, error) {
	p := c.packers.Get().(*packer)
	defer c.packers.Put(p)
	p.reset()
	if err := p.batch(b); err != nil {
		return nil, fmt.Errorf("encode batch %s/%s/%d: %w", b.InstanceID, b.BootID, b.Seq, err)
	}
	packed := c.enc.EncodeAll(p.raw, append(make([]byte, 0, len(p.raw)/2+64), version))
	if len(packed) > MaxPacked {
		return nil, fmt.Errorf("encode batch %s/%s/%d: %w: %d bytes are too many", b.InstanceID, b.BootID, b.Seq, fleet.ErrInvalid, len(packed))
	}
	return packed, nil
}

// packer writes one batch uncompressed.
type packer struct {
	raw   []byte
	texts map[string]uint64 // from 1
	addrs map[netip.Addr]uint64
	last  [numTexts]remembered
}

// remembered spares the look-up of a text that is the same as in the event before.
type remembered struct {
	text string
	ref  uint64
}

// The texts of an event, in their order.
const (
	clientName = iota
	protocol
	qname
	upstream
	list
	numTexts
)

func newPacker() *packer {
	return &packer{texts: map[string]uint64{}, addrs: map[netip.Addr]uint64{}}
}

func (p *packer) reset() {
	p.raw = p.raw[:0]
	clear(p.texts)
	clear(p.addrs)
	clear(p.last[:])
}

func (p *packer) batch(b querylog.Batch) error {
	if err := checkHead(b.InstanceID, b.BootID, b.Seq, uint64(len(b.Events))); err != nil {
		return err
	}
	p.string(b.InstanceID)
	p.string(b.BootID)
	p.number(b.Seq)
	p.number(uint64(len(b.Events)))
	before := b.Events[0].Time.UnixMicro()
	if before < 0 || before >= endMicros {
		return errTime
	}
	p.number(uint64(before))
	day := dayOf(before)
	for i := range b.Events {
		at := b.Events[i].Time.UnixMicro()
		if at < before || dayOf(at) != day {
			return errOrder
		}
		p.number(uint64(at - before))
		before = at
		if err := p.event(&b.Events[i]); err != nil {
			return err
		}
	}
	if len(p.raw) > MaxBytes {
		return errSize
	}
	return nil
}

func (p *packer) event(e *fleet.QueryEvent) error {
	if e.Duration < 0 || e.RCode < 0 {
		return errNumber
	}
	took := uint64(e.Duration / time.Microsecond)
	if err := checkNumbers(took, uint64(e.Outcome), uint64(e.RCode), uint64(e.QType), uint64(e.QClass)); err != nil {
		return err
	}
	p.number(took)
	p.number(uint64(e.Outcome))
	p.number(uint64(e.RCode))
	p.number(uint64(e.QType))
	p.number(uint64(e.QClass))
	if err := p.addr(e.Client); err != nil {
		return err
	}
	for field, text := range [numTexts]*string{&e.ClientName, &e.Protocol, &e.QName, &e.Upstream, &e.List} {
		if err := p.text(field, *text); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) number(n uint64) {
	if n < 0x80 {
		p.raw = append(p.raw, byte(n))
		return
	}
	p.raw = binary.AppendUvarint(p.raw, n)
}

func (p *packer) string(s string) {
	p.number(uint64(len(s)))
	p.raw = append(p.raw, s...)
}

// text writes 0 and the text where it is new, otherwise its number.
func (p *packer) text(field int, s string) error {
	last := &p.last[field]
	if last.ref != 0 && last.text == s {
		p.number(last.ref)
		return nil
	}
	ref, known := p.texts[s]
	if known {
		p.number(ref)
	} else {
		if !validText(s) {
			return errText
		}
		ref = uint64(len(p.texts)) + 1
		p.texts[s] = ref
		p.number(0)
		p.string(s)
	}
	*last = remembered{s, ref}
	return nil
}

// addr does the same for an address: its length is 0, 4 or 16 bytes.
func (p *packer) addr(a netip.Addr) error {
	ref, known := p.addrs[a]
	if known {
		p.number(ref)
		return nil
	}
	if a.Zone() != "" {
		return errAddr
	}
	p.addrs[a] = uint64(len(p.addrs)) + 1
	p.number(0)
	switch {
	case a.Is4():
		b := a.As4()
		p.raw = append(append(p.raw, 4), b[:]...)
	case a.Is6():
		b := a.As16()
		p.raw = append(append(p.raw, 16), b[:]...)
	default:
		p.raw = append(p.raw, 0)
	}
	return nil
}
