package querylogtest

import (
	"context"
	"errors"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
)

func testBadInput(t *testing.T, newLog func(t *testing.T) Opener) {
	sink, reader := newLog(t)(t)
	good := smallBatch("box1", "boot1", 1, 1)
	for name, spoil := range map[string]func(b *querylog.Batch){
		"a batch of nothing":             func(b *querylog.Batch) { b.Events = nil },
		"a batch of nobody":              func(b *querylog.Batch) { b.InstanceID = "" },
		"a batch of no boot":             func(b *querylog.Batch) { b.BootID = "" },
		"a batch without a number":       func(b *querylog.Batch) { b.Seq = 0 },
		"a batch of two days":            func(b *querylog.Batch) { b.Events[1].Time = b.Events[1].Time.Add(-day) },
		"a batch with an unknown result": func(b *querylog.Batch) { b.Events[0].Outcome = fleet.NumOutcomes },
	} {
		t.Run(name+" is invalid", func(t *testing.T) {
			b := smallBatch("box1", "boot1", 1, 2)
			spoil(&b)
			if err := sink.Write(limited(t), b); !errors.Is(err, fleet.ErrInvalid) {
				t.Errorf("got %v, want %v", err, fleet.ErrInvalid)
			}
			wantTotal(t, reader, 0)
		})
	}
	t.Run("what was refused can be sent again when it is good", func(t *testing.T) {
		if err := sink.Write(limited(t), good); err != nil {
			t.Fatal(err)
		}
		wantTotal(t, reader, 1)
	})
	yesterday := time.Now().UTC().Truncate(day).Add(-day)
	window := fleet.QueryFilter{From: yesterday, To: yesterday.Add(day)}
	for name, step := range map[string]time.Duration{"no step": 0, "a negative step": -time.Minute, "a step of a nanosecond": 1} {
		t.Run("a series with "+name+" is invalid", func(t *testing.T) {
			if _, err := reader.Series(limited(t), window, step, false); !errors.Is(err, fleet.ErrInvalid) {
				t.Errorf("got %v, want %v", err, fleet.ErrInvalid)
			}
		})
	}
	t.Run("a series without a window is invalid", func(t *testing.T) {
		if _, err := reader.Series(limited(t), fleet.QueryFilter{}, time.Hour, false); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("got %v, want %v", err, fleet.ErrInvalid)
		}
	})
	for _, cursor := range []string{"x", "-1", "1 OR 1=1", "99999999999999999999999", "\x00"} {
		t.Run("cursor "+cursor+" is invalid", func(t *testing.T) {
			if _, err := reader.Rows(limited(t), window, 10, cursor); !errors.Is(err, fleet.ErrInvalid) {
				t.Errorf("got %v, want %v", err, fleet.ErrInvalid)
			}
		})
	}
	t.Run("a call whose time is over fails", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := reader.Summary(ctx, window, false); err == nil {
			t.Error("Summary: got no error")
		}
		if err := sink.Write(ctx, smallBatch("box1", "boot1", 2, 1)); err == nil {
			t.Error("Write: got no error")
		}
		wantTotal(t, reader, 1)
	})
}
