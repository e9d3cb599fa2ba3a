package shipper_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/batch"
	"dnsfleet/internal/querylog/recorder"
	"dnsfleet/internal/querylog/shipper"
	"dnsfleet/internal/querylog/spool"
)

func codec(t testing.TB) *batch.Codec {
	t.Helper()
	c, err := batch.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t testing.TB, o spool.Options) *spool.Spool {
	t.Helper()
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "spool")
	}
	s, err := spool.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// run runs something until the function that it returns is called, which waits for its end.
func run(body func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := body(ctx); err != nil {
			panic(err)
		}
	}()
	return func() { cancel(); <-ended }
}

func event(i int) fleet.QueryEvent {
	return fleet.QueryEvent{
		Time: time.Now(), Client: netip.AddrFrom4([4]byte{192, 168, 1, byte(i)}), Protocol: "udp",
		QName: fmt.Sprintf("%d.example.", i), QType: 1, QClass: 1, Outcome: fleet.Cached, Duration: 80 * time.Microsecond,
	}
}

// one is a batch of one event.
func one(seq int) querylog.Batch {
	e := event(seq)
	batch.Clean(&e)
	return querylog.Batch{InstanceID: "kitchen", BootID: "5f3c", Seq: uint64(seq), Events: []fleet.QueryEvent{e}}
}

func write(t testing.TB, s *shipper.Shipper, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := s.Write(t.Context(), one(i)); err != nil {
			t.Fatalf("batch %d: %v", i, err)
		}
	}
}

func expect(t testing.TB, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s: got %s, want %s", what, g, w)
	}
}

// Whatever a sink does for long: when it is well again it gets every event, each once, in order.
func TestNoEventIsLostOrDoubledWhileTheSinkIsUnwell(t *testing.T) {
	turns := 0
	for name, test := range map[string]struct {
		ill  func(querylog.Batch) mood
		long time.Duration
	}{
		"it is down":                         {always(down), 10 * time.Minute},
		"it stores and its answers get lost": {always(lostAnswer), time.Minute},
		"it hangs":                           {always(hanging), time.Minute},
		"it stores and then hangs":           {always(hangingAfter), time.Minute},
		"it is slow":                         {always(slow), time.Minute},
		"it does all of these in turn":       {func(querylog.Batch) mood { turns++; return mood(turns*7/3) % invalid }, 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			turns = 0
			synctest.Test(t, func(t *testing.T) {
				out := newSink(nil)
				sp := open(t, spool.Options{})
				sh := shipper.New(shipper.Options{Sink: out, Codec: codec(t), Spool: sp})
				stopShipper := run(sh.Run)
				rec := recorder.New(recorder.Options{InstanceID: "kitchen", BootID: "5f3c", Sink: sh})
				stopRecorder := run(rec.Run)
				sent := 0
				traffic := func(d time.Duration) {
					for range d / (100 * time.Millisecond) {
						for range 20 {
							e := event(sent)
							rec.Record(0, &e)
							sent++
						}
						time.Sleep(100 * time.Millisecond)
					}
				}
				traffic(10 * time.Second)
				out.set(test.ill)
				traffic(test.long)
				out.set(nil)
				traffic(30 * time.Second)
				stopRecorder()
				time.Sleep(time.Minute)
				synctest.Wait()
				stopShipper()

				out.once(t, sent)
				out.inOrder(t)
				st := sh.Stats()
				expect(t, "recorder", fmt.Sprint(rec.Stats().Recorded, rec.Stats().Handed, rec.Stats().Dropped), fmt.Sprint(sent, sent, 0))
				expect(t, "delivered", st.Delivered, sent)
				expect(t, "what is left in the spool", st.Spool, spool.Stats{})
				t.Logf("%d events: %d lost, 0 doubled; %d by way of the spool, %d tries of the sink failed", sent, sent-len(out.counts()), st.Spooled, st.Failures)
			})
		})
	}
}

func TestAHealthySinkGetsBatchesWithoutTheDisk(t *testing.T) {
	out := newSink(nil)
	sh := shipper.New(shipper.Options{Sink: out, Codec: codec(t), Spool: open(t, spool.Options{})})
	write(t, sh, 1, 50)
	out.once(t, 49)
	expect(t, "stats", sh.Stats(), shipper.Stats{Delivered: 49})
}

func TestRetriesComeSoonAndThenSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newSink(always(down))
		sh := shipper.New(shipper.Options{Sink: out, Codec: codec(t), Spool: open(t, spool.Options{})})
		stop := run(sh.Run)
		defer stop()
		write(t, sh, 1, 2)
		for i := range 300 { // more batches are no reason to try more often
			time.Sleep(time.Second)
			write(t, sh, 2+i, 3+i)
		}
		synctest.Wait()
		tries := out.tries // the write's own, at once that of Run, then with waits
		if n := len(tries); n < 10 || n > 30 {
			t.Fatalf("got %d tries in 5 minutes, want 10 to 30", n)
		}
		for i := 1; i < len(tries); i++ {
			wait := tries[i].Sub(tries[i-1])
			if i <= 2 && wait > time.Second || wait > 30*time.Second || i > 8 && wait < 15*time.Second {
				t.Errorf("try %d: got it %v after the one before, want at most 1s at first and 15s to 30s at last", i, wait)
			}
		}
		out.set(nil)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		out.once(t, 301)
		expect(t, "away", sh.Stats().Away, false)
	})
}

func TestABatchThatIsRefusedForGoodHoldsUpNothing(t *testing.T) {
	bad := func(b querylog.Batch) mood {
		if b.Seq == 3 {
			return invalid
		}
		return well
	}
	t.Run("straight", func(t *testing.T) {
		out := newSink(bad)
		sh := shipper.New(shipper.Options{Sink: out, Codec: codec(t), Spool: open(t, spool.Options{})})
		write(t, sh, 1, 3)
		if err := sh.Write(t.Context(), one(3)); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("got %v, want %v", err, fleet.ErrInvalid)
		}
		write(t, sh, 4, 6)
		out.once(t, 4)
		expect(t, "stats", sh.Stats(), shipper.Stats{Delivered: 4, Invalid: 1})
	})
	t.Run("from the spool", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			out := newSink(always(down))
			sh := shipper.New(shipper.Options{Sink: out, Codec: codec(t), Spool: open(t, spool.Options{})})
			write(t, sh, 1, 6)
			out.set(bad)
			stop := run(sh.Run)
			defer stop()
			synctest.Wait()
			out.once(t, 4)
			expect(t, "stats", sh.Stats(), shipper.Stats{Delivered: 4, Spooled: 5, Invalid: 1, Failures: 1})
		})
	})
}

func TestWhatIsNoBatchInTheSpoolHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sp := open(t, spool.Options{})
		if err := sp.Append(7, []byte("from another world")); err != nil {
			t.Fatal(err)
		}
		out := newSink(nil)
		sh := shipper.New(shipper.Options{Sink: out, Codec: codec(t), Spool: sp})
		write(t, sh, 1, 2)
		stop := run(sh.Run)
		defer stop()
		synctest.Wait()
		out.once(t, 1)
		expect(t, "dropped events", sh.Stats().Spool.Dropped, 7)
	})
}

func TestWithoutRoomInTheSpoolTheCallerIsTold(t *testing.T) {
	closed := open(t, spool.Options{})
	closed.Close()
	for name, sp := range map[string]*spool.Spool{"there is none": nil, "it fails": closed} {
		t.Run(name, func(t *testing.T) {
			out := newSink(always(down))
			sh := shipper.New(shipper.Options{Sink: out, Codec: codec(t), Spool: sp})
			if err := sh.Write(t.Context(), one(1)); !errors.Is(err, errAway) {
				t.Errorf("got %v, want %v", err, errAway)
			}
			out.set(nil)
			write(t, sh, 2, 3)
			out.once(t, 1)
			run(sh.Run)()
		})
	}
}

func TestACallerThatGivesUpLosesNothing(t *testing.T) {
	out := newSink(always(hangingAfter))
	sp := open(t, spool.Options{})
	sh := shipper.New(shipper.Options{Sink: out, Codec: codec(t), Spool: sp})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := sh.Write(ctx, one(1)); err != nil {
		t.Fatal(err)
	}
	expect(t, "records in the spool", sp.Stats().Records, 1)
	run(sh.Run)() // stopped before it could try: the record stays
	expect(t, "records in the spool", sp.Stats().Records, 1)
}

func BenchmarkWriteToSpool(b *testing.B) {
	sh := shipper.New(shipper.Options{Sink: newSink(always(down)), Codec: codec(b), Spool: open(b, spool.Options{})})
	full := querylog.Batch{InstanceID: "kitchen", BootID: "5f3c"}
	for i := range batch.MaxEvents {
		e := event(i / 10)
		e.Time = time.UnixMicro(1_795_000_000_000_000 + int64(i))
		batch.Clean(&e)
		full.Events = append(full.Events, e)
	}
	for b.Loop() {
		full.Seq++
		if err := sh.Write(b.Context(), full); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*batch.MaxEvents/b.Elapsed().Seconds(), "events/s")
}
