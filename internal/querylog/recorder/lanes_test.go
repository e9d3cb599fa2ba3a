package recorder_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/batch"
	"dnsfleet/internal/querylog/recorder"
)

// borrowed is a string of the buffer's bytes: it changes with them, as the names do that the engine reads off a packet.
func borrowed(buffer []byte) string { return unsafe.String(unsafe.SliceData(buffer), len(buffer)) }

// recordBorrowed records an event whose name, and all else of it, is overwritten right after.
func recordBorrowed(r *recorder.Recorder, lane int, e fleet.QueryEvent) {
	buffer := []byte(e.QName)
	e.QName = borrowed(buffer)
	r.Record(lane, &e)
	for i := range buffer {
		buffer[i] = '!'
	}
	e = fleet.QueryEvent{QName: "overwritten."}
}

func TestAnEventIsTheCallersAgain(t *testing.T) {
	out := &sink{}
	r := recorder.New(recorder.Options{InstanceID: "kitchen", BootID: "5f3c", Sink: out})
	want := map[string]fleet.QueryEvent{}
	for i := range 3000 {
		e := event(i)
		e.QName = strings.Repeat("x", i%300) + e.QName
		recordBorrowed(r, i%3, e)
		batch.Clean(&e)
		want[e.QName] = e
	}
	r.Flush(t.Context())
	once(t, out, 3000)
	for _, b := range out.batches {
		for _, e := range b.Events {
			if e != want[e.QName] {
				t.Fatalf("got %+v, want %+v", e, want[e.QName])
			}
		}
	}
}

// tallySink notes which events came, and keeps nothing else, as a sink must to which rooms are lent.
type tallySink struct {
	t     *testing.T
	name  [20]byte
	times map[uint16][]uint8 // by lane and number
}

func (s *tallySink) Write(_ context.Context, b querylog.Batch) error {
	for i := range b.Events {
		e := &b.Events[i]
		n := int(e.Duration / time.Microsecond)
		if e.QName != string(strconv.AppendInt(s.name[:0], int64(n%70_000), 10)) {
			s.t.Errorf("event %d of lane %d: got the name %q of another", n, e.QType, e.QName)
		}
		s.times[e.QType][n]++
	}
	return nil
}

func TestOfAMillionEventsNoneIsLostOrDoubled(t *testing.T) {
	const each, lanes = 333_334, 3 // of a million events in all
	out := &tallySink{t: t, times: map[uint16][]uint8{}}
	for lane := range uint16(lanes) {
		out.times[lane] = make([]uint8, each)
	}
	r, stop := start(recorder.Options{Sink: out, Lend: true, Interval: 2 * time.Millisecond})
	var all sync.WaitGroup
	for lane := range lanes {
		all.Go(func() {
			var buffer [64]byte
			e := event(1)
			e.QType = uint16(lane)
			for n := range each {
				e.Time = e.Time.Add(time.Microsecond)
				e.Duration = time.Duration(n) * time.Microsecond
				e.QName = borrowed(strconv.AppendInt(buffer[:0], int64(n%70_000), 10))
				r.Record(lane, &e)
				if n%1000 == 0 && r.Stats().Waiting() > 60_000 { // nothing is to find no room
					r.Flush(t.Context())
				}
			}
		})
	}
	all.Wait()
	stop()
	for lane, times := range out.times {
		for n, got := range times {
			if got != 1 {
				t.Fatalf("event %d of lane %d: got it %d times, want once", n, lane, got)
			}
		}
	}
	st := r.Stats()
	expect(t, "stats", st, recorder.Stats{Recorded: each * lanes, Handed: each * lanes, Batches: st.Batches})
}

func TestWhatFindsNoRoomIsCountedExactly(t *testing.T) {
	for name, c := range map[string]struct{ lanes, length, least int }{
		"in one lane":                   {1, 20, 900},
		"in all lanes":                  {3, 20, 800},
		"with the longest names of DNS": {1, 1016, 40},
	} {
		t.Run(name, func(t *testing.T) {
			out := &sink{}
			r := recorder.New(recorder.Options{InstanceID: "kitchen", BootID: "5f3c", Sink: out, MaxEvents: 1000})
			for turn := range 3 {
				var all sync.WaitGroup
				for lane := range c.lanes {
					all.Go(func() {
						for i := range 2000 {
							e := event(turn<<20 | lane<<16 | i)
							e.QName = fmt.Sprintf("%0*d.", c.length, turn<<20|lane<<16|i)
							recordBorrowed(r, lane+c.lanes%2, e)
						}
					})
				}
				all.Wait()
				st := r.Stats()
				expect(t, "recorded and dropped", st.Recorded+st.Dropped, (turn+1)*2000*c.lanes)
				if got := st.Waiting(); got > 1000 || got < uint64(c.least) {
					t.Errorf("got %d events waiting, want about 1000 of this length and no more", got)
				}
				r.Flush(t.Context())
				expect(t, "waiting", r.Stats().Waiting(), 0)
			}
			once(t, out, int(r.Stats().Recorded))
		})
	}
}

