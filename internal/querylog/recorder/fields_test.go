package recorder_test

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/batch"
	"dnsfleet/internal/querylog/recorder"
)

// echo gives a function that tells what becomes of an event. All share the recorder, and its memory of those before.
func echo() func(t *testing.T, lane int, e fleet.QueryEvent) fleet.QueryEvent {
	var got []fleet.QueryEvent
	r := recorder.New(recorder.Options{InstanceID: "kitchen", BootID: "5f3c", MaxEvents: 64, Lend: true, Sink: sinkFunc(func(b querylog.Batch) {
		got = append(got, b.Events...)
	})})
	return func(t *testing.T, lane int, e fleet.QueryEvent) fleet.QueryEvent {
		t.Helper()
		got = nil
		recordBorrowed(r, lane, e)
		r.Flush(t.Context())
		if len(got) != 1 {
			t.Fatalf("got %d events, want 1", len(got))
		}
		return got[0]
	}
}

func TestOneOddThingIsMended(t *testing.T) {
	told := echo()
	for name, change := range map[string]func(e *fleet.QueryEvent){
		"nothing":                        func(*fleet.QueryEvent) {},
		"no time":                        func(e *fleet.QueryEvent) { e.Time = time.Time{} },
		"a time before 1970":             func(e *fleet.QueryEvent) { e.Time = time.Unix(-1, 0) },
		"a time at the end of all":       func(e *fleet.QueryEvent) { e.Time = time.Unix(4_294_943_999, 999_999_999) },
		"a time after it":                func(e *fleet.QueryEvent) { e.Time = time.Unix(4_294_944_000, 0) },
		"a time in another zone":         func(e *fleet.QueryEvent) { e.Time = e.Time.In(time.FixedZone("x", 3600)) },
		"no client":                      func(e *fleet.QueryEvent) { e.Client = netip.Addr{} },
		"a client with IPv6":             func(e *fleet.QueryEvent) { e.Client = netip.MustParseAddr("2001:db8::1") },
		"a client with IPv4 in IPv6":     func(e *fleet.QueryEvent) { e.Client = netip.MustParseAddr("::ffff:10.0.0.1") },
		"a client with a zone":           func(e *fleet.QueryEvent) { e.Client = netip.MustParseAddr("fe80::1%eth0") },
		"a client with no address":       func(e *fleet.QueryEvent) { e.Client = netip.IPv6Unspecified() },
		"a client that is not UTF-8":     func(e *fleet.QueryEvent) { e.ClientName = "\xff" },
		"a client with a long name":      func(e *fleet.QueryEvent) { e.ClientName = strings.Repeat("é", 600) },
		"a protocol that is not UTF-8":   func(e *fleet.QueryEvent) { e.Protocol = "u\xffp" },
		"an upstream with a long name":   func(e *fleet.QueryEvent) { e.Upstream = strings.Repeat("u", 1025) },
		"a list that is not UTF-8":       func(e *fleet.QueryEvent) { e.List = "\xff" },
		"no name":                        func(e *fleet.QueryEvent) { e.QName = "" },
		"the root":                       func(e *fleet.QueryEvent) { e.QName = "." },
		"a name that is not UTF-8":       func(e *fleet.QueryEvent) { e.QName = "a\xffb." },
		"the longest name of DNS":        func(e *fleet.QueryEvent) { e.QName = strings.Repeat("\\001", 254) },
		"a long name that is not UTF-8":  func(e *fleet.QueryEvent) { e.QName = strings.Repeat("\xff", 300) },
		"a name as long as one may be":   func(e *fleet.QueryEvent) { e.QName = strings.Repeat("x", 1024) },
		"a longer name":                  func(e *fleet.QueryEvent) { e.QName = strings.Repeat("x", 1025) },
		"a name that mends to a word":    func(e *fleet.QueryEvent) { e.QName = strings.Repeat("\xff", 100_000) + "x" },
		"the last outcome":               func(e *fleet.QueryEvent) { e.Outcome = fleet.Dropped },
		"an outcome that is none":        func(e *fleet.QueryEvent) { e.Outcome = fleet.NumOutcomes },
		"a code below 0":                 func(e *fleet.QueryEvent) { e.RCode = -1 },
		"the last code":                  func(e *fleet.QueryEvent) { e.RCode = 4095 },
		"a code after it":                func(e *fleet.QueryEvent) { e.RCode = 4096 },
		"a code that looks like another": func(e *fleet.QueryEvent) { e.RCode = 65536 },
		"a duration below 0":             func(e *fleet.QueryEvent) { e.Duration = -1 },
		"the least duration":             func(e *fleet.QueryEvent) { e.Duration = math.MinInt64 },
		"a duration of an hour":          func(e *fleet.QueryEvent) { e.Duration = time.Hour },
		"a duration of more than a day":  func(e *fleet.QueryEvent) { e.Duration = 25 * time.Hour },
		"the largest duration":           func(e *fleet.QueryEvent) { e.Duration = math.MaxInt64 },
	} {
		t.Run(name, func(t *testing.T) {
			e := event(7)
			change(&e)
			got := told(t, 1, e)
			if batch.Clean(&e); got != e {
				t.Errorf("got %+v, want %+v", got, e)
			}
		})
	}
}

