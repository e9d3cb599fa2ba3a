package batch_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/batch"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func codec(t testing.TB) *batch.Codec {
	t.Helper()
	c, err := batch.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// traffic is a batch of n events that look like those of a household.
func traffic(n int) querylog.Batch {
	rng := rand.New(rand.NewPCG(1, 2))
	b := querylog.Batch{InstanceID: "kitchen", BootID: "5f3c", Seq: 7}
	at := noon
	for range n {
		at = at.Add(time.Duration(rng.IntN(100)) * time.Microsecond)
		e := fleet.QueryEvent{
			Time: at, Client: netip.AddrFrom4([4]byte{192, 168, 1, byte(rng.IntN(40))}), Protocol: "udp",
			QName: fmt.Sprintf("host%d.example%d.com.", rng.IntN(20), int(rng.ExpFloat64()*200)),
			QType: []uint16{1, 28, 65}[rng.IntN(3)], QClass: 1, Outcome: fleet.Cached, Duration: time.Duration(rng.IntN(400)) * time.Microsecond,
		}
		switch rng.IntN(4) {
		case 0:
			e.Outcome, e.List = fleet.Blocked, "ads"
		case 1:
			e.Outcome, e.Upstream, e.Duration = fleet.Upstream, "udp://9.9.9.9:53", time.Duration(rng.IntN(90_000))*time.Microsecond
		}
		b.Events = append(b.Events, e)
	}
	return b
}

func same(t testing.TB, got, want querylog.Batch) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("batch, -want +got:\n%s", diff)
	}
}

func TestABatchComesBackAsItWas(t *testing.T) {
	c := codec(t)
	event := traffic(1).Events[0]
	with := func(change func(*fleet.QueryEvent)) querylog.Batch {
		e := event
		change(&e)
		return querylog.Batch{InstanceID: "a", BootID: "b", Seq: 1, Events: []fleet.QueryEvent{event, e}}
	}
	for name, b := range map[string]querylog.Batch{
		"with as many events as it may have": traffic(batch.MaxEvents),
		"with one event":                     traffic(1),
		"with an event of zeros":             {InstanceID: "a", BootID: "b", Seq: fleet.MaxCount, Events: []fleet.QueryEvent{{Time: time.UnixMicro(0).UTC()}}},
		"with a client by IPv6":              with(func(e *fleet.QueryEvent) { e.Client = netip.MustParseAddr("2001:db8::1") }),
		"with a client by mapped IPv4":       with(func(e *fleet.QueryEvent) { e.Client = netip.MustParseAddr("::ffff:192.0.2.1") }),
		"without a client":                   with(func(e *fleet.QueryEvent) { e.Client = netip.Addr{} }),
		"with one text in every place": with(func(e *fleet.QueryEvent) {
			e.ClientName, e.Protocol, e.QName, e.Upstream, e.List = "x", "x", "x", "x", "x"
		}),
		"with the longest text":           with(func(e *fleet.QueryEvent) { e.QName = strings.Repeat("ä", batch.MaxText/2) }),
		"with the largest numbers":        with(func(e *fleet.QueryEvent) { e.QType, e.QClass, e.RCode, e.Duration = 65535, 65535, 4095, 24*time.Hour }),
		"with the last outcome":           with(func(e *fleet.QueryEvent) { e.Outcome = fleet.NumOutcomes - 1 }),
		"with the last moment of the day": with(func(e *fleet.QueryEvent) { e.Time = noon.Add(12*time.Hour - time.Microsecond) }),
		"with the last moment of all":     {InstanceID: "a", BootID: "b", Seq: 1, Events: []fleet.QueryEvent{{Time: time.Date(2106, 2, 6, 23, 59, 59, 999_999_000, time.UTC)}}},
	} {
		t.Run(name, func(t *testing.T) {
			packed, err := c.Encode(b)
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.Decode(packed)
			if err != nil {
				t.Fatal(err)
			}
			same(t, got, b)
		})
	}
}

