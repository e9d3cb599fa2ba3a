package stats_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/stats"
)

// ask counts one query for name by client, and observes it.
func ask(c *stats.Counters, name, client string) {
	e := fleet.QueryEvent{Time: c.Now(), QName: name + ".", ClientName: client, Outcome: fleet.Cached}
	c.Record(0, e.Outcome, e.Duration)
	c.Observe([]fleet.QueryEvent{e})
}

// told are the slices that wait, as "10m 12:00 2 a:3 b:1": size, start, clients and the top domains.
func told(c *stats.Counters, sizes ...fleet.Size) []string {
	out := []string{}
	for _, s := range c.Pending(64 << 20) {
		for _, size := range sizes {
			if s.Size == size {
				out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %d %s", s.Size, s.Start.Format("15:04"), s.Clients.Count(), counts(s.TopDomains))))
			}
		}
	}
	return out
}

func counts(list []fleet.TopItem) string {
	var parts []string
	for _, e := range list {
		parts = append(parts, fmt.Sprintf("%s:%d", e.Name, e.Count))
	}
	return strings.Join(parts, " ")
}

func TestSlicesTellWhoAskedForWhat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, stats.Options{Dir: t.TempDir(), Now: at(noon.Add(38*time.Minute + 20*time.Second))})
		c.Correct(0)
		stop := run(t, c)
		if got := c.LastHour(); got != nil {
			t.Errorf("before the first query: got %+v, want nil", got)
		}
		ask(c, "a", "x")
		ask(c, "b", "y")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		ask(c, "a", "x")
		ask(c, "a", "z")
		time.Sleep(10 * time.Minute)
		ask(c, "c", "x")
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		want(t, "at the hour", told(c, fleet.TenMinutes, fleet.Hour), "10m 12:30 2", "10m 12:40 2", "10m 12:50 1", "1h 12:00 3 a:3 b:1 c:1")
		for _, s := range c.Pending(64 << 20) {
			if s.Size == fleet.Minute && (!s.Clients.IsZero() || s.TopDomains != nil) {
				t.Errorf("a minute tells of clients: %+v", s.Sketches)
			}
		}
		ask(c, "d", "w")
		got := c.LastHour()
		if counts(got.TopDomains) != "a:3 b:1 c:1 d:1" || got.Clients.Count() != 4 || !got.From.Equal(c.StartedAt()) {
			t.Errorf("last hour: got %v and %d clients since %s, want all since the start", got.TopDomains, got.Clients.Count(), got.From)
		}
		stop()
		want(t, "after a clean stop", told(c, fleet.TenMinutes, fleet.Hour),
			"10m 12:30 2", "10m 12:40 2", "10m 12:50 1", "1h 12:00 3 a:3 b:1 c:1", "10m 13:00 1", "1h 13:00 1 d:1")
	})
}

// The recorder hands events over half a second after they happened, when their minute may have been cut.
func TestWhatIsObservedLateIsNotLost(t *testing.T) {
	for name, c := range map[string]struct {
		began time.Duration // after noon
		lived time.Duration // after the cut
		want  []string
	}{
		"ten minutes were cut": {9 * time.Minute, time.Second, []string{"10m 12:00 1", "10m 12:10 1", "1h 12:00 2 a:1 b:1"}},
		"an hour was cut":      {59 * time.Minute, time.Second, []string{"10m 12:50 1", "1h 12:00 1 a:1", "10m 13:00 1", "1h 13:00 1 b:1"}},
		"and then it stopped":  {59 * time.Minute, 0, []string{"10m 12:50 1", "1h 12:00 1 a:1", "10m 13:00 1", "1h 13:00 1 b:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := open(t, stats.Options{Now: at(noon.Add(c.began))})
				b.Correct(0)
				stop := run(t, b)
				ask(b, "a", "x")
				e := fleet.QueryEvent{Time: b.Now().Add(time.Minute - 1), QName: "b.", ClientName: "y"}
				time.Sleep(time.Minute)
				synctest.Wait()
				b.Observe([]fleet.QueryEvent{e})
				time.Sleep(c.lived)
				stop()
				want(t, "slices", told(b, fleet.TenMinutes, fleet.Hour), c.want...)
			})
		})
	}
}

func TestACrashCostsTheTopsOfItsHourAndTheClientsOfItsTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		c := open(t, stats.Options{Dir: dir, Now: at(noon.Add(-5 * time.Minute))})
		stop := run(t, c)
		ask(c, "z", "z")
		time.Sleep(5 * time.Minute)
		ask(c, "a", "x")
		time.Sleep(10 * time.Minute)
		ask(c, "b", "y")
		time.Sleep(8 * time.Second)
		synctest.Wait()
		crashed := t.TempDir()
		copyDir(t, dir, crashed)
		stop()
		next := open(t, stats.Options{Dir: crashed, Now: at(noon.Add(11 * time.Minute))})
		want(t, "after the crash", told(next, fleet.TenMinutes, fleet.Hour),
			"10m 11:50 1", "1h 11:00 1 z:1", "10m 12:00 1", "10m 12:10 0", "1h 12:00 1")
		var queries uint64
		for _, s := range next.Pending(64 << 20) {
			if s.Size == fleet.Hour {
				queries += s.Outcomes.Total()
			}
		}
		if queries != 3 {
			t.Errorf("counts: got %d queries, want 3", queries)
		}
	})
}

