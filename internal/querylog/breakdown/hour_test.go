package breakdown_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog/breakdown"
)

func TestTheLastHourOfEachInstance(t *testing.T) {
	events := traffic()
	log := openLog(t, events, "a", "b")
	h := pushedHistory()
	b := breakdown.New(options(log, h, members(ours, "", "off")))
	rows, err := b.Hour(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 3 {
		t.Errorf("got %d rows, want one for each that answers DNS", len(rows))
	}
	for id, source := range map[string]string{"a": "sqlite", "b": "sqlite", "c": "reports"} {
		from, to := noon.Add(-time.Hour), noon
		if source == "reports" {
			from, to = noon.Truncate(time.Minute).Add(-59*time.Minute), noon.Truncate(time.Minute).Add(-time.Minute)
		}
		var want uint64
		for _, e := range events {
			if e.instance == id && !e.Time.Before(from) && e.Time.Before(to) {
				want++
			}
		}
		got := rows[id]
		if got.Source != source || got.Window != "1h" || got.Total != want || got.P50 == nil || got.P99 == nil || len(got.Upstreams) != 3 {
			t.Errorf("%s: got %+v, want %d from %s", id, got, want, source)
		}
		for _, u := range got.Upstreams {
			if u.Count == 0 || u.Errors > u.Count || (u.Avg == nil) != (u.Errors == u.Count) {
				t.Errorf("%s: got upstream %+v", id, u)
			}
		}
	}
	if again, err := b.Hour(t.Context()); err != nil || reflect.ValueOf(again).Pointer() != reflect.ValueOf(rows).Pointer() {
		t.Errorf("got another map, %v: want the same one until it is read anew", err)
	}
}

func TestAnInstanceWithoutQueriesHasALastHourOfNone(t *testing.T) {
	b := breakdown.New(options(openLog(t, nil), history{}, members(ours, ours, ours)))
	rows, err := b.Hour(t.Context())
	got, known := rows["a"]
	if err != nil || !known || got.Total != 0 || got.P50 != nil || got.Upstreams == nil {
		t.Errorf("got %+v, %t, %v", got, known, err)
	}
}

func TestWithoutALogTheLastHourIsOfReportsAndNothingIsWrong(t *testing.T) {
	b := breakdown.New(off(pushedHistory(), members("off", "off", "off")))
	rows, err := b.Hour(t.Context())
	if err != nil || len(rows) != 3 || rows["b"].Source != "reports" || rows["b"].Total == 0 {
		t.Errorf("got %+v, %v", rows, err)
	}
}

func TestADeadLogCostsItsDeadlineOnceInThirtySeconds(t *testing.T) {
	h := pushedHistory()
	synctest.Test(t, func(t *testing.T) {
		b := breakdown.New(options(silentLog{}, h, members(ours, "off", ours)))
		began := time.Now()
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				rows, err := b.Hour(t.Context())
				if took := time.Since(began); took > 1100*time.Millisecond || took < 500*time.Millisecond {
					t.Errorf("took %s, want the deadline", took)
				}
				if err == nil || err.Error() != "query log unavailable: no answer within 800ms" || len(rows) != 3 || rows["a"].Source != "reports" {
					t.Errorf("got %d rows, %v; want those of reports and the reason", len(rows), err)
				}
			})
		}
		all.Wait()
		for range 300 {
			time.Sleep(time.Second)
			began := time.Now()
			if _, err := b.Hour(t.Context()); err == nil {
				t.Error("got no error of a log that is dead")
			}
			if took := time.Since(began); took > 0 {
				t.Errorf("took %s although an answer was known", took)
			}
		}
		time.Sleep(10 * time.Minute) // too old to be told for the last hour
		began = time.Now()
		if _, err := b.Hour(t.Context()); err == nil || time.Since(began) == 0 {
			t.Errorf("got %v after %s, want it read anew", err, time.Since(began))
		}
		time.Sleep(2 * time.Second) // what runs ends
	})
}

// countingLog answers as it is told, and counts.
type countingLog struct {
	silentLog

	calls atomic.Int64
	takes time.Duration
	fails atomic.Bool
}

func (c *countingLog) Latency(ctx context.Context, _ fleet.QueryFilter, _ bool) (fleet.QueryLatency, error) {
	n := c.calls.Add(1)
	select {
	case <-time.After(c.takes):
	case <-ctx.Done():
		return fleet.QueryLatency{}, ctx.Err()
	}
	if c.fails.Load() {
		return fleet.QueryLatency{}, fmt.Errorf("latency: %w: connection refused", fleet.ErrUnavailable)
	}
	return fleet.QueryLatency{Groups: []fleet.QueryLatencyGroup{{InstanceID: "a", Count: uint64(n)}}}, nil
}

func (*countingLog) Upstreams(context.Context, fleet.QueryFilter, bool) (fleet.QueryUpstreams, error) {
	return fleet.QueryUpstreams{}, nil
}