func TestWhatIsNoBatchIsNotEncoded(t *testing.T) {
	c := codec(t)
	for name, change := range map[string]func(*querylog.Batch){
		"no instance":              func(b *querylog.Batch) { b.InstanceID = "" },
		"an instance with a space": func(b *querylog.Batch) { b.InstanceID = "a b" },
		"no boot":                  func(b *querylog.Batch) { b.BootID = "" },
		"no number":                func(b *querylog.Batch) { b.Seq = 0 },
		"too large a number":       func(b *querylog.Batch) { b.Seq = fleet.MaxCount + 1 },
		"no events":                func(b *querylog.Batch) { b.Events = nil },
		"too many events":          func(b *querylog.Batch) { b.Events = traffic(batch.MaxEvents + 1).Events },
		"events of two days":       func(b *querylog.Batch) { b.Events[2].Time = noon.Add(12 * time.Hour) },
		"events in disorder":       func(b *querylog.Batch) { b.Events[2].Time = noon.Add(-time.Hour) },
		"a time before 1970":       func(b *querylog.Batch) { b.Events = b.Events[:1]; b.Events[0].Time = time.Time{} },
		"a time on the day in which ClickHouse's end": func(b *querylog.Batch) {
			b.Events = b.Events[:1]
			b.Events[0].Time = time.Date(2106, 2, 7, 0, 0, 0, 0, time.UTC)
		},
		"a negative duration":  func(b *querylog.Batch) { b.Events[1].Duration = -1 },
		"a duration of days":   func(b *querylog.Batch) { b.Events[1].Duration = 25 * time.Hour },
		"an unknown outcome":   func(b *querylog.Batch) { b.Events[1].Outcome = fleet.NumOutcomes },
		"a negative rcode":     func(b *querylog.Batch) { b.Events[1].RCode = -1 },
		"too large an rcode":   func(b *querylog.Batch) { b.Events[1].RCode = 4096 },
		"a text that is long":  func(b *querylog.Batch) { b.Events[1].ClientName = strings.Repeat("a", batch.MaxText+1) },
		"a text in no UTF-8":   func(b *querylog.Batch) { b.Events[1].List = "\xff" },
		"a client with a zone": func(b *querylog.Batch) { b.Events[1].Client = netip.MustParseAddr("fe80::1%eth0") },
		"too many bytes": func(b *querylog.Batch) {
			b.Events = traffic(batch.MaxEvents).Events
			for i := range b.Events {
				b.Events[i].QName = fmt.Sprintf("%01000d", i)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := traffic(3)
			change(&b)
			if _, err := c.Encode(b); !errors.Is(err, fleet.ErrInvalid) {
				t.Errorf("got %v, want %v", err, fleet.ErrInvalid)
			}
		})
	}
}

func TestCleanEventsMakeBatchesThatCanBeEncoded(t *testing.T) {
	c := codec(t)
	long := strings.Repeat("ä€", 2000)
	dirty := []fleet.QueryEvent{
		{},
		{Time: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), Duration: -5, RCode: -1, Outcome: 200},
		{Time: time.Now(), Duration: 1 << 62, RCode: 1 << 40, Client: netip.MustParseAddr("fe80::1%eth0"), QName: long},
		{Time: noon.In(time.FixedZone("", 3600)), ClientName: "a\xffb", Protocol: long, Upstream: "\xc3", List: strings.Repeat("\xff", 3000)},
	}
	for _, e := range dirty {
		batch.Clean(&e)
		packed, err := c.Encode(querylog.Batch{InstanceID: "a", BootID: "b", Seq: 1, Events: []fleet.QueryEvent{e}})
		if err != nil {
			t.Errorf("%+v: %v", e, err)
			continue
		}
		got, err := c.Decode(packed)
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, querylog.Batch{InstanceID: "a", BootID: "b", Seq: 1, Events: []fleet.QueryEvent{e}})
	}
	e := dirty[3]
	batch.Clean(&e)
	if got, want := e.ClientName, "a\uFFFDb"; got != want {
		t.Errorf("a name with a foreign byte: got %q, want %q", got, want)
	}
	if got := len(e.Protocol); got > batch.MaxText || got < batch.MaxText-3 || !strings.HasPrefix(long, e.Protocol) {
		t.Errorf("a long text: got %d bytes, want its first, %d or a rune less", got, batch.MaxText)
	}
	good := traffic(1).Events[0]
	e = good
	if batch.Clean(&e); e != good {
		t.Errorf("a clean event: got %+v, want it as it was, %+v", e, good)
	}
}

func TestEventsAreCutIntoBatches(t *testing.T) {
	c := codec(t)
	midnight := noon.Add(12 * time.Hour)
	day := func(n int, at time.Time) []fleet.QueryEvent {
		events := traffic(n).Events
		for i := range events {
			events[i].Time = at
		}
		return events
	}
	fat := day(batch.MaxEvents, noon)
	for i := range fat {
		long := fmt.Sprintf("%0*d", batch.MaxText, i)
		fat[i].QName, fat[i].ClientName, fat[i].Protocol, fat[i].Upstream, fat[i].List = long, "a"+long[1:], "b"+long[1:], "c"+long[1:], "d"+long[1:]
	}
	for name, test := range map[string]struct {
		events []fleet.QueryEvent
		want   []int // nil: any
	}{
		"none":                  {nil, []int{}},
		"few":                   {day(3, noon), []int{3}},
		"more than a batch has": {day(batch.MaxEvents+1, noon), []int{batch.MaxEvents, 1}},
		"of three days":         {append(append(day(2, noon), day(3, midnight)...), day(1, midnight.Add(24*time.Hour))...), []int{2, 3, 1}},
		"around midnight":       {append(day(1, midnight.Add(-time.Microsecond)), day(1, midnight)...), []int{1, 1}},
		"with much text":        {fat, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := []int{}
			total := 0
			for rest := test.events; len(rest) > 0; {
				n := batch.Cut(rest)
				if n < 1 {
					t.Fatalf("got a cut of %d", n)
				}
				if _, err := c.Encode(querylog.Batch{InstanceID: "a", BootID: "b", Seq: 1, Events: rest[:n]}); err != nil {
					t.Fatalf("a cut of %d: %v", n, err)
				}
				got, total, rest = append(got, n), total+n, rest[n:]
			}
			if test.want != nil && !cmp.Equal(got, test.want) || total != len(test.events) {
				t.Errorf("got cuts of %v, %d in all, want %v", got, total, test.want)
			}
		})
	}
}

