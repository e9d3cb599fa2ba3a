package clickhouse_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/clickhouse"
	"dnsfleet/internal/querylog/clickhouse/chtest"
)

const (
	rawCount    = "SELECT count() FROM dns_queries"
	rollupCount = "SELECT sum(queries) FROM dns_queries_1m"
)

func yesterday() time.Time { return time.Now().UTC().Truncate(24 * time.Hour).Add(-time.Hour) }

// someBatch is n events of one minute, with outcomes in turn.
func someBatch(seq uint64, n int) querylog.Batch {
	b := querylog.Batch{InstanceID: "box1", BootID: "boot1", Seq: seq}
	for i := range n {
		b.Events = append(b.Events, fleet.QueryEvent{
			Time: yesterday().Add(time.Duration(i) * time.Millisecond), Protocol: "udp", QName: fmt.Sprintf("h%d.example.", i), QType: 1,
			QClass: 1, Outcome: fleet.Outcome(i % fleet.NumOutcomes), Duration: time.Duration(i) * time.Microsecond,
		})
	}
	return b
}

func write(t *testing.T, l *clickhouse.Log, b querylog.Batch) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := l.Write(ctx, b); err != nil {
		t.Fatalf("Write %d: %v", b.Seq, err)
	}
}

func wantCounts(t *testing.T, s *chtest.Server, want int) {
	t.Helper()
	for _, sql := range []string{rawCount, rollupCount} {
		if got := s.Value(sql); got != fmt.Sprint(want) {
			t.Errorf("%s: got %s, want %d", sql, got, want)
		}
	}
}

// eachProtocol runs a test over HTTP and over the native protocol, on one engine whose tables it finds gone.
func eachProtocol(t *testing.T, test func(t *testing.T, s *chtest.Server, url string)) {
	t.Helper()
	s := chtest.Start(t)
	for name, url := range map[string]string{"over HTTP": s.DSN(), "native": s.NativeDSN()} {
		t.Run(name, func(t *testing.T) { test(t, s, url) })
		s.Clear()
	}
}

func wantUnavailable(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, fleet.ErrUnavailable) || errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("%s: got %v, want %v", what, err, fleet.ErrUnavailable)
	}
}

func TestABatchWhoseServerDiedBeforeItAnsweredCountsOnceAlsoFromAnotherPrimary(t *testing.T) {
	t.Parallel()
	eachProtocol(t, func(t *testing.T, s *chtest.Server, url string) {
		one, other := open(t, url), open(t, url)
		write(t, one, someBatch(1, 100))
		write(t, other, someBatch(2, 100))
		s.DieAfterInsert()
		wantUnavailable(t, "Write to a server that dies", one.Write(t.Context(), someBatch(3, 100)))
		s.WaitDead()
		wantUnavailable(t, "Write to a dead server", one.Write(t.Context(), someBatch(3, 100)))
		s.Restart()
		if got := s.Value(rawCount); got != "300" {
			t.Fatalf("stored before the retry: got %s, want 300: the server died too early to show anything", got)
		}
		write(t, other, someBatch(3, 100))
		write(t, one, someBatch(3, 100))
		wantCounts(t, s, 300)
	})
}

func TestAWriteThatAHangingServerFinishesLaterCountsOnce(t *testing.T) {
	t.Parallel()
	eachProtocol(t, func(t *testing.T, s *chtest.Server, url string) {
		l := open(t, url)
		write(t, l, someBatch(1, 100))
		s.Hang()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		wantUnavailable(t, "Write to a server that hangs", l.Write(ctx, someBatch(2, 100)))
		s.Resume()
		write(t, l, someBatch(2, 100))
		wantCounts(t, s, 200)
	})
}

