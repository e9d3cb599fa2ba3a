package replica_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/syncapi"
	"dnsfleet/internal/syncapi/replica"
)

// poster answers batches as it is told.
type poster struct {
	reply syncapi.EventsReply
	err   error
}

func (p *poster) PostEvents(context.Context, []byte) (syncapi.EventsReply, error) {
	return p.reply, p.err
}

func TestASenderOfEventsFollowsWhatThePrimarySays(t *testing.T) {
	log := new(bytes.Buffer)
	p := &poster{err: fleet.ErrUnavailable}
	s := replica.NewEventSender(replica.EventSenderOptions{Client: p, Log: slog.New(slog.NewTextHandler(log, nil))})
	step := func(what string, reply syncapi.EventsReply, err error, queryLog string, want replica.EventSenderStats) {
		t.Helper()
		p.reply, p.err = reply, err
		if got := s.Send(t.Context(), packed); !errors.Is(got, err) {
			t.Errorf("%s: got error %v, want %v", what, got, err)
		}
		if got := s.QueryLog(); got != queryLog {
			t.Errorf("%s: got query log %q, want %q", what, got, queryLog)
		}
		if got := s.Stats(); got != want {
			t.Errorf("%s: got %+v, want %+v", what, got, want)
		}
	}
	kept := syncapi.EventsReply{OK: true, Stored: true, QueryLog: "clickhouse"}
	off := syncapi.EventsReply{OK: true, QueryLog: "off"}
	step("no primary", syncapi.EventsReply{}, fleet.ErrUnavailable, "", replica.EventSenderStats{Failed: 1})
	step("one that keeps events", kept, nil, "clickhouse", replica.EventSenderStats{Sent: 1, Failed: 1})
	step("one that keeps none", off, nil, "off", replica.EventSenderStats{Sent: 1, Discarded: 1, Failed: 1})
	step("the same", off, nil, "off", replica.EventSenderStats{Sent: 1, Discarded: 2, Failed: 1})
	step("none again", syncapi.EventsReply{}, fleet.ErrInvalid, "off", replica.EventSenderStats{Sent: 1, Discarded: 2, Failed: 2})
	step("it keeps none still", off, nil, "off", replica.EventSenderStats{Sent: 1, Discarded: 3, Failed: 2})
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "query events are thrown away") {
		t.Errorf("logged %q, want one line of what is thrown away", got)
	}
	step("it keeps events again", kept, nil, "clickhouse", replica.EventSenderStats{Sent: 2, Discarded: 3, Failed: 2})
	step("and none once more", off, nil, "off", replica.EventSenderStats{Sent: 2, Discarded: 4, Failed: 2})
	if got := log.String(); strings.Count(got, "\n") != 3 {
		t.Errorf("logged %q, want a line for each change", got)
	}
}

func TestAnIntervalIsHandedOnWithJitter(t *testing.T) {
	for name, tc := range map[string]struct {
		seconds float64
		err     error
		want    time.Duration // 0 = none
	}{
		"half a second": {0.5, nil, 500 * time.Millisecond},
		"ten":           {10, nil, 10 * time.Second},
		"none":          {0, nil, 0},
		"a negative":    {-3, nil, 0},
		"an absurd one": {1e300, nil, time.Hour},
		"a failure":     {5, errors.New("away"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			told := map[time.Duration]bool{}
			p := &poster{reply: syncapi.EventsReply{OK: true, Stored: true, NextEventsSeconds: tc.seconds}, err: tc.err}
			s := replica.NewEventSender(replica.EventSenderOptions{Client: p, OnInterval: func(d time.Duration) {
				told[d] = true
				if d < tc.want*9/10 || d > tc.want*11/10 {
					t.Errorf("got %v, want %v and up to a tenth more or less", d, tc.want)
				}
			}})
			for range 50 {
				if err := s.Send(t.Context(), packed); !errors.Is(err, tc.err) {
					t.Fatal(err)
				}
			}
			if tc.want > 0 && len(told) < 10 {
				t.Errorf("got %d different intervals of 50, want them to be spread", len(told))
			}
		})
	}
}

func TestEventsAreSentByManyAtOnce(t *testing.T) {
	s := replica.NewEventSender(replica.EventSenderOptions{
		Client: &poster{reply: syncapi.EventsReply{OK: true, Stored: true, QueryLog: "sqlite", NextEventsSeconds: 1}}, OnInterval: func(time.Duration) {},
	})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				if err := s.Send(t.Context(), packed); err != nil || s.QueryLog() != "sqlite" {
					t.Errorf("got %v from %q, want sqlite to take it", err, s.QueryLog())
				}
			}
		})
	}
	all.Wait()
	if got, want := s.Stats(), (replica.EventSenderStats{Sent: 800}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
