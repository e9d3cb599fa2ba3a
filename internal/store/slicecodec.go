package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"dnsfleet/internal/fleet"
)

// maxSliceBytes bounds what a stored slice may grow to when it is read; a slice with 64 upstreams stays below it.
const maxSliceBytes = 1 << 20

// SliceCodec turns slices into the bytes that adapters keep: zstd over their JSON without the sketches, then the sketches
// of latency in their short form, then that of clients if there is one. That is a fifth to a tenth of the JSON with
// sketches, which is made for other programs. It may be used concurrently. Releases before there were sketches of clients
// wrote the same without it, and read what this one writes.
type SliceCodec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

// NewSliceCodec makes a codec. It holds about a megabyte, so a store has one.
func NewSliceCodec() (*SliceCodec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(2), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("slice codec: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxSliceBytes))
	if err != nil {
		return nil, fmt.Errorf("slice codec: %w", err)
	}
	return &SliceCodec{enc, dec}, nil
}

// Encode is the bytes of a slice.
func (c *SliceCodec) Encode(s fleet.Slice) ([]byte, error) {
	sketches := []fleet.Latency{s.Latency}
	bare := s
	bare.Latency, bare.Clients = fleet.Latency{}, fleet.Uniques{}
	if s.Upstreams != nil {
		bare.Upstreams = make([]fleet.UpstreamSlice, len(s.Upstreams))
	}
	for i, u := range s.Upstreams {
		sketches = append(sketches, u.Latency)
		u.Latency = fleet.Latency{}
		bare.Upstreams[i] = u
	}
	text, err := json.Marshal(bare)
	if err != nil {
		return nil, fmt.Errorf("encode slice: %w", err)
	}
	b := appendPart(make([]byte, 0, 2<<10), text)
	var sketch []byte
	for _, l := range sketches {
		if sketch, err = l.AppendBinary(sketch[:0]); err != nil {
			return nil, fmt.Errorf("encode slice: %w", err)
		}
		b = appendPart(b, sketch)
	}
	if !s.Clients.IsZero() {
		if sketch, err = s.Clients.AppendBinary(sketch[:0]); err != nil {
			return nil, fmt.Errorf("encode slice: %w", err)
		}
		b = appendPart(b, sketch)
	}
	return c.enc.EncodeAll(b, nil), nil
}

// Decode reads what Encode wrote. Bytes that are no valid slice, or would grow beyond all measure, are an error.
func (c *SliceCodec) Decode(b []byte) (fleet.Slice, error) {
	s, err := c.decode(b)
	if err != nil {
		return fleet.Slice{}, fmt.Errorf("decode slice: %w", err)
	}
	return s, nil
}

func (c *SliceCodec) decode(packed []byte) (s fleet.Slice, err error) {
	b, err := c.dec.DecodeAll(packed, nil)
	if err != nil {
		return s, err
	}
	text, b, err := cutPart(b)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, err
	}
	into := []*fleet.Latency{&s.Latency}
	for i := range s.Upstreams {
		into = append(into, &s.Upstreams[i].Latency)
	}
	for _, l := range into {
		var sketch []byte
		if sketch, b, err = cutPart(b); err != nil {
			return s, err
		}
		if err := l.UnmarshalBinary(sketch); err != nil {
			return s, err
		}
	}
	if len(b) > 0 {
		sketch, _, err := cutPart(b)
		if err != nil {
			return s, err
		}
		if err := s.Clients.UnmarshalBinary(sketch); err != nil {
			return s, err
		}
	}
	s.Start = s.Start.UTC()
	return s, s.Validate()
}

func appendPart(b, part []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(part))), part...)
}

func cutPart(b []byte) (part, rest []byte, err error) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) {
		return nil, nil, errors.New("it ends too early")
	}
	return b[used : used+int(n)], b[used+int(n):], nil // n was compared with what is there
}