func TestAWriteThatASlowServerFinishesLaterCountsOnce(t *testing.T) {
	t.Parallel()
	eachProtocol(t, func(t *testing.T, s *chtest.Server, url string) {
		l := open(t, url)
		write(t, l, someBatch(1, 100))
		s.Delay(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		wantUnavailable(t, "Write to a slow server", l.Write(ctx, someBatch(2, 100)))
		s.Delay(0)
		write(t, l, someBatch(2, 100))
		wantCounts(t, s, 200)
	})
}

func TestNothingIsLostOrDoubledWhileAServerIsUnwell(t *testing.T) {
	t.Parallel()
	s := chtest.Start(t)
	const batches, events = 60, 50
	logs := []*clickhouse.Log{open(t, s.NativeDSN()), open(t, s.DSN())}
	write(t, logs[0], someBatch(1, events))
	began, failed, deaths := time.Now(), 0, 0
	for seq := uint64(2); seq <= batches; seq++ {
		switch {
		case seq%25 == 0:
			s.DieAfterInsert()
			deaths++
		case seq%7 == 0:
			s.LoseAnswers(1)
		case seq == 31:
			s.Restart()
			deaths++
		}
		for try := 0; ; try++ {
			if logs[try%2].Write(t.Context(), someBatch(seq, events)) == nil {
				break
			}
			if failed++; seq%25 == 0 && try == 0 {
				s.WaitDead()
				s.Restart()
			}
			if try > 20 {
				t.Fatalf("batch %d is never stored", seq)
			}
		}
	}
	t.Logf("%d batches of %d events by two primaries, %d writes failed, the server ended %d times: %s", batches, events, failed, deaths,
		time.Since(began).Round(time.Millisecond))
	if failed < batches/8 {
		t.Errorf("failed writes: got %d, want at least %d", failed, batches/8)
	}
	wantCounts(t, s, batches*events)
}

func TestABatchIsKnownForAsManyBatchesAsTheWindowHolds(t *testing.T) {
	t.Parallel()
	s := chtest.Start(t)
	l := open(t, s.DSN())
	write(t, l, someBatch(1, 10))
	const window = 5
	setWindow(s, window)
	for seq := uint64(2); seq <= 1+window; seq++ {
		write(t, l, someBatch(seq, 10))
	}
	for seq := uint64(2); seq <= 1+window; seq++ {
		write(t, l, someBatch(seq, 10))
	}
	wantCounts(t, s, 10*(1+window))
	write(t, l, someBatch(1, 10))
	t.Logf("a window of %d batches: the last %d count once when they come again; the one before them is stored again, in both tables", window, window)
	wantCounts(t, s, 10*(2+window))
}

// setWindow makes the tables remember that many batches.
func setWindow(s *chtest.Server, batches int) {
	for _, table := range []string{"dns_queries", "dns_queries_1m"} {
		s.Exec(fmt.Sprintf("ALTER TABLE %s MODIFY SETTING non_replicated_deduplication_window = %d", table, batches))
	}
}

func TestAFullDiskKeepsABatchForLater(t *testing.T) {
	t.Parallel()
	eachProtocol(t, func(t *testing.T, s *chtest.Server, url string) {
		l := open(t, url)
		write(t, l, someBatch(1, 10))
		s.Exec("ALTER TABLE dns_queries MODIFY SETTING min_free_disk_bytes_to_perform_insert = 1000000000000000")
		wantUnavailable(t, "Write to a full disk", l.Write(t.Context(), someBatch(2, 10)))
		s.Exec("ALTER TABLE dns_queries MODIFY SETTING min_free_disk_bytes_to_perform_insert = 0")
		write(t, l, someBatch(2, 10))
		s.Exec("ALTER TABLE dns_queries_1m MODIFY SETTING min_free_disk_bytes_to_perform_insert = 1000000000000000")
		wantUnavailable(t, "Write to a full disk of the minutes", l.Write(t.Context(), someBatch(3, 10)))
		s.Exec("ALTER TABLE dns_queries_1m MODIFY SETTING min_free_disk_bytes_to_perform_insert = 0")
		write(t, l, someBatch(3, 10))
		wantCounts(t, s, 30)
	})
}

func TestAServerThatRefusesTheUserSaysSoWithoutThePassword(t *testing.T) {
	t.Parallel()
	eachProtocol(t, func(t *testing.T, s *chtest.Server, url string) {
		s.Account("dnsfleet", "richtig")
		refused := open(t, strings.Replace(url, "://", "://dnsfleet:geheim@", 1))
		_, reading := refused.Summary(t.Context(), fleet.QueryFilter{}, false)
		for what, err := range map[string]error{"Write": refused.Write(t.Context(), someBatch(1, 10)), "Summary": reading, "Migrate": refused.Migrate(t.Context())} {
			wantRefused(t, what, err, "dnsfleet", "geheim")
		}
		write(t, open(t, strings.Replace(url, "://", "://dnsfleet:richtig@", 1)), someBatch(1, 10))
		wantCounts(t, s, 10)
	})
}

// wantRefused holds an error to being of a server that does not let the user in.
func wantRefused(t *testing.T, what string, err error, user, password string) {
	t.Helper()
	wantUnavailable(t, what, err)
	if err == nil || strings.Contains(err.Error(), password) || !strings.Contains(err.Error(), `does not let user "`+user+`" in`) {
		t.Errorf("%s: got %v, want one that names user %s and no password", what, err, user)
	}
}

func TestARetryMakesUpForMinutesThatADyingServerDidNotStore(t *testing.T) {
	t.Parallel()
	s := chtest.Start(t)
	l := open(t, s.DSN())
	write(t, l, someBatch(1, 100))
	// As when a server dies between both tables: rows without minutes.
	s.Exec("RENAME TABLE dns_queries_1m_mv TO aside")
	s.Exec("DETACH TABLE aside")
	write(t, l, someBatch(2, 100))
	s.Exec("ATTACH TABLE aside")
	s.Exec("RENAME TABLE aside TO dns_queries_1m_mv")
	if got := s.Value(rollupCount); got != "100" {
		t.Fatalf("minutes before the retry: got %s, want 100", got)
	}
	write(t, l, someBatch(2, 100))
	wantCounts(t, s, 200)
}

func TestLostAnswersOfMoreBatchesThanTheWindowCountOnce(t *testing.T) {
	t.Parallel()
	s := chtest.Start(t)
	l := open(t, s.DSN())
	write(t, l, someBatch(1, 10))
	const window, batches = 5, 20
	setWindow(s, window)
	lost := 0
	for seq := uint64(2); seq <= batches; seq++ {
		if seq%3 == 0 {
			s.LoseAnswers(2)
		}
		for l.Write(t.Context(), someBatch(seq, 10)) != nil {
			if lost++; lost > 2*batches {
				t.Fatal("no write succeeds")
			}
		}
	}
	t.Logf("%d batches, a window of %d, %d answers lost", batches, window, lost)
	if lost < batches/3 {
		t.Errorf("answers lost: got %d, want at least %d", lost, batches/3)
	}
	wantCounts(t, s, batches*10)
}

func TestAServerThatHangsCostsNoMoreThanTheContext(t *testing.T) {
	t.Parallel()
	s := chtest.Start(t)
	l := open(t, s.DSN())
	write(t, l, someBatch(1, 10))
	s.Hang()
	defer s.Resume()
	for name, call := range map[string]func(context.Context) error{
		"Write":   func(ctx context.Context) error { return l.Write(ctx, someBatch(2, 10)) },
		"Summary": func(ctx context.Context) error { _, err := l.Summary(ctx, fleet.QueryFilter{}, false); return err },
		"Rows":    func(ctx context.Context) error { _, err := l.Rows(ctx, fleet.QueryFilter{}, 10, ""); return err },
		"Export": func(ctx context.Context) error {
			return l.Export(ctx, fleet.QueryFilter{}, func(fleet.QueryRow) error { return nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			began := time.Now()
			err := call(ctx)
			if took := time.Since(began); !errors.Is(err, fleet.ErrUnavailable) || took > 5*time.Second {
				t.Errorf("got %v after %s, want %v at the deadline", err, took, fleet.ErrUnavailable)
			}
		})
	}
}

func TestOpeningDoesNotWaitForAServer(t *testing.T) {
	l := open(t, "clickhouse+http://user:geheim@127.0.0.1:1/db")
	err := l.Write(t.Context(), someBatch(1, 1))
	if !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("Write: got %v, want %v", err, fleet.ErrUnavailable)
	}
	if _, err := l.Summary(t.Context(), fleet.QueryFilter{}, false); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("Summary: got %v, want %v", err, fleet.ErrUnavailable)
	}
	if err == nil || strings.Contains(err.Error(), "geheim") {
		t.Errorf("error shows the password: %v", err)
	}
}

