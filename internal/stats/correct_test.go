package stats_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/stats"
)

func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithCancel(t.Context())
}

func TestSlicesWaitUntilAStoreHasAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, stats.Options{Now: at(noon)})
		stop := run(t, c)
		time.Sleep(time.Minute)
		synctest.Wait()
		want(t, "before", pending(c))
		c.Sent(nil, nil)
		want(t, "after", pending(c), "1m 12:00 60s 0")
		stop()
	})
}

// A machine wakes up at a wrong time and serves for a while; one query a second. Then it learns the time.
func TestCorrect(t *testing.T) {
	const start = 7*time.Minute + 42*time.Second // past noon, when the boot begins
	for name, c := range map[string]struct {
		serve, offset time.Duration
		now           string
		want          []string
	}{
		"half a minute is left alone": {
			90 * time.Second, 30 * time.Second, "12:09:12",
			[]string{"1m 12:07 18s 18", "1m 12:08 60s 60", "1m 12:09 60s 60", "10m 12:00 138s 138"},
		},
		"whole minutes move everything": {
			90 * time.Second, 20 * time.Minute, "12:29:12",
			[]string{"1m 12:27 18s 18", "1m 12:28 60s 60", "1m 12:29 60s 60", "10m 12:20 138s 138"},
		},
		"into the minute that is left": {
			90 * time.Second, -20*time.Minute - 31*time.Second, "11:48:41",
			// The moved 11:47 is what was counted in 12:08; the running minute is 11:48.
			[]string{"1m 11:46 18s 18", "1m 11:47 60s 60", "1m 11:48 31s 31"},
		},
		"minutes that meet become one": {
			80 * time.Second, time.Hour + 40*time.Second, "13:09:42",
			// 12:07 and 12:08 are nearest to 13:08 and 13:09; by the right clock 13:09 is still running.
			[]string{"1m 13:08 18s 18", "1m 13:09 60s 80", "10m 13:00 78s 98"},
		},
		"ten years ahead": {
			90 * time.Second, 3652 * 24 * time.Hour, "12:09:12",
			[]string{"1m 12:07 18s 18", "1m 12:08 60s 60", "1m 12:09 60s 60", "10m 12:00 138s 138"},
		},
		"an absurd time is not believed": {
			90 * time.Second, -100 * 365 * 24 * time.Hour, "12:09:12",
			[]string{"1m 12:07 18s 18", "1m 12:08 60s 60", "1m 12:09 60s 60", "10m 12:00 138s 138"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := open(t, stats.Options{Dir: t.TempDir(), BootID: "b", Now: at(noon.Add(start))})
				stop := run(t, b)
				served := 0
				serve := func(d time.Duration) {
					for range int(d / time.Second) {
						time.Sleep(time.Second / 2)
						query(b, fleet.Cached, time.Millisecond)
						served++
						time.Sleep(time.Second / 2)
						synctest.Wait()
					}
				}
				serve(c.serve)
				before := b.Now()
				b.Correct(c.offset)
				if !b.Now().Equal(before) {
					b.Correct(5 * time.Hour) // once is enough
				}
				if got := b.Now().Format("15:04:05"); got != c.now {
					t.Errorf("now: got %s, want %s", got, c.now)
				}
				synctest.Wait()
				for b.Now().Second() != 0 {
					serve(time.Second)
				}
				recent := b.Minutes()
				if last := recent[len(recent)-1]; !last.End().Equal(b.Now()) {
					t.Errorf("newest minute: got one that ends at %v, want now, %v", last.End(), b.Now())
				}
				for i := 1; i < len(recent); i++ {
					if !recent[i].Start.Equal(recent[i-1].End()) {
						t.Errorf("last minutes: got %v after %v, want the moved ones", recent[i].Start, recent[i-1].Start)
					}
				}
				got := pending(b)
				if len(got) < len(c.want) || !slices.Equal(got[:len(c.want)], c.want) {
					t.Errorf("pending:\n got %q,\nwant %q", got, c.want)
				}
				stop()
				checkHistory(t, b, served)
			})
		})
	}
}

// checkHistory holds all slices of b against each other: valid, none twice, no hole, sums right, the first one that in
// which the boot began.
func checkHistory(t *testing.T, b *stats.Counters, queries int) {
	t.Helper()
	bySize := map[fleet.Size][]fleet.Slice{}
	for _, s := range b.Pending(64 << 20) {
		if err := s.Validate(); err != nil {
			t.Error(err)
		}
		bySize[s.Size] = append(bySize[s.Size], s)
	}
	for size, parts := range bySize {
		for i := 1; i < len(parts); i++ {
			if !parts[i].Start.Equal(parts[i-1].End()) {
				t.Errorf("%v: got %v after %v, want no hole and no overlap", size, parts[i].Start, parts[i-1].Start)
			}
		}
		if n := fleet.MergeSlices(parts...).Outcomes.Total(); n != uint64(queries) {
			t.Errorf("%v: got %d queries, want %d", size, n, queries)
		}
		if first := b.StartedAt().Truncate(size.Duration()); !parts[0].Start.Equal(first) {
			t.Errorf("%v: first slice got %v, want that of the start, %v", size, parts[0].Start, b.StartedAt())
		}
	}
}

func TestAnyOffsetAtAnyMomentKeepsHistoryWhole(t *testing.T) {
	for _, serve := range []time.Duration{0, 3 * time.Second, 61 * time.Second, 17 * time.Minute} {
		for _, seconds := range []int{31, 45, 59, 60, 61, 89, 90, 91, 3599, 3600, 3630, 7777} {
			for _, sign := range []int{1, -1} {
				offset := time.Duration(sign*seconds) * time.Second
				t.Run(fmt.Sprintf("%v after %v", offset, serve), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						b := open(t, stats.Options{Now: at(noon.Add(53*time.Minute + 29*time.Second))})
						stop := run(t, b)
						served := 0
						count := func(d time.Duration) {
							for range int(d / time.Second) {
								query(b, fleet.Cached, 0)
								served++
								time.Sleep(time.Second)
							}
						}
						count(serve)
						before := b.Now()
						b.Correct(offset)
						if got := b.Now().Sub(before); got != offset {
							t.Errorf("clock: moved by %v, want %v", got, offset)
						}
						count(12 * time.Minute)
						stop()
						checkHistory(t, b, served)
					})
				})
			}
		}
	}
}

func TestTheClockIsLeftAloneOnceSlicesWereHandedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, stats.Options{Now: at(noon)})
		stop := run(t, c)
		c.Correct(time.Second)
		time.Sleep(time.Minute)
		synctest.Wait()
		list := c.Pending(1 << 20)
		c.Sent(list, []fleet.SlicesUntil{{BootID: c.BootID(), Size: fleet.Minute, Until: list[0].End()}})
		c.Correct(time.Hour)
		if got, want := c.Now(), noon.Add(time.Minute); !got.Equal(want) {
			t.Errorf("now: got %v, want %v", got, want)
		}
		stop()
	})
}
