package stats_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/stats"
	"dnsfleet/internal/stats/history"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func open(t *testing.T, o stats.Options) *stats.Counters {
	t.Helper()
	c, err := stats.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// run runs c until the returned function is called.
func run(t *testing.T, c *stats.Counters) (stop func()) {
	t.Helper()
	done := make(chan error)
	ctx, cancel := contextWithCancel(t)
	go func() { done <- c.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: got %v, want nil", err)
		}
	}
}

func query(c *stats.Counters, o fleet.Outcome, d time.Duration) {
	c.Record(0, o, d)
}

// pending are the slices that wait, as "1m 12:00 60s 3": size, start, seconds covered and queries.
func pending(c *stats.Counters) []string {
	out := []string{}
	for _, s := range c.Pending(64 << 20) {
		out = append(out, fmt.Sprintf("%s %s %vs %d", s.Size, s.Start.Format("15:04"), s.Covered().Seconds(), s.Outcomes.Total()))
	}
	return out
}

func want(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, append([]string{}, want...)) {
		t.Errorf("%s:\n got %q,\nwant %q", what, got, want)
	}
}

func TestCountersAddUp(t *testing.T) {
	c := open(t, stats.Options{})
	got := c.Counters()
	if got.MeanMS != nil || got.Latency.Count() != 0 || got.Upstreams == nil {
		t.Errorf("before the first query: got %+v, want no mean, no latency, and an empty list", got)
	}
	for o := range fleet.NumOutcomes {
		for range o + 1 {
			query(c, fleet.Outcome(o), time.Duration(o+1)*time.Millisecond)
		}
	}
	query(c, 200, -time.Second)
	c.ObserveExchange("udp://192.0.2.1:53", 10*time.Millisecond, false)
	c.ObserveExchange("udp://192.0.2.1:53", 20*time.Millisecond, false)
	c.ObserveExchange("udp://192.0.2.1:53", 5*time.Second, true)
	got = c.Counters()
	for o := range fleet.NumOutcomes {
		n := uint64(o) + 1
		if fleet.Outcome(o) == fleet.Invalid {
			n++ // an outcome that is none
		}
		if got.Outcomes[o] != n {
			t.Errorf("%v: got %d, want %d", fleet.Outcome(o), got.Outcomes[o], n)
		}
	}
	if got.Outcomes.Total() != 92 || got.Latency.Count() != 92 {
		t.Errorf("got %d queries and %d durations, want 92 of both", got.Outcomes.Total(), got.Latency.Count())
	}
	if mean := float64(819) / 92; got.MeanMS == nil || *got.MeanMS != mean { // 1²+…+13² = 819
		t.Errorf("mean: got %v, want exactly %v", *got.MeanMS, mean)
	}
	u := got.Upstreams
	if len(u) != 1 || u[0].Count != 3 || u[0].Errors != 1 || u[0].Avg == nil || *u[0].Avg != 15 {
		t.Errorf("upstreams: got %+v, want one with 3 exchanges, 1 error and 15 ms", u)
	}
}

func TestUpstreamsAreBoundedAndAlwaysReportable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, stats.Options{Now: at(noon)})
		stop := run(t, c)
		c.ObserveExchange("", time.Millisecond, false)
		c.ObserveExchange("\xff", time.Millisecond, false)
		c.ObserveExchange(strings.Repeat("x", 1000), time.Millisecond, true)
		for i := range 1000 {
			c.ObserveExchange(fmt.Sprintf("udp://192.0.2.1:%04d", i), time.Millisecond, i%2 == 0)
		}
		time.Sleep(time.Minute)
		stop()
		c.Correct(0)
		s := c.Pending(1 << 20)[0]
		if err := s.Validate(); err != nil || len(s.Upstreams) != 64 {
			t.Fatalf("slice: got %d upstreams and %v, want 64 and a valid slice", len(s.Upstreams), err)
		}
		var count, errs uint64
		for _, u := range s.Upstreams {
			count, errs = count+u.Count, errs+u.Errors
			if u.Latency.Count() != u.Count-u.Errors {
				t.Errorf("%s: got %d latencies of %d exchanges and %d errors", u.Address, u.Latency.Count(), u.Count, u.Errors)
			}
		}
		if count != 1003 || errs != 501 {
			t.Errorf("got %d exchanges and %d errors, want 1003 and 501", count, errs)
		}
	})
}