func TestOptionsThatCannotWorkAreRefused(t *testing.T) {
	for name, o := range map[string]clickhouse.Options{
		"an unknown scheme":            {URL: "http://127.0.0.1"},
		"no host":                      {URL: "clickhouse:///db"},
		"an empty host of several":     {URL: "clickhouse://u:geheim@a,,b/db"},
		"a port of letters":            {URL: "clickhouse://u:geheim@a:nine/db"},
		"a port that is none":          {URL: "clickhouse://u:geheim@a,b:70000/db"},
		"half an address":              {URL: "clickhouse://u:geheim@[::1/db"},
		"no scheme":                    {URL: "u:geheim@h/db"},
		"secure as a word":             {URL: "clickhouse://u:geheim@h/db?secure=perhaps"},
		"a password with a bare slash": {URL: "clickhouse://u:ge/heim%zz@h/db"},
		"a setting that is none":       {URL: "clickhouse://u:geheim@h/db?dial_timeout=soon"},
		"a cluster that is SQL":        {URL: "clickhouse://h", Cluster: "c' SYNC; DROP"},
		"a retention of a minute":      {URL: "clickhouse://h", Retention: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := clickhouse.Open(t.Context(), o)
			if !errors.Is(err, fleet.ErrInvalid) {
				t.Errorf("got %v, want %v", err, fleet.ErrInvalid)
			}
			if err != nil && strings.Contains(err.Error(), "heim") {
				t.Errorf("error shows the password: %v", err)
			}
		})
	}
}