func TestNamesTakeBoundedMemory(t *testing.T) {
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := heap()
	r := recorder.New(recorder.Options{Sink: &sink{answer: func(context.Context) error { return errDiscard }}, Lend: true, MaxEvents: 32 << 10})
	e, buffer := event(1), [250]byte{}
	for i := range 150_000 {
		e.QName = borrowed(strconv.AppendInt(buffer[:len(buffer)-20], int64(i), 10))
		r.Record(1, &e)
		if i%20_000 == 0 {
			r.Flush(t.Context())
		}
	}
	if st := r.Stats(); st.Dropped == 0 {
		t.Error("got no event dropped, want those that find no room")
	}
	if got := heap() - before; got > 24<<20 {
		t.Errorf("got %d MiB, want 4 of events and 10 of names and some", got>>20)
	}
	runtime.KeepAlive(r)
}

func TestAnyLaneIsSafe(t *testing.T) {
	out := &sink{}
	r := recorder.New(recorder.Options{InstanceID: "kitchen", BootID: "5f3c", Sink: out})
	lanes := []int{0, 1, 2, -1, 63, 64, 65, 1000, math.MaxInt, math.MinInt}
	for i, lane := range lanes {
		recordBorrowed(r, lane, event(i))
	}
	var all sync.WaitGroup
	for g := range 4 { // one lane for several is wrong, but nothing may break
		all.Go(func() {
			for i := range 1000 {
				recordBorrowed(r, 1, event(100+1000*g+i))
			}
		})
	}
	all.Wait()
	r.Flush(t.Context())
	once(t, out, len(lanes)+4000)
}

func TestEventsOfLanesComeInOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for name, next := range map[string]func(i int) int{
		"that take turns":                    func(i int) int { return i },
		"of which one is behind the other":   func(i int) int { return i - i%2*5000 },
		"that go back in time":               func(i int) int { return -i },
		"of one time":                        func(int) int { return 0 },
		"with an answer that was late":       func(i int) int { return i - i%500/499*400 },
		"in which answers end in any order":  func(int) int { return rng.IntN(1e6) },
		"after the clock was set back twice": func(i int) int { return i % 1000 },
	} {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{1, 2, 3, 511, 512, 513, 3000} {
				out := &sink{}
				r := recorder.New(recorder.Options{InstanceID: "kitchen", BootID: "5f3c", Sink: out})
				noon := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
				for i := range n {
					e := event(i)
					e.Time = noon.Add(time.Duration(next(i)) * time.Microsecond)
					recordBorrowed(r, 1+i%2+i%5/4*rng.IntN(3), e)
				}
				r.Flush(t.Context())
				once(t, out, n)
				if !slices.IsSortedFunc(out.batches[0].Events, func(a, b fleet.QueryEvent) int { return a.Time.Compare(b.Time) }) {
					t.Errorf("%d events: got them in disorder, want the oldest first", n)
				}
			}
		})
	}
}

func TestAPopularNameIsMadeOnce(t *testing.T) {
	out := &sink{}
	r := recorder.New(recorder.Options{InstanceID: "kitchen", BootID: "5f3c", Sink: out})
	for range 3 {
		for range 100 {
			recordBorrowed(r, 1, event(7))
		}
		r.Flush(t.Context())
	}
	places := map[*byte]bool{}
	for _, b := range out.batches {
		for _, e := range b.Events {
			places[unsafe.StringData(e.QName)] = true
		}
	}
	expect(t, "strings of one name", len(places), 1)
}

func TestRoomIsLentOnlyToASinkThatGivesItBack(t *testing.T) {
	for _, lend := range []bool{false, true} {
		var rooms []*fleet.QueryEvent
		r := recorder.New(recorder.Options{Sink: sinkFunc(func(b querylog.Batch) { rooms = append(rooms, &b.Events[0]) }), Lend: lend})
		for i := range 2 {
			record(r, event(i))
			r.Flush(t.Context())
		}
		expect(t, fmt.Sprintf("same room, lend = %v", lend), rooms[0] == rooms[1], lend)
	}
}

type sinkFunc func(querylog.Batch)

func (f sinkFunc) Write(_ context.Context, b querylog.Batch) error { f(b); return nil }

func TestTheWayToASinkDoesNotAllocate(t *testing.T) {
	r := recorder.New(recorder.Options{Sink: sinkFunc(func(querylog.Batch) {}), Lend: true})
	e, buffer, n := event(1), [64]byte{}, 0
	if got := testing.AllocsPerRun(200, func() {
		for i := range 2000 {
			n++
			e.Time = e.Time.Add(time.Microsecond)
			e.QName = borrowed(strconv.AppendInt(buffer[:0], int64(n%500), 10))
			r.Record(1+i/32%2, &e)
		}
		r.Flush(t.Context())
	}); got != 0 {
		t.Errorf("got %v allocations for 2,000 events, want 0", got)
	}
}
