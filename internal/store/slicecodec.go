package store

import (
	"encoding/json"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"dnsfleet/internal/fleet"
)

// maxSliceBytes bounds what a stored slice may grow to when it is read; a slice with 64 upstreams stays below it.
const maxSliceBytes = 4 << 20

// SliceCodec turns slices into the bytes that adapters keep: zstd over their JSON, which a sketch's long runs of
// small numbers shrink to about a fifth. It may be used concurrently.
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
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode slice: %w", err)
	}
	return c.enc.EncodeAll(text, nil), nil
}

// Decode reads what Encode wrote. Bytes that are no valid slice, or would grow beyond all measure, are an error.
func (c *SliceCodec) Decode(b []byte) (fleet.Slice, error) {
	text, err := c.dec.DecodeAll(b, nil)
	if err != nil {
		return fleet.Slice{}, fmt.Errorf("decode slice: %w", err)
	}
	var s fleet.Slice
	if err := json.Unmarshal(text, &s); err != nil {
		return fleet.Slice{}, fmt.Errorf("decode slice: %w", err)
	}
	if err := s.Validate(); err != nil {
		return fleet.Slice{}, fmt.Errorf("decode slice: %w", err)
	}
	s.Start = s.Start.UTC()
	return s, nil
}
