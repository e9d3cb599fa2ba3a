package replica_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/syncapi"
	"dnsfleet/internal/syncapi/replica"
)

// source is a history whose slices wait until a push has brought them.
type source struct {
	mu        sync.Mutex
	pending   []fleet.Slice
	stubborn  bool // keeps what was sent
	perPush   int  // 0 = all
	offset    time.Duration
	fixed     bool // does not let itself be corrected
	corrected []time.Duration
	budgets   []int
	sent      [][]fleet.Slice
}

func (s *source) Pending(maxBytes int) []fleet.Slice {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.budgets = append(s.budgets, maxBytes)
	if s.perPush > 0 && len(s.pending) > s.perPush {
		return s.pending[:s.perPush]
	}
	return s.pending
}

func (s *source) Sent(sent []fleet.Slice, _ []fleet.SlicesUntil) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(s.sent, sent)
	if !s.stubborn {
		s.pending = s.pending[len(sent):]
	}
}

func (s *source) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.offset)
}

func (s *source) Correct(offset time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corrected = append(s.corrected, offset)
	if !s.fixed {
		s.offset += offset
	}
}

// slicesOf are n minute slices.
func slicesOf(n int) []fleet.Slice {
	start := time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC)
	out := make([]fleet.Slice, n)
	for i := range out {
		out[i] = fleet.Slice{Size: fleet.Minute, Start: start.Add(time.Duration(i) * time.Minute), BootID: "boot", Upstreams: []fleet.UpstreamSlice{}}
	}
	return out
}

// sender notes each push and when it came. answer decides; nil means stored.
type sender struct {
	mu     sync.Mutex
	pushes []fleet.Report
	at     []time.Time
	answer func(n int, r fleet.Report) (syncapi.PushReply, error)
	hang   bool
}

func (s *sender) Push(ctx context.Context, r fleet.Report) (syncapi.PushReply, error) {
	s.mu.Lock()
	s.pushes, s.at = append(s.pushes, r), append(s.at, time.Now())
	n, answer, hang := len(s.pushes), s.answer, s.hang
	s.mu.Unlock()
	if hang {
		<-ctx.Done()
		return syncapi.PushReply{}, ctx.Err()
	}
	if answer != nil {
		return answer(n, r)
	}
	return stored(r), nil
}

func stored(r fleet.Report) syncapi.PushReply {
	return syncapi.PushReply{OK: true, Result: fleet.Stored, ServerTime: time.Now(), NextPushSeconds: r.IntervalSeconds}
}

func (s *sender) gaps() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []time.Duration
	for i := range s.at[1:] {
		out = append(out, s.at[i+1].Sub(s.at[i]))
	}
	return out
}

// bench is a reporter in a bubble.
type bench struct {
	source   *source
	sender   *sender
	reporter *replica.Reporter
	log      *bytes.Buffer
	stop     func()
}

// start runs a reporter with an interval of ten seconds. It is stopped when the test ends, if not before.
func start(t *testing.T, change ...func(*bench, *replica.ReporterOptions)) *bench {
	t.Helper()
	b := &bench{source: &source{}, sender: &sender{}, log: new(bytes.Buffer)}
	o := replica.ReporterOptions{
		Report: func() fleet.Report { return fleet.Report{InstanceID: "attic-pi", Name: "Attic"} },
		Source: b.source, Sender: b.sender, Interval: 10 * time.Second, Log: slog.New(slog.NewTextHandler(b.log, nil)),
	}
	for _, c := range change {
		c(b, &o)
	}
	b.reporter = replica.NewReporter(o)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.reporter.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	t.Cleanup(b.stop)
	return b
}

