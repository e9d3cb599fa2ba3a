package recorder_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog/batch"
	"dnsfleet/internal/querylog/recorder"
)

func TestEveryCollectionIsObservedBeforeItIsCut(t *testing.T) {
	for name, answer := range map[string]func(context.Context) error{
		"by a sink that stores":  nil,
		"by a sink that refuses": func(context.Context) error { return errors.New("away") },
	} {
		t.Run(name, func(t *testing.T) {
			out := &sink{answer: answer}
			var seen [][]fleet.QueryEvent
			r := recorder.New(recorder.Options{InstanceID: "kitchen", BootID: "5f3c", Sink: out, Observe: func(events []fleet.QueryEvent) {
				expect(t, "batches before the collection is observed", len(out.batches), 0)
				seen = append(seen, slices.Clone(events))
			}})
			r.Flush(t.Context())
			expect(t, "collections of nothing", len(seen), 0)
			const n = batch.MaxEvents + 1000
			for i := range n {
				e := event(i)
				e.Time = e.Time.Add(time.Duration(i*7919%n) * time.Microsecond)
				record(r, e)
			}
			record(r, fleet.QueryEvent{Time: time.Now(), QName: "a\xff", Outcome: 99, Duration: -1})
			r.Flush(t.Context())
			expect(t, "collections", len(seen), 1)
			expect(t, "events", len(seen[0]), n+1)
			if !slices.IsSortedFunc(seen[0], func(a, b fleet.QueryEvent) int { return a.Time.Compare(b.Time) }) {
				t.Error("got events in disorder, want the oldest first")
			}
			for _, e := range seen[0] {
				clean := e
				if batch.Clean(&clean); e != clean {
					t.Errorf("got %+v, want it clean: %+v", e, clean)
				}
			}
			if answer == nil {
				expect(t, "batches", len(out.batches), 2)
			}
		})
	}
}

// times are when collections were observed, since a beginning.
type times struct {
	mu sync.Mutex
	at []time.Duration
}

func (h *times) observe(since time.Time) func([]fleet.QueryEvent) {
	return func([]fleet.QueryEvent) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.at = append(h.at, time.Since(since))
	}
}

func TestANewIntervalCountsFromTheNextTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen times
		r, stop := start(recorder.Options{Sink: &sink{}, Interval: time.Second, Observe: seen.observe(time.Now())})
		defer stop()
		tick := func(d time.Duration) {
			for range d / (50 * time.Millisecond) {
				record(r, event(1))
				time.Sleep(50 * time.Millisecond)
			}
			synctest.Wait()
		}
		tick(1500 * time.Millisecond)
		r.SetInterval(3 * time.Second)
		tick(7 * time.Second)
		r.SetInterval(time.Second)
		tick(4 * time.Second)
		seen.mu.Lock()
		defer seen.mu.Unlock()
		expect(t, "hand-overs", seen.at, []time.Duration{
			time.Second, 2 * time.Second, // the interval under way ends as it was
			5 * time.Second, 8 * time.Second, 11 * time.Second, 12 * time.Second,
		})
	})
}

func TestIntervalsHaveBounds(t *testing.T) {
	for name, c := range map[string]struct{ set, want time.Duration }{
		"the least":       {100 * time.Millisecond, 100 * time.Millisecond},
		"less":            {99 * time.Millisecond, 100 * time.Millisecond},
		"nothing":         {0, 100 * time.Millisecond},
		"a negative time": {-time.Hour, 100 * time.Millisecond},
		"the most":        {30 * time.Second, 30 * time.Second},
		"more":            {time.Hour, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var seen times
				r, stop := start(recorder.Options{Sink: &sink{}, Observe: seen.observe(time.Now())})
				defer stop()
				synctest.Wait() // the first interval runs
				r.SetInterval(c.set)
				time.Sleep(550 * time.Millisecond) // the interval that ran is over
				record(r, event(1))
				time.Sleep(time.Minute)
				synctest.Wait()
				expect(t, "hand-overs", seen.at, []time.Duration{500*time.Millisecond + c.want})
			})
		})
	}
}

func TestIntervalsMayBeSetByManyAtOnce(t *testing.T) {
	out := &sink{}
	r, stop := start(recorder.Options{Sink: out, Interval: time.Millisecond})
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 1000 {
				r.SetInterval(time.Duration(i) * time.Millisecond)
				record(r, event(g*1000+i))
			}
		})
	}
	all.Wait()
	stop()
	once(t, out, 4000)
}
