package store_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store"
)

func newCodec(t testing.TB) *store.SliceCodec {
	t.Helper()
	c, err := store.NewSliceCodec()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func busySlice() fleet.Slice {
	s := fleet.Slice{Size: fleet.Minute, Start: time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC), BootID: "boot1"}
	var durations []time.Duration
	for i := range 3000 {
		durations = append(durations, time.Duration(i*i)*time.Microsecond)
	}
	s.Outcomes[fleet.Upstream] = 3000
	s.Latency = fleet.NewLatency(durations...)
	s.Upstreams = []fleet.UpstreamSlice{{Address: "udp://192.0.2.1:53", Count: 3000, Latency: s.Latency.Copy()}}
	return s
}

func TestSliceCodecRefusesWhatIsNoSlice(t *testing.T) {
	t.Parallel()
	c := newCodec(t)
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	pack := func(text string) []byte { return enc.EncodeAll([]byte(text), nil) }
	if _, err := c.Decode(pack("\x3d" + `{"size":"1m","start":"2026-01-02T03:00:00Z","boot_id":"boot"}` + "\x00")); err != nil {
		t.Fatalf("the slice that the cases spoil is refused itself: %v", err)
	}
	for name, b := range map[string][]byte{
		"nothing":                   {},
		"plain text":                []byte("{}"),
		"packed text":               pack("hello"),
		"an empty slice":            pack("\x02{}\x00"),
		"a size that is none":       pack("\x3d" + `{"size":"5m","start":"2026-01-02T03:00:00Z","boot_id":"boot"}` + "\x00"),
		"a sketch that is missing":  pack("\x3d" + `{"size":"1m","start":"2026-01-02T03:00:00Z","boot_id":"boot"}`),
		"a sketch that is cut off":  pack("\x3d" + `{"size":"1m","start":"2026-01-02T03:00:00Z","boot_id":"boot"}` + "\x09\x01"),
		"a sketch that is nonsense": pack("\x3d" + `{"size":"1m","start":"2026-01-02T03:00:00Z","boot_id":"boot"}` + "\x02\xff\xff"),
		"a bomb of 10 MiB of zeros": enc.EncodeAll(make([]byte, 10<<20), nil),
	} {
		if got, err := c.Decode(b); err == nil {
			t.Errorf("%s: got %+v, want an error", name, got)
		}
	}
}

// FuzzSliceCodec: any bytes are either refused, or a valid slice that comes through the codec again unchanged.
func FuzzSliceCodec(f *testing.F) {
	c := newCodec(f)
	seed, err := c.Encode(busySlice())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte("(\xb5/\xfd"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := c.Decode(b)
		if err != nil {
			return
		}
		if err := s.Validate(); err != nil {
			t.Fatalf("decoded an invalid slice: %v", err)
		}
		once, err := c.Encode(s)
		if err != nil {
			t.Fatalf("encode what was decoded: %v", err)
		}
		again, err := c.Decode(once)
		if err != nil {
			t.Fatalf("decode what was encoded: %v", err)
		}
		twice, err := c.Encode(again)
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("the slice changed: %v", err)
		}
	})
}

func BenchmarkSliceCodec(b *testing.B) {
	c := newCodec(b)
	s := busySlice()
	packed, err := c.Encode(s)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportMetric(float64(len(packed)), "bytes")
		for b.Loop() {
			if _, err := c.Encode(s); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.Decode(packed); err != nil {
				b.Fatal(err)
			}
		}
	})
}