func TestDurationsFillBuckets(t *testing.T) {
	c := open(t, stats.Options{})
	for _, d := range []time.Duration{0, time.Millisecond, 3 * time.Millisecond, 3 * time.Second, time.Hour} {
		query(c, fleet.Cached, d)
	}
	within, count, sum := c.Durations([]time.Duration{time.Millisecond, 10 * time.Millisecond, 5 * time.Second})
	if !slices.Equal(within, []uint64{2, 3, 4}) || count != 5 || sum != time.Hour+3*time.Second+4*time.Millisecond {
		t.Errorf("got %v of %d in %v, want [2 3 4] of 5 in 1h0m3.004s", within, count, sum)
	}
}

func TestSlicesAreCutAtUTCMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, stats.Options{Dir: t.TempDir(), Now: at(noon.Add(8*time.Minute + 20*time.Second))})
		c.Correct(0)
		stop := run(t, c)
		query(c, fleet.Cached, 0)
		time.Sleep(40*time.Second - 1)
		synctest.Wait()
		want(t, "just before the minute", pending(c))
		query(c, fleet.Cached, 0)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		want(t, "at the minute", pending(c), "1m 12:08 40s 2")
		query(c, fleet.Cached, 0)
		time.Sleep(time.Minute)
		synctest.Wait()
		want(t, "at the tenth minute", pending(c), "1m 12:08 40s 2", "1m 12:09 60s 1", "10m 12:00 100s 3")
		time.Sleep(2*time.Minute + 30*time.Second)
		query(c, fleet.Blocked, 0)
		stop()
		want(t, "after a clean stop", pending(c),
			"1m 12:08 40s 2", "1m 12:09 60s 1", "10m 12:00 100s 3", "1m 12:10 60s 0", "1m 12:11 60s 0", "1m 12:12 30s 1",
			"10m 12:10 150s 1", "1h 12:00 250s 4")
	})
}

func TestAStopInTheInstantOfAMinuteCountsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, stats.Options{Now: at(noon)})
		c.Correct(0)
		stop := run(t, c)
		time.Sleep(time.Minute)
		synctest.Wait()
		stop()
		want(t, "nothing was counted in it", pending(c), "1m 12:00 60s 0", "10m 12:00 60s 0", "1h 12:00 60s 0")

		c = open(t, stats.Options{Now: at(noon)})
		c.Correct(0)
		stop = run(t, c)
		time.Sleep(time.Minute)
		synctest.Wait()
		query(c, fleet.Cached, 0)
		stop()
		want(t, "one query was", pending(c), "1m 12:00 60s 0", "1m 12:01 0.001s 1", "10m 12:00 60.001s 1", "1h 12:00 60.001s 1")
	})
}

func TestEverySizeAddsUpToTheCounters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, stats.Options{Now: at(noon.Add(-17*time.Minute - 3*time.Second))})
		c.Correct(0)
		stop := run(t, c)
		var clients sync.WaitGroup
		for n := range 8 {
			clients.Go(func() {
				for i := range 3000 {
					query(c, fleet.Outcome((n+i)%fleet.NumOutcomes), time.Duration(i)*time.Millisecond)
					c.ObserveExchange(fmt.Sprintf("udp://192.0.2.%d:53", i%5), time.Duration(i)*time.Microsecond, i%7 == 0)
					time.Sleep(time.Duration(2000+n) * time.Millisecond)
				}
			})
		}
		clients.Wait()
		stop()
		counters := c.Counters()
		if n := counters.Outcomes.Total(); n != 24_000 || counters.Latency.Count() != n {
			t.Errorf("counters: got %d queries and %d durations, want 24000", n, counters.Latency.Count())
		}
		bySize := map[fleet.Size][]fleet.Slice{}
		for _, s := range c.Pending(64 << 20) {
			if err := s.Validate(); err != nil {
				t.Errorf("%v", err)
			}
			bySize[s.Size] = append(bySize[s.Size], s)
		}
		for _, size := range fleet.Sizes() {
			parts := bySize[size]
			for i := 1; i < len(parts); i++ {
				if !parts[i].Start.Equal(parts[i-1].End()) {
					t.Errorf("%v: got %v after %v, want no hole", size, parts[i].Start, parts[i-1].Start)
				}
			}
			sum := fleet.MergeSlices(parts...)
			if sum.Outcomes != counters.Outcomes {
				t.Errorf("%v outcomes: got %v, want %v", size, sum.Outcomes, counters.Outcomes)
			}
			if got, want := sum.Latency.Quantiles(), counters.Latency.Quantiles(); sum.Latency.Count() != 24_000 || *got.P99 != *want.P99 {
				t.Errorf("%v latency: got %d, p99 %v, want 24000, p99 %v", size, sum.Latency.Count(), *got.P99, *want.P99)
			}
			for i, u := range counters.Upstreams {
				if got := sum.Upstreams[i]; got.Address != u.Address || got.Count != u.Count || got.Errors != u.Errors {
					t.Errorf("%v upstream: got %s %d %d, want %s %d %d", size, got.Address, got.Count, got.Errors, u.Address, u.Count, u.Errors)
				}
			}
			if got, want := sum.Seconds, c.Now().Sub(c.StartedAt()).Seconds(); got < want-0.01 || got > want+0.01 {
				t.Errorf("%v covers %v seconds, want %v", size, got, want)
			}
		}
	})
}