// rest lets d pass, and then everything settle.
func rest(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func within(t *testing.T, what string, got, least, most time.Duration) {
	t.Helper()
	if got < least || got > most {
		t.Errorf("%s is %v, want %v to %v", what, got, least, most)
	}
}

func TestReporterRhythm(t *testing.T) {
	t.Run("it pushes at once, then in a phase of its own, then at every interval", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t)
			rest(10 * time.Minute)
			b.stop()
			gaps := b.sender.gaps()
			if n := len(gaps); n < 55 || n > 70 {
				t.Fatalf("%d pushes in ten minutes", n)
			}
			within(t, "the first gap", gaps[0], 0, 10*time.Second)
			seen := map[time.Duration]bool{}
			for _, g := range gaps[1 : len(gaps)-1] { // the last is the stop
				within(t, "a gap", g, 9*time.Second, 11*time.Second)
				seen[g] = true
			}
			if len(seen) < 10 {
				t.Errorf("the gaps have %d values, want jitter", len(seen))
			}
			for i, r := range b.sender.pushes {
				if r.Seq != uint64(i+1) || r.Protocol != fleet.Protocol || r.IntervalSeconds != 10 || !r.SentAt.Equal(b.sender.at[i]) || r.SentAt.Location() != time.UTC {
					t.Fatalf("push %d has seq %d, protocol %d, interval %v and was sent at %s", i+1, r.Seq, r.Protocol, r.IntervalSeconds, r.SentAt)
				}
				if r.Slices == nil || r.Upstreams == nil || r.Acks == nil || r.PolicyUnapplied == nil || r.Blocklist.Lists == nil {
					t.Fatalf("push %d has a nil list: %+v", i+1, r)
				}
			}
			if s := b.reporter.Stats(); s.Pushes != uint64(len(b.sender.pushes)) || s.Failures != 0 || s.LastError != "" || s.LastSuccess.IsZero() {
				t.Errorf("stats are %+v after %d pushes", s, len(b.sender.pushes))
			}
		})
	})
	t.Run("reporters that start together part", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			seconds := map[int64]bool{}
			for range 20 {
				b := start(t)
				rest(11 * time.Second)
				b.stop()
				seconds[int64(b.sender.gaps()[0]/time.Second)] = true
			}
			if len(seconds) < 4 {
				t.Errorf("20 reporters made their second push in %d different seconds", len(seconds))
			}
		})
	})
	t.Run("a primary under load slows it down, but not without end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, func(b *bench, _ *replica.ReporterOptions) {
				b.sender.answer = func(n int, r fleet.Report) (syncapi.PushReply, error) {
					reply := stored(r)
					reply.NextPushSeconds = map[int]float64{3: 15, 4: 1e300, 5: -1, 6: 0}[n]
					return reply, nil
				}
			})
			rest(2 * time.Minute)
			b.stop()
			gaps := b.sender.gaps()
			within(t, "the gap after 15", gaps[2], 13*time.Second, 17*time.Second)
			within(t, "the gap after 1e300", gaps[3], 36*time.Second, 44*time.Second)
			within(t, "the gap after -1", gaps[4], 9*time.Second, 11*time.Second)
			within(t, "the gap after 0", gaps[5], 9*time.Second, 11*time.Second)
			if r := b.sender.pushes[4]; r.IntervalSeconds != 10 {
				t.Errorf("it then says interval %v, want its own 10", r.IntervalSeconds)
			}
		})
	})
}

func TestReporterRetries(t *testing.T) {
	refused := errors.New("connection refused")
	t.Run("the first within a second, later ones ever slower up to half a minute", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, func(b *bench, _ *replica.ReporterOptions) {
				b.sender.answer = func(n int, r fleet.Report) (syncapi.PushReply, error) {
					if n <= 12 {
						return syncapi.PushReply{}, refused
					}
					return stored(r), nil
				}
			})
			rest(10 * time.Minute)
			b.stop()
			gaps := b.sender.gaps()
			full := time.Second
			for i, g := range gaps[:12] {
				within(t, fmt.Sprintf("gap %d", i+1), g, full/2, full)
				full = min(2*full, 30*time.Second)
			}
			s := b.reporter.Stats()
			if s.Failures != 12 || s.InARow != 0 || s.LastError != "" {
				t.Errorf("stats are %+v, want 12 failures and none in a row", s)
			}
			for line, want := range map[string]int{"push failed": 1, "push works again": 1} {
				if got := strings.Count(b.log.String(), line); got != want {
					t.Errorf("logged %q %d times, want %d:\n%s", line, got, want, b.log)
				}
			}
		})
	})
	t.Run("another kind of failure is logged too", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, func(b *bench, _ *replica.ReporterOptions) {
				b.sender.answer = func(n int, _ fleet.Report) (syncapi.PushReply, error) {
					if n <= 3 {
						return syncapi.PushReply{}, refused
					}
					return syncapi.PushReply{}, &syncapi.StatusError{Status: http.StatusUnauthorized, Message: "unknown token"}
				}
			})
			rest(5 * time.Minute)
			if got := strings.Count(b.log.String(), "push failed, will be tried again"); got != 2 {
				t.Errorf("logged %d failures, want one of each kind:\n%s", got, b.log)
			}
			if s := b.reporter.Stats(); s.InARow < 10 || !strings.Contains(s.LastError, "unknown token") {
				t.Errorf("stats are %+v", s)
			}
			b.stop()
		})
	})
	t.Run("a primary that names a time is obeyed from the second failure on", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, func(b *bench, _ *replica.ReporterOptions) {
				b.sender.answer = func(int, fleet.Report) (syncapi.PushReply, error) {
					return syncapi.PushReply{}, &syncapi.StatusError{Status: 503, Message: "busy", RetryAfter: 20 * time.Second}
				}
			})
			rest(90 * time.Second)
			b.stop()
			gaps := b.sender.gaps()
			within(t, "the first gap", gaps[0], 500*time.Millisecond, time.Second)
			within(t, "the second gap", gaps[1], 20*time.Second, 20*time.Second)
			within(t, "the third gap", gaps[2], 20*time.Second, 20*time.Second)
		})
	})
}