func TestTheLastHourIsReadAnewBehindTheBackOfThoseWhoAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &countingLog{takes: 300 * time.Millisecond}
		b := breakdown.New(options(log, history{}, members(ours, ours, ours)))
		ask := func(wantTotal uint64, wantTook time.Duration) {
			t.Helper()
			began := time.Now()
			rows, err := b.Hour(t.Context())
			if took := time.Since(began); err != nil || rows["a"].Total != wantTotal || took != wantTook {
				t.Errorf("after %s: got total %d, %v in %s; want %d in %s", time.Since(began), rows["a"].Total, err, took, wantTotal, wantTook)
			}
		}
		ask(1, 300*time.Millisecond)
		time.Sleep(29 * time.Second)
		ask(1, 0)
		time.Sleep(2 * time.Second)
		ask(1, 0) // starts the next
		ask(1, 0)
		time.Sleep(time.Second)
		ask(2, 0)
		if n := log.calls.Load(); n != 2 {
			t.Errorf("the log was asked %d times, want 2", n)
		}
		log.fails.Store(true)
		time.Sleep(31 * time.Second)
		ask(2, 0) // still without an error: the failure is not known yet
		time.Sleep(time.Second)
		for range 10 {
			rows, err := b.Hour(t.Context())
			if err == nil || !strings.Contains(err.Error(), "connection refused") || len(rows) != 0 {
				t.Errorf("got %v, %v", rows, err)
			}
			time.Sleep(time.Second)
		}
		if n := log.calls.Load(); n != 3 {
			t.Errorf("a failing log was asked %d times, want it left alone for 30 s", n)
		}
		log.fails.Store(false)
		time.Sleep(30 * time.Second)
		if _, err := b.Hour(t.Context()); err == nil {
			t.Error("got no error while the log is asked again")
		}
		time.Sleep(time.Second)
		ask(4, 0)
	})
}

func TestWhoDoesNotWaitForTheLastHourLeavesItToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &countingLog{takes: 300 * time.Millisecond}
		b := breakdown.New(options(log, history{}, members(ours, ours, ours)))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := b.Hour(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
		}
		if rows, err := b.Hour(t.Context()); err != nil || rows["a"].Total != 1 {
			t.Errorf("got %v, %v, want the first answer", rows, err)
		}
	})
}

// slowStore takes its time for each instance.
func slowStore(takes time.Duration) func(context.Context, string, fleet.Size, time.Time, time.Time) ([]fleet.Slice, error) {
	return func(ctx context.Context, _ string, size fleet.Size, from, _ time.Time) ([]fleet.Slice, error) {
		select {
		case <-time.After(takes):
			start := from.Add(time.Hour / 2).Truncate(size.Duration())
			return []fleet.Slice{{Size: size, Start: start, BootID: "b", Outcomes: fleet.Outcomes{fleet.Cached: 1}}}, nil
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", fleet.ErrUnavailable, ctx.Err())
		}
	}
}

func TestReportsThatTakeLongerThanASecondAreToldWhenTheyAreThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := members(ours, ours, ours)
		for i := range 100 {
			list = append(list, breakdown.Member{ID: fmt.Sprint(i), DNS: true, QueryLog: "off"})
		}
		o := options(&countingLog{}, history{}, list)
		o.Slices = slowStore(150 * time.Millisecond) // eight at a time: two seconds for all
		b := breakdown.New(o)
		began := time.Now()
		rows, err := b.Hour(t.Context())
		if took := time.Since(began); took > 1100*time.Millisecond || err == nil || err.Error() != "reports: those of 52 instances are still being read" || len(rows) != 51 {
			t.Errorf("got %d rows, %v in %s; want what there is after a second", len(rows), err, took)
		}
		time.Sleep(2 * time.Second)
		if rows, err := b.Hour(t.Context()); err != nil || len(rows) != 103 || rows["99"].Total != 1 {
			t.Errorf("later: got %d rows, %v; want all", len(rows), err)
		}
		for range 300 {
			time.Sleep(500 * time.Millisecond)
			if rows, err := b.Hour(t.Context()); err != nil || len(rows) != 103 {
				t.Fatalf("while it is read anew: got %d rows, %v; want all", len(rows), err)
			}
		}
		time.Sleep(20 * time.Second) // what runs ends
	})
}

func TestAStoreThatHangsCostsTheLastHourNoMoreThanItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := options(&countingLog{}, history{}, members(ours, "off", ours))
		o.Slices = slowStore(time.Hour)
		b := breakdown.New(o)
		began := time.Now()
		rows, err := b.Hour(t.Context())
		if took := time.Since(began); took > 1100*time.Millisecond || err == nil || !strings.HasPrefix(err.Error(), "reports: ") || rows["a"].Source != "clickhouse" {
			t.Errorf("got %v, %v in %s; want the rows of the log within a second", rows, err, took)
		}
		time.Sleep(20 * time.Second)
		if _, err := b.Hour(t.Context()); err == nil || err.Error() != "reports: those of 1 instances did not come within 15s" {
			t.Errorf("later: got %v", err)
		}
	})
}

func TestAStoreThatIsAwayIsNamedInTheLastHour(t *testing.T) {
	o := options(&countingLog{}, history{}, members(ours, "off", ours))
	o.Slices = func(context.Context, string, fleet.Size, time.Time, time.Time) ([]fleet.Slice, error) {
		return nil, fmt.Errorf("%w: connection refused", fleet.ErrUnavailable)
	}
	rows, err := breakdown.New(o).Hour(t.Context())
	if err == nil || err.Error() != "reports: store unavailable: connection refused" || len(rows) != 2 {
		t.Errorf("got %d rows, %v", len(rows), err)
	}
}
