package store_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
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

func hourSlice() fleet.Slice {
	s := busySlice()
	s.Size, s.Start = fleet.Hour, s.Start.Truncate(time.Hour)
	for i := range 3000 {
		s.Clients.Add(fmt.Append(nil, "client", i))
	}
	for i := range fleet.TopOfHour {
		s.TopDomains = append(s.TopDomains, fleet.TopItem{Name: fmt.Sprintf("host%d.name%d.example", i%3, i*i), Count: uint64(100_000 / (i + 1)), ErrorBound: 17})
	}
	s.TopBlocked, s.TopClients = s.TopDomains[:50], s.TopDomains[50:]
	return s
}

func TestSliceCodecKeepsSketches(t *testing.T) {
	t.Parallel()
	c := newCodec(t)
	ten := busySlice()
	ten.Size, ten.Start = fleet.TenMinutes, ten.Start.Truncate(10*time.Minute)
	ten.Clients.Add([]byte("one"))
	for name, want := range map[string]fleet.Slice{"none": busySlice(), "clients": ten, "clients and tops": hourSlice()} {
		packed, err := c.Encode(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Decode(packed)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !got.Clients.Equal(want.Clients) || !slices.Equal(got.TopDomains, want.TopDomains) || !slices.Equal(got.TopBlocked, want.TopBlocked) ||
			!slices.Equal(got.TopClients, want.TopClients) || got.Latency.Count() != 3000 {
			t.Errorf("%s: got %+v, want %+v", name, got.Sketches, want.Sketches)
		}
	}
}

// storedBefore is what a release stored that knew no sketches of clients.
const storedBefore = "KLUv/QAA/QQA0kokJoCnDR2h288AA0BMr2TOpaT4JoUkRrF6AndXb92Z8mmNYYBqO91WqgmqkUEVQa8aHaAASPE7whjfE+PLZkLl6SzBClnIImuhkoQdN8/vftG59geA3+nnFyjNk43gCWJ8pr0o25l/+P0YqMgJn674bhGQEA48vbHLiGW2jLWH2kOxdp0vY5P9dEad/wyW/lM4CAMAKIUD5bMK9ip7"

func TestSliceCodecReadsOlderBytes(t *testing.T) {
	t.Parallel()
	c := newCodec(t)
	old, err := base64.StdEncoding.DecodeString(storedBefore)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Decode(old)
	if err != nil || s.Size != fleet.Minute || s.BootID != "boot1" || s.Outcomes[fleet.Upstream] != 3 || s.Latency.Count() != 3 ||
		len(s.Upstreams) != 1 || s.Upstreams[0].Latency.Count() != 2 || !s.Clients.IsZero() || s.TopDomains != nil {
		t.Errorf("got %+v, %v, want the slice that was stored", s, err)
	}
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
		"clients that are nonsense": pack("\x3d" + `{"size":"1h","start":"2026-01-02T03:00:00Z","boot_id":"boot"}` + "\x00\x02\xff\xff"),
		"clients that are cut off":  pack("\x3d" + `{"size":"1h","start":"2026-01-02T03:00:00Z","boot_id":"boot"}` + "\x00\x09\x01"),
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
	if seed, err = c.Encode(hourSlice()); err != nil {
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
	for name, s := range map[string]fleet.Slice{"minute": busySlice(), "hour": hourSlice()} {
		b.Run(name, func(b *testing.B) { benchmarkCodec(b, s) })
	}
}

func benchmarkCodec(b *testing.B, s fleet.Slice) {
	b.Helper()
	c := newCodec(b)
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