func TestReporterStops(t *testing.T) {
	t.Run("with one more push, under a context of its own", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t)
			rest(time.Minute)
			before := len(b.sender.pushes)
			b.source.pending = slicesOf(2)
			b.stop()
			if got := len(b.sender.pushes); got != before+1 || len(b.sender.pushes[before].Slices) != 2 {
				t.Errorf("%d pushes at the stop, the last with %d slices, want one with 2", got-before, len(b.sender.pushes[before].Slices))
			}
		})
	})
	t.Run("and brings all slices that wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t)
			rest(time.Minute)
			b.source.pending, b.source.perPush = slicesOf(10), 3
			b.stop()
			if left := len(b.source.pending); left != 0 {
				t.Errorf("%d slices were left behind", left)
			}
		})
	})
	t.Run("within three seconds where the primary hangs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, func(b *bench, _ *replica.ReporterOptions) { b.sender.hang = true })
			rest(time.Minute)
			stopped := time.Now()
			b.stop()
			within(t, "the stop", time.Since(stopped), 3*time.Second, 3*time.Second)
			if got := len(b.sender.pushes); got != 2 {
				t.Errorf("%d pushes, want the one that hung and the last", got)
			}
		})
	})
	t.Run("and an end before the first push is no failure", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, func(b *bench, _ *replica.ReporterOptions) { b.sender.hang = true })
			synctest.Wait()
			b.sender.mu.Lock()
			b.sender.hang = false
			b.sender.mu.Unlock()
			b.stop()
			if strings.Contains(b.log.String(), "failed") {
				t.Errorf("logged %s", b.log)
			}
		})
	})
}