func TestForeignBytesAreNoBatch(t *testing.T) {
	c := codec(t)
	packed, err := c.Encode(traffic(50))
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string][]byte{
		"nothing":            nil,
		"only a version":     {1},
		"another version":    append([]byte{2}, packed[1:]...),
		"text":               []byte(`{"events":[]}`),
		"more than a batch":  append(append([]byte{}, packed...), packed[1:]...),
		"too many bytes":     make([]byte, batch.MaxPacked+1),
		"a bomb":             bomb(t, 64<<20),
		"a bomb of its size": bomb(t, batch.MaxBytes),
	}
	for i := range packed {
		cases[fmt.Sprintf("cut after %d bytes", i)] = packed[:i]
	}
	for name, b := range cases {
		if _, err := c.Decode(b); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%s: got %v, want %v", name, err, fleet.ErrInvalid)
		}
	}
}

func FuzzDecode(f *testing.F) {
	c := codec(f)
	packed, err := c.Encode(traffic(20))
	if err != nil {
		f.Fatal(err)
	}
	pack := packing(f)
	f.Add(unpacked(f, packed))
	f.Add([]byte("\x01a\x01b\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x01\x01\x01\x01"))
	// The bytes are those below the compression: what passes Decode is within every limit and comes back from Encode.
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := c.Decode(pack(raw))
		if err != nil {
			if !errors.Is(err, fleet.ErrInvalid) {
				t.Fatalf("got %v, want %v", err, fleet.ErrInvalid)
			}
			return
		}
		day := b.Events[0].Time.Format(time.DateOnly)
		for i, e := range b.Events {
			clean := e
			if batch.Clean(&clean); clean != e {
				t.Errorf("event %d: got %+v, want a clean one, %+v", i, e, clean)
			}
			if got := e.Time.Format(time.DateOnly); got != day || i > 0 && e.Time.Before(b.Events[i-1].Time) {
				t.Errorf("event %d: got %v, want it of %s and not before the one before", i, e.Time, day)
			}
			if !utf8.ValidString(e.QName) {
				t.Errorf("event %d: got name %q, want UTF-8", i, e.QName)
			}
		}
		if len(b.Events) > batch.MaxEvents || !fleet.ValidID(b.InstanceID) || !fleet.ValidID(b.BootID) || b.Seq == 0 {
			t.Errorf("got %s/%s/%d with %d events, want a batch within the limits", b.InstanceID, b.BootID, b.Seq, len(b.Events))
		}
		again, err := c.Encode(b)
		if err != nil {
			t.Fatal(err)
		}
		back, err := c.Decode(again)
		if err != nil {
			t.Fatal(err)
		}
		same(t, back, b)
	})
}

func FuzzDecodePacked(f *testing.F) {
	c := codec(f)
	packed, err := c.Encode(traffic(20))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	// Whatever the bytes are, Decode says ErrInvalid or returns a batch within the limits.
	f.Fuzz(func(t *testing.T, packed []byte) {
		b, err := c.Decode(packed)
		if err == nil && (len(b.Events) == 0 || len(b.Events) > batch.MaxEvents) || err != nil && !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("got %d events and %v", len(b.Events), err)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	c := codec(b)
	in := traffic(batch.MaxEvents)
	size := 0
	for b.Loop() {
		packed, err := c.Encode(in)
		if err != nil {
			b.Fatal(err)
		}
		size = len(packed)
	}
	perEvent(b, float64(size))
}

func BenchmarkDecode(b *testing.B) {
	c := codec(b)
	packed, err := c.Encode(traffic(batch.MaxEvents))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := c.Decode(packed); err != nil {
			b.Fatal(err)
		}
	}
	perEvent(b, float64(len(packed)))
}

func perEvent(b *testing.B, size float64) {
	b.Helper()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch.MaxEvents, "ns/event")
	b.ReportMetric(size/batch.MaxEvents, "B/event")
}
