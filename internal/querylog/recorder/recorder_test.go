package recorder_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/batch"
	"dnsfleet/internal/querylog/recorder"
)

// sink keeps batches and answers as it is told.
type sink struct {
	mu      sync.Mutex
	batches []querylog.Batch
	at      []time.Time
	answer  func(ctx context.Context) error // nil: stores at once
}

func (s *sink) Write(ctx context.Context, b querylog.Batch) error {
	if s.answer != nil {
		if err := s.answer(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batches = append(s.batches, b)
	s.at = append(s.at, time.Now())
	return nil
}

// counts is how often each event came, by its name.
func (s *sink) counts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := map[string]int{}
	for _, b := range s.batches {
		for _, e := range b.Events {
			n[e.QName]++
		}
	}
	return n
}

// start runs a recorder; the function it returns stops it and waits.
func start(o recorder.Options) (*recorder.Recorder, func()) {
	o.InstanceID, o.BootID = "kitchen", "5f3c"
	r := recorder.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := r.Run(ctx); err != nil {
			panic(err)
		}
	}()
	return r, func() { cancel(); <-ended }
}

func record(r *recorder.Recorder, e fleet.QueryEvent) { r.Record(0, &e) }

func event(i int) fleet.QueryEvent {
	return fleet.QueryEvent{
		Time: time.Now(), Client: netip.AddrFrom4([4]byte{192, 168, 1, byte(i)}), Protocol: "udp", QName: strconv.Itoa(i) + ".example.",
		QType: 1, QClass: 1, Outcome: fleet.Cached, Duration: 80 * time.Microsecond,
	}
}

func expect(t testing.TB, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s: got %s, want %s", what, g, w)
	}
}

// once says whether n events came, each once.
func once(t testing.TB, s *sink, n int) {
	t.Helper()
	counts := s.counts()
	for name, times := range counts {
		if times != 1 {
			t.Errorf("event %s: got it %d times, want it once", name, times)
		}
	}
	expect(t, "events", len(counts), n)
}

func TestEventsAreHandedOnWithinTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &sink{}
		r, stop := start(recorder.Options{Sink: out})
		defer stop()
		for i := range 100 {
			record(r, event(i))
			time.Sleep(37 * time.Millisecond)
		}
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		once(t, out, 100)
		for i, b := range out.batches {
			if age := out.at[i].Sub(b.Events[0].Time); age > 500*time.Millisecond {
				t.Errorf("batch %d: got its oldest event %v old, want at most 500ms", i, age)
			}
			expect(t, "identity", []any{b.InstanceID, b.BootID, b.Seq}, []any{"kitchen", "5f3c", i + 1})
		}
		expect(t, "stats", r.Stats(), recorder.Stats{Recorded: 100, Handed: 100, Batches: uint64(len(out.batches))})
	})
}

func TestManyEventsAreHandedOnAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &sink{}
		r, stop := start(recorder.Options{Sink: out, Interval: time.Hour})
		defer stop()
		for i := range 3 * batch.MaxEvents {
			record(r, event(i))
		}
		synctest.Wait()
		if got := r.Stats().Handed; got < 2*batch.MaxEvents {
			t.Errorf("got %d events before the interval, want most of %d", got, 3*batch.MaxEvents)
		}
		stop()
		once(t, out, 3*batch.MaxEvents)
		for _, b := range out.batches {
			if n := len(b.Events); n > batch.MaxEvents {
				t.Errorf("got a batch of %d, want at most %d", n, batch.MaxEvents)
			}
		}
	})
}

func TestABatchIsOfOneDayAndInOrder(t *testing.T) {
	out := &sink{}
	r, stop := start(recorder.Options{Sink: out, Interval: time.Hour})
	midnight := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	for i := range 1000 { // as answers end: not in the order in which queries came
		e := event(i)
		e.Time = midnight.Add(time.Duration(i*7919%1000-500) * time.Second).In(time.FixedZone("", 3600))
		record(r, e)
	}
	stop()
	once(t, out, 1000)
	expect(t, "batches", len(out.batches), 2)
	for _, b := range out.batches {
		first := b.Events[0].Time
		for _, e := range b.Events {
			expect(t, "day", e.Time.Format(time.DateOnly), first.UTC().Format(time.DateOnly))
		}
		if !slices.IsSortedFunc(b.Events, func(a, b fleet.QueryEvent) int { return a.Time.Compare(b.Time) }) {
			t.Error("got events in disorder, want the oldest first")
		}
	}
}

func TestEventsThatNoBatchMayHoldAreMended(t *testing.T) {
	out := &sink{}
	r, stop := start(recorder.Options{Sink: out})
	record(r, fleet.QueryEvent{QName: "a\xff", Outcome: 99, Duration: -1})
	stop()
	c, err := batch.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Encode(out.batches[0]); err != nil {
		t.Errorf("got %v, want a batch that can be encoded", err)
	}
}

func TestEventsOfAllCoresComeOnce(t *testing.T) {
	out := &sink{}
	r, stop := start(recorder.Options{Sink: out, Interval: time.Millisecond, WakeEvents: 100})
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 5000 {
				record(r, event(g*5000+i))
			}
		})
	}
	all.Wait()
	stop()
	expect(t, "dropped", r.Stats().Dropped, 0)
	once(t, out, 40_000)
}