// The wall clock is read once. Whatever it says later changes no count and repeats no slice.
func TestASteppedWallClockChangesNothing(t *testing.T) {
	for name, step := range map[string]time.Duration{
		"an hour ahead": time.Hour, "an hour back": -time.Hour,
		"ten years ahead": 10 * 365 * 24 * time.Hour, "ten years back": -10 * 365 * 24 * time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var offset time.Duration
				start := time.Now()
				c := open(t, stats.Options{Now: func() time.Time { return noon.Add(time.Since(start) + offset).Round(0) }})
				c.Correct(0)
				stop := run(t, c)
				for i := range 130 {
					if i%40 == 20 {
						offset += step
					}
					query(c, fleet.Cached, 0)
					time.Sleep(time.Minute)
				}
				stop()
				seen := map[string]bool{}
				var total uint64
				for _, s := range c.Pending(64 << 20) {
					name := fmt.Sprint(s.Size, s.Start, s.BootID)
					if seen[name] {
						t.Errorf("got %s twice", name)
					}
					seen[name] = true
					if s.Size == fleet.Minute {
						total += s.Outcomes.Total()
					}
				}
				if total != 130 || len(seen) != 130+13+3 {
					t.Errorf("got %d queries in %d slices, want 130 in 146", total, len(seen))
				}
				if got, want := c.Now(), noon.Add(130*time.Minute); !got.Equal(want) {
					t.Errorf("now: got %v, want %v", got, want)
				}
			})
		})
	}
}

func TestAnUnsetClockIsNotBelieved(t *testing.T) {
	for name, wall := range map[string]time.Time{
		"1970": time.Unix(5, 0), "the year 1": {}, "far in the future": time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := open(t, stats.Options{Now: at(wall)})
				c.Correct(0)
				stop := run(t, c)
				time.Sleep(time.Minute)
				stop()
				if got := c.Pending(1 << 20); len(got) == 0 || got[0].Start.Year() != 2020 {
					t.Errorf("got %v, want a slice of 2020", got)
				}
			})
		})
	}
}