func TestReporterClock(t *testing.T) {
	future := func(server time.Time) error {
		return &syncapi.FutureError{ServerTime: server, Latency: 40 * time.Millisecond}
	}
	for name, wrong := range map[string]time.Duration{
		"an hour ahead": time.Hour, "ten years ahead": 87600 * time.Hour, "ten years behind": -87600 * time.Hour, "right": 0,
	} {
		t.Run("a clock that is "+name+" is corrected by the first exchange", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := start(t, func(b *bench, o *replica.ReporterOptions) {
					b.source.offset = wrong
					o.Wall = func() time.Time { return time.Now().Add(wrong) }
					b.sender.answer = func(_ int, r fleet.Report) (syncapi.PushReply, error) {
						server := time.Now()
						time.Sleep(80 * time.Millisecond)
						if r.SentAt.After(server.Add(fleet.MaxFuture)) {
							return syncapi.PushReply{}, future(server.Add(40 * time.Millisecond))
						}
						reply := stored(r)
						reply.ServerTime, reply.Latency = server.Add(40*time.Millisecond), 40*time.Millisecond
						return reply, nil
					}
				})
				rest(time.Second)
				b.sender.mu.Lock()
				wantPushes := 1
				if wrong > 0 {
					wantPushes = 2
				}
				if n := len(b.sender.pushes); n < wantPushes {
					t.Errorf("%d pushes in the first second, want %d: a refusal is retried at once", n, wantPushes)
				}
				b.sender.mu.Unlock()
				if s := b.reporter.Stats(); s.Pushes == 0 || s.ClockSkew == nil || *s.ClockSkew != wrong {
					t.Errorf("stats are %+v, want a skew of %v", s, wrong)
				}
				rest(time.Minute)
				b.stop()
				if b.source.offset != 0 || b.source.corrected[0] != -wrong {
					t.Errorf("the source's clock is off by %v after %v, want right after %v", b.source.offset, b.source.corrected, -wrong)
				}
				last := b.sender.pushes[len(b.sender.pushes)-1]
				if last.ClockSkew == nil || *last.ClockSkew != wrong.Seconds() {
					t.Errorf("reports a skew of %v, want %v", last.ClockSkew, wrong.Seconds())
				}
				if b.sender.pushes[0].ClockSkew != nil {
					t.Errorf("reports a skew of %v before it was measured", *b.sender.pushes[0].ClockSkew)
				}
			})
		})
	}
	t.Run("a source that keeps its clock does not silence the instance", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, func(b *bench, _ *replica.ReporterOptions) {
				b.source.offset, b.source.fixed = time.Hour, true
				b.sender.answer = func(_ int, r fleet.Report) (syncapi.PushReply, error) {
					if r.SentAt.After(time.Now().Add(fleet.MaxFuture)) {
						return syncapi.PushReply{}, future(time.Now())
					}
					return stored(r), nil
				}
			})
			rest(5 * time.Minute)
			b.stop()
			if s := b.reporter.Stats(); s.Failures != 1 || s.Pushes < 20 {
				t.Errorf("stats are %+v, want one failure and then success", s)
			}
		})
	})
	t.Run("a primary that refuses for ever is asked no more often for it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, func(b *bench, _ *replica.ReporterOptions) {
				b.sender.answer = func(int, fleet.Report) (syncapi.PushReply, error) { return syncapi.PushReply{}, future(time.Now()) }
			})
			rest(10 * time.Minute)
			b.stop()
			if n := len(b.sender.pushes); n > 80 {
				t.Errorf("%d pushes in ten minutes", n)
			}
		})
	})
}

func TestReporterBringsSlices(t *testing.T) {
	t.Run("a backlog at once, in pushes of half a second", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, func(b *bench, _ *replica.ReporterOptions) { b.source.pending, b.source.perPush = slicesOf(100), 10 })
			rest(8 * time.Second)
			if left := len(b.source.pending); left != 0 {
				t.Errorf("%d of 100 slices wait after 8 s", left)
			}
			for _, g := range b.sender.gaps()[:9] {
				within(t, "a gap", g, 200*time.Millisecond, 600*time.Millisecond)
			}
			for _, budget := range b.source.budgets {
				if budget != syncapi.MaxSliceBytes {
					t.Fatalf("asked for %d bytes of slices, want %d", budget, syncapi.MaxSliceBytes)
				}
			}
			if s := b.reporter.Stats(); s.Slices != 100 {
				t.Errorf("counted %d slices, want 100", s.Slices)
			}
			b.stop()
		})
	})
	t.Run("at its interval where a push does not make them fewer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, func(b *bench, _ *replica.ReporterOptions) { b.source.pending, b.source.stubborn = slicesOf(3), true })
			rest(10 * time.Minute)
			if n := len(b.sender.pushes); n > 70 {
				t.Errorf("%d pushes in ten minutes", n)
			}
			b.stop()
		})
	})
	t.Run("at its interval where the primary is under load", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, func(b *bench, _ *replica.ReporterOptions) {
				b.source.pending, b.source.perPush = slicesOf(1000), 1
				b.sender.answer = func(_ int, r fleet.Report) (syncapi.PushReply, error) {
					reply := stored(r)
					reply.NextPushSeconds = 15
					return reply, nil
				}
			})
			rest(5 * time.Minute)
			if n := len(b.sender.pushes); n > 25 {
				t.Errorf("%d pushes in five minutes", n)
			}
			b.source.mu.Lock()
			b.source.pending = nil
			b.source.mu.Unlock()
			b.stop()
		})
	})
	t.Run("in smaller pushes where they are too large for what stands between", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, func(b *bench, _ *replica.ReporterOptions) {
				b.sender.answer = func(n int, r fleet.Report) (syncapi.PushReply, error) {
					if n <= 6 {
						return syncapi.PushReply{}, fmt.Errorf("primary: %w", &syncapi.StatusError{Status: 413, Message: "too large"})
					}
					return stored(r), nil
				}
			})
			rest(5 * time.Minute)
			b.stop()
			want := []int{512 << 10, 256 << 10, 128 << 10, 64 << 10, 64 << 10}
			if got := b.source.budgets[:5]; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("asked for %v bytes, want %v", got, want)
			}
			if got := b.source.budgets[len(b.source.budgets)-1]; got != 64<<10 {
				t.Errorf("asks for %d bytes in the end, want that it stays at 64 KiB", got)
			}
		})
	})
	t.Run("but not at the cost of its counters where one is refused as invalid", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, func(b *bench, _ *replica.ReporterOptions) {
				b.source.pending = slicesOf(1)
				b.sender.answer = func(_ int, r fleet.Report) (syncapi.PushReply, error) {
					if len(r.Slices) > 0 {
						return syncapi.PushReply{}, &syncapi.StatusError{Status: 400, Message: "slice start is not a whole multiple"}
					}
					return stored(r), nil
				}
			})
			rest(10 * time.Minute)
			b.stop()
			s := b.reporter.Stats()
			if s.Pushes < 45 || s.Failures > s.Pushes+2 {
				t.Errorf("%d pushes and %d failures in ten minutes, want one push for each interval", s.Pushes, s.Failures)
			}
		})
	})
}