func TestACorrectedClockTakesSketchesAlong(t *testing.T) {
	for name, c := range map[string]struct {
		offset time.Duration
		want   []string
		last   string
	}{
		"left alone": {0, []string{"10m 12:40 2", "10m 12:50 2", "1h 12:00 3 a:2 b:1 c:1", "10m 13:00 2", "1h 13:00 2 d:1 e:1"}, "a:2 b:1 c:1 d:1 e:1"},
		"a whole hour ahead": {
			time.Hour,
			[]string{"10m 13:40 2", "10m 13:50 2", "1h 13:00 3 a:2 b:1 c:1", "10m 14:00 2", "1h 14:00 2 d:1 e:1"},
			"a:2 b:1 c:1 d:1 e:1",
		},
		// 12:40 becomes 12:51, to which 12:50 is the nearest, and 12:00 becomes 12:11, to which it is 12:00.
		"some minutes ahead": {
			11 * time.Minute,
			[]string{"10m 12:50 2", "1h 12:00 3 a:2 b:1 c:1", "10m 13:00 2", "10m 13:10 2", "1h 13:00 2 d:1 e:1"},
			"a:2 b:1 c:1 d:1 e:1",
		},
		"back into the hour before": {
			-30 * time.Minute,
			[]string{"10m 12:10 2", "10m 12:20 2", "10m 12:30 2", "1h 12:00 5 a:2 b:1 c:1 d:1 e:1"},
			"a:2 b:1 c:1 d:1 e:1",
		},
		"before anything was counted": {
			-3652 * 24 * time.Hour,
			nil, "a:2 b:1 c:1 d:1 e:1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := open(t, stats.Options{Dir: t.TempDir(), Now: at(noon.Add(48*time.Minute + 10*time.Second))})
				stop := run(t, b)
				ask(b, "a", "v")
				ask(b, "b", "w")
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				ask(b, "a", "v")
				ask(b, "c", "x")
				time.Sleep(11 * time.Minute)
				synctest.Wait()
				ask(b, "d", "y")
				b.Correct(c.offset)
				ask(b, "e", "z")
				time.Sleep(time.Minute)
				synctest.Wait()
				if got := counts(b.LastHour().TopDomains); got != c.last {
					t.Errorf("last hour: got %s, want %s", got, c.last)
				}
				if from := b.LastHour().From; from.Before(b.StartedAt()) || from.After(b.Now()) {
					t.Errorf("last hour: got from %s, want it between start and now", from)
				}
				stop()
				if c.want != nil {
					want(t, "slices", told(b, fleet.TenMinutes, fleet.Hour), c.want...)
				}
			})
		})
	}
}

// Whenever the clock is corrected and by whatever, each name is in the hours as often as it was asked for, and no client is lost.
func TestNoSketchIsLostOrCountsTwiceWhenTheClockIsCorrected(t *testing.T) {
	for _, serve := range []time.Duration{9 * time.Minute, 71 * time.Minute} {
		for _, minutes := range []int{1, 6, 31, 247} {
			for _, sign := range []int{1, -1} {
				offset, after := time.Duration(sign*minutes)*time.Minute, time.Duration(minutes%3)*10*time.Minute
				t.Run(fmt.Sprintf("%v after %v", offset, serve), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						b := open(t, stats.Options{Now: at(noon.Add(53*time.Minute + 29*time.Second))})
						stop := run(t, b)
						served := 0
						count := func(d time.Duration) {
							for range int(d / (2 * time.Minute)) {
								ask(b, "a", fmt.Sprint("client", served))
								served++
								time.Sleep(2 * time.Minute)
							}
						}
						count(serve)
						b.Correct(offset)
						count(after)
						stop()
						checkSketches(t, b, served)
					})
				})
			}
		}
	}
}

func checkSketches(t *testing.T, b *stats.Counters, served int) {
	t.Helper()
	bySize := map[fleet.Size][]fleet.Slice{}
	for _, s := range b.Pending(64 << 20) {
		if err := s.Validate(); err != nil {
			t.Error(err)
		}
		bySize[s.Size] = append(bySize[s.Size], s)
	}
	for _, size := range []fleet.Size{fleet.TenMinutes, fleet.Hour} {
		sum := fleet.MergeSlices(bySize[size]...)
		if got := sum.Clients.Count(); got != uint64(served) {
			t.Errorf("%s: got %d clients, want %d", size, got, served)
		}
		if size == fleet.Hour && counts(sum.TopDomains) != fmt.Sprintf("a:%d", served) {
			t.Errorf("%s: got %s, want a %d times", size, counts(sum.TopDomains), served)
		}
	}
}
