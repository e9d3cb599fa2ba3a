package batch_test

import (
	"testing"

	"github.com/klauspost/compress/zstd"
)

// packing makes a batch of its uncompressed bytes.
func packing(t testing.TB) func(raw []byte) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	return func(raw []byte) []byte { return enc.EncodeAll(raw, []byte{1}) }
}

func unpacked(t testing.TB, packed []byte) []byte {
	t.Helper()
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	raw, err := dec.DecodeAll(packed[1:], nil)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// bomb is few bytes that become size zeros.
func bomb(t testing.TB, size int) []byte {
	t.Helper()
	return packing(t)(make([]byte, size))
}