func TestWhatACrashLeavesBehindIsClosedByTheNextStart(t *testing.T) {
	for name, c := range map[string]struct {
		after time.Duration
		want  []string
	}{
		"in the first minute": {
			10 * time.Second, []string{"1m 12:57 10s 10", "10m 12:50 10s 10", "1h 12:00 10s 10"},
		},
		"just after a checkpoint": {
			65 * time.Second, []string{"1m 12:57 60s 60", "1m 12:58 5s 5", "10m 12:50 65s 65", "1h 12:00 65s 65"},
		},
		"between checkpoints": {
			69 * time.Second, []string{"1m 12:57 60s 60", "1m 12:58 5s 5", "10m 12:50 65s 65", "1h 12:00 65s 65"},
		},
		"after ten minutes and an hour ended": {
			195 * time.Second, []string{
				"1m 12:57 60s 60", "1m 12:58 60s 60", "1m 12:59 60s 60", "10m 12:50 180s 180", "1h 12:00 180s 180",
				"1m 13:00 15s 15", "10m 13:00 15s 15", "1h 13:00 15s 15",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, copied := t.TempDir(), t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				old := open(t, stats.Options{Dir: dir, BootID: "old", Now: at(noon.Add(57 * time.Minute))})
				stop := run(t, old)
				for range int(c.after / time.Second) {
					time.Sleep(time.Second / 2)
					query(old, fleet.Cached, 0)
					time.Sleep(time.Second / 2)
				}
				synctest.Wait()
				copyDir(t, dir, copied)
				stop()
			})
			for _, boot := range []string{"new", "newer"} { // closing twice closes once
				next := open(t, stats.Options{Dir: copied, BootID: boot, Now: at(noon.Add(24 * time.Hour))})
				want(t, "pending of "+boot, pending(next), c.want...)
				if err := next.Close(); err != nil {
					t.Error(err)
				}
				// A boot that is closed stays closed: later its minutes may be gone, and an hour would become less.
				if open := unended(t, copied); len(open) > 0 {
					t.Errorf("boots to close: got %q, want none", open)
				}
			}
		})
	}
}

func TestACleanStopLeavesNothingToClose(t *testing.T) {
	dir := t.TempDir()
	var before []string
	synctest.Test(t, func(t *testing.T) {
		c := open(t, stats.Options{Dir: dir, Now: at(noon)})
		c.Correct(0)
		stop := run(t, c)
		time.Sleep(90 * time.Second)
		query(c, fleet.Cached, 0)
		stop()
		before = pending(c)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	want(t, "before", before, "1m 12:00 60s 0", "1m 12:01 30s 1", "10m 12:00 90s 1", "1h 12:00 90s 1")
	want(t, "after the next start", pending(open(t, stats.Options{Dir: dir})), before...)
}

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	c := open(t, stats.Options{Dir: dir, BootID: "one"})
	if _, err := stats.New(stats.Options{Dir: dir}); !errors.Is(err, stats.ErrInUse) {
		t.Errorf("a directory in use: got %v, want ErrInUse", err)
	}
	if _, err := stats.New(stats.Options{BootID: "not valid"}); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("a bad boot id: got %v, want ErrInvalid", err)
	}
	ctx, cancel := contextWithCancel(t)
	cancel()
	if err := errors.Join(c.Run(ctx), c.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := stats.New(stats.Options{Dir: dir, BootID: "one"}); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("a boot id used before: got %v, want ErrInvalid", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := stats.New(stats.Options{Dir: file}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a directory that is a file: got %v, want an error that names it", err)
	}
}

// BenchmarkRecord is a count in a lane of its own, and in the one that all cores share.
func BenchmarkRecord(b *testing.B) {
	for name, lane := range map[string]int64{"own lane": 1, "shared lane": 0} {
		b.Run(name, func(b *testing.B) {
			c, err := stats.New(stats.Options{})
			if err != nil {
				b.Fatal(err)
			}
			if n := testing.AllocsPerRun(1000, func() { c.Record(int(lane), fleet.Cached, 120*time.Microsecond) }); n != 0 {
				b.Fatalf("got %v allocations, want 0", n)
			}
			var threads atomic.Int64
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				mine := int(lane * threads.Add(1))
				for i := 0; p.Next(); i++ {
					c.Record(mine, fleet.Cached, time.Duration(i%5000)*time.Microsecond)
				}
			})
		})
	}
}

func BenchmarkObserveExchange(b *testing.B) {
	c, err := stats.New(stats.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			c.ObserveExchange("udp://192.0.2.1:53", 12*time.Millisecond, false)
		}
	})
}

func TestCountingDoesNotAllocate(t *testing.T) {
	c := open(t, stats.Options{})
	c.ObserveExchange("udp://192.0.2.1:53", 0, true)
	n := testing.AllocsPerRun(1000, func() {
		query(c, fleet.Cached, time.Millisecond)
		c.ObserveExchange("udp://192.0.2.1:53", time.Millisecond, false)
	})
	if n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func unended(t *testing.T, dir string) []string {
	t.Helper()
	book, err := history.Open(history.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer book.Close()
	return book.Unended()
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}