// FuzzRecord holds that an event comes out as it went in, but as batch.Clean would have it.
func FuzzRecord(f *testing.F) {
	f.Add(int64(1_790_000_000), int64(123_456_789), []byte{192, 168, 1, 7}, "", "tv", "udp", "www.example.", "udp://9.9.9.9:53", "ads", uint16(1), uint16(1), uint8(0), 3, int64(80_000), 1)
	f.Add(int64(-1), int64(0), []byte("0123456789abcdef"), "eth0", "\xff", "\x00", "a\xffb.", strings.Repeat("é", 600), strings.Repeat("x", 1025), uint16(65535), uint16(0), uint8(99), -1, int64(-1), -1)
	told := echo()
	f.Fuzz(func(t *testing.T, seconds, nanos int64, address []byte, zone, name, proto, qname, up, list string, qtype, qclass uint16, outcome uint8, rcode int, took int64, lane int) {
		e := fleet.QueryEvent{
			Time: time.Unix(seconds, nanos), ClientName: name, Protocol: proto, QName: qname, QType: qtype, QClass: qclass,
			Outcome: fleet.Outcome(outcome), RCode: rcode, Duration: time.Duration(took), Upstream: up, List: list,
		}
		e.Client, _ = netip.AddrFromSlice(address)
		if e.Client.Is6() {
			e.Client = e.Client.WithZone(zone)
		}
		got := told(t, lane, e)
		if batch.Clean(&e); got != e {
			t.Errorf("got %+v, want %+v", got, e)
		}
	})
}

func TestFieldsOfManyKindsStayWithTheirEvents(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	text := func(n int) string { // texts of one length that differ in the middle only
		return strings.Repeat("t", rng.IntN(3)) + strconv.Itoa(100+rng.IntN(n)) + "t"
	}
	out := &sink{}
	r := recorder.New(recorder.Options{InstanceID: "kitchen", BootID: "5f3c", Sink: out})
	var want []fleet.QueryEvent
	start := time.Now()
	for i := range 20_000 {
		e := fleet.QueryEvent{
			Time: start.Add(time.Duration(i) * time.Microsecond), QName: text(900), QType: uint16(rng.Uint32()), QClass: uint16(rng.Uint32()),
			Outcome: fleet.Outcome(rng.IntN(fleet.NumOutcomes)), RCode: rng.IntN(4096), Duration: time.Duration(rng.Int64N(int64(24 * time.Hour))),
		}
		for _, field := range []*string{&e.ClientName, &e.Protocol, &e.Upstream, &e.List} {
			if rng.IntN(4) > 0 {
				*field = text(1 + i/50)
			}
		}
		switch rng.IntN(3) {
		case 0:
			e.Client = netip.AddrFrom4([4]byte{byte(rng.Uint32()), 1, 2, 3})
		case 1:
			e.Client = netip.AddrFrom16([16]byte{15: byte(rng.Uint32())})
		}
		recordBorrowed(r, rng.IntN(4), e)
		batch.Clean(&e)
		want = append(want, e)
		if i%3000 == 0 {
			r.Flush(t.Context())
		}
	}
	r.Flush(t.Context())
	var got []fleet.QueryEvent
	for _, b := range out.batches {
		got = append(got, b.Events...)
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("event %d: got %+v, want %+v", i, got[i], want[i])
		}
	}
	expect(t, "events", len(got), len(want))
}
