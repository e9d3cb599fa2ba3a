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

func TestABatchWhoseServerDiedBeforeItAnsweredCountsOnce(t *testing.T) {
	s := chtest.Start(t)
	l := open(t, s.DSN())
	write(t, l, someBatch(1, 100))
	s.DieAfterInsert()
	if err := l.Write(t.Context(), someBatch(2, 100)); !errors.Is(err, fleet.ErrUnavailable) {
		t.Fatalf("Write to a server that dies: got %v, want %v", err, fleet.ErrUnavailable)
	}
	s.WaitDead()
	if err := l.Write(t.Context(), someBatch(2, 100)); !errors.Is(err, fleet.ErrUnavailable) {
		t.Fatalf("Write to a dead server: got %v, want %v", err, fleet.ErrUnavailable)
	}
	s.Restart()
	if got := s.Value(rawCount); got != "200" {
		t.Fatalf("stored before the retry: got %s, want 200: the server died too early to show anything", got)
	}
	write(t, l, someBatch(2, 100))
	wantCounts(t, s, 200)
}

func TestARetryMakesUpForMinutesThatADyingServerDidNotStore(t *testing.T) {
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
	s := chtest.Start(t)
	l := open(t, s.DSN())
	write(t, l, someBatch(1, 10))
	const window, batches = 5, 40
	for _, table := range []string{"dns_queries", "dns_queries_1m"} {
		s.Exec(fmt.Sprintf("ALTER TABLE %s MODIFY SETTING non_replicated_deduplication_window = %d", table, window))
	}
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