func TestRoomComesBackWithEveryHandOver(t *testing.T) {
	out := &sink{}
	r := recorder.New(recorder.Options{Sink: out, MaxEvents: 4096})
	for i := range 40_000 {
		record(r, event(i))
		if i%2000 == 1999 {
			r.Flush(t.Context())
		}
	}
	expect(t, "dropped", r.Stats().Dropped, 0)
	once(t, out, 40_000)
}

func TestWhenTheSinkHangsEventsAreDroppedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		out := &sink{answer: func(context.Context) error { <-free; return nil }}
		r, stop := start(recorder.Options{Sink: out, MaxEvents: 4096})
		defer stop()
		before := time.Now()
		for i := range 100_000 {
			record(r, event(i))
			if i%1000 == 0 {
				synctest.Wait() // lets the recorder collect, and stay with the sink
			}
		}
		expect(t, "time that recording took", time.Since(before), time.Duration(0))
		st := r.Stats()
		expect(t, "recorded and dropped", st.Recorded+st.Dropped, 100_000)
		if got := st.Waiting(); got > 4096 || got < 3500 {
			t.Errorf("got %d events waiting, want about 4096 and no more", got)
		}
		close(free)
		time.Sleep(time.Second)
		synctest.Wait()
		once(t, out, int(st.Recorded))

		record(r, event(100_000)) // there is room again
		expect(t, "recorded", r.Stats().Recorded, st.Recorded+1)
	})
}

func TestBatchesThatNothingTakesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := true
		out := &sink{answer: func(context.Context) error {
			if away {
				return errors.New("away")
			}
			return nil
		}}
		r, stop := start(recorder.Options{Sink: out})
		defer stop()
		record(r, event(1))
		record(r, event(2))
		time.Sleep(time.Second)
		synctest.Wait()
		expect(t, "stats", r.Stats(), recorder.Stats{Recorded: 2, Refused: 2, Batches: 1})
		away = false
		record(r, event(3))
		time.Sleep(time.Second)
		synctest.Wait()
		expect(t, "stats", r.Stats(), recorder.Stats{Recorded: 3, Refused: 2, Handed: 1, Batches: 2})
		expect(t, "number of the second batch", out.batches[0].Seq, 2)
	})
}

func TestAStopHandsOnWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &sink{answer: func(ctx context.Context) error {
			time.Sleep(2 * time.Second)
			return ctx.Err()
		}}
		r, stop := start(recorder.Options{Sink: out, Interval: time.Second})
		record(r, event(1))
		time.Sleep(1500 * time.Millisecond) // the first is under way
		record(r, event(2))
		stop()
		once(t, out, 2)
		record(r, event(3))
		r.Flush(t.Context())
		once(t, out, 3)
	})
}

func TestAStopDoesNotWaitForASinkThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &sink{answer: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
		r, stop := start(recorder.Options{Sink: out})
		record(r, event(1))
		time.Sleep(time.Minute)
		record(r, event(2))
		before := time.Now()
		stop()
		expect(t, "time to stop", time.Since(before), 10*time.Second)
		expect(t, "refused", r.Stats().Refused, 2)
	})
}

func TestRecordingDoesNotAllocate(t *testing.T) {
	r := recorder.New(recorder.Options{Sink: &sink{}})
	e := event(1)
	if n := testing.AllocsPerRun(50_000, func() { record(r, e) }); n != 0 {
		t.Errorf("got %v allocations for each event, want 0", n)
	}
}

// BenchmarkRecord is what an event costs the one who answers, while all cores record.
func BenchmarkRecord(b *testing.B) {
	const each = 8192
	r := recorder.New(recorder.Options{Sink: &sink{answer: func(context.Context) error { return errDiscard }}})
	e := event(1)
	cores := runtime.GOMAXPROCS(0)
	b.ReportAllocs()
	for b.Loop() {
		var all sync.WaitGroup
		for range cores {
			all.Go(func() {
				for range each {
					record(r, e)
				}
			})
		}
		all.Wait()
		b.StopTimer()
		r.Flush(b.Context())
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())*float64(cores)/float64(b.N*cores*each), "ns/event")
	if dropped := r.Stats().Dropped; dropped > 0 {
		b.Errorf("got %d events dropped, want 0", dropped)
	}
}

// errDiscard lets a benchmark's sink keep nothing.
var errDiscard = errors.New("discarded")

// BenchmarkRecorder is the way from Record to a sink that does nothing, all of it in turn.
func BenchmarkRecorder(b *testing.B) {
	r := recorder.New(recorder.Options{InstanceID: "kitchen", BootID: "5f3c", Sink: &sink{answer: func(context.Context) error { return errDiscard }}})
	e := event(1)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		e.Time = e.Time.Add(time.Microsecond)
		record(r, e)
		if n++; n%batch.MaxEvents == 0 {
			r.Flush(b.Context())
		}
	}
	r.Flush(b.Context())
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	if got := r.Stats().Refused; got != uint64(n) {
		b.Errorf("got %d events, want %d", got, n)
	}
}