func TestReporterTellsThatAnotherProcessHasItsID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(b *bench, _ *replica.ReporterOptions) {
			b.sender.answer = func(_ int, r fleet.Report) (syncapi.PushReply, error) {
				reply := stored(r)
				reply.Result = fleet.EndedBoot
				return reply, nil
			}
		})
		rest(time.Minute)
		b.stop()
		if got := strings.Count(b.log.String(), "another process reports as this instance"); got != 1 || !b.reporter.Stats().Superseded {
			t.Errorf("logged it %d times, want once: %s", got, b.log)
		}
	})
}

// store is a primary's own store.
type store struct {
	now   time.Time
	err   error
	role  fleet.Role
	token string
	hang  bool
}

func (s *store) Now(context.Context) (time.Time, error) { return s.now, nil }

func (s *store) SaveReport(ctx context.Context, _ fleet.Report, role fleet.Role, tokenID string) (fleet.Saved, error) {
	s.role, s.token = role, tokenID
	if s.hang {
		<-ctx.Done()
		return fleet.Saved{}, ctx.Err()
	}
	return fleet.Saved{Result: fleet.Stored, Time: s.now}, s.err
}

func TestAPrimaryReportsStraightToItsStore(t *testing.T) {
	now := time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)
	r := fleet.Report{IntervalSeconds: 10}
	t.Run("as a primary without a token", func(t *testing.T) {
		s := &store{now: now}
		reply, err := replica.StoreSender{Store: s}.Push(t.Context(), r)
		if err != nil || !reply.OK || !reply.ServerTime.Equal(now) || reply.NextPushSeconds != 10 || reply.SlicesStored == nil || s.role != fleet.RolePrimary || s.token != "" {
			t.Errorf("got %+v, %v with role %q and token %q", reply, err, s.role, s.token)
		}
	})
	t.Run("and is told the time where it is in the future", func(t *testing.T) {
		_, err := replica.StoreSender{Store: &store{now: now, err: fmt.Errorf("save: %w", fleet.ErrFutureReport)}}.Push(t.Context(), r)
		var future *syncapi.FutureError
		if !errors.As(err, &future) || !future.ServerTime.Equal(now) || !errors.Is(err, fleet.ErrFutureReport) {
			t.Errorf("got %v, want a FutureError with %s", err, now)
		}
	})
	t.Run("and does not wait for ever", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			started := time.Now()
			_, err := replica.StoreSender{Store: &store{hang: true}}.Push(t.Context(), r)
			if err == nil || time.Since(started) != 5*time.Second {
				t.Errorf("got %v after %v, want an error after 5 s", err, time.Since(started))
			}
		})
	})
}
