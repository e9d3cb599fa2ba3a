package shipper_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
)

var errAway = errors.New("sink is away")

// mood is how a sink takes a batch.
type mood int

const (
	well         mood = iota
	down              // an error at once
	lostAnswer        // stored, and an error
	hanging           // nothing until the deadline
	hangingAfter      // stored, then nothing until the deadline
	slow              // two seconds, then stored
	invalid           // refused for good
)

// sink stores a batch by its identity, once, and misbehaves as it is told.
type sink struct {
	mu     sync.Mutex
	mood   func(b querylog.Batch) mood // nil: always well
	stored map[string][]fleet.QueryEvent
	order  []querylog.Batch // as they were stored
	tries  []time.Time
}

func newSink(mood func(querylog.Batch) mood) *sink {
	return &sink{mood: mood, stored: map[string][]fleet.QueryEvent{}}
}

func always(m mood) func(querylog.Batch) mood { return func(querylog.Batch) mood { return m } }

func (s *sink) set(mood func(querylog.Batch) mood) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mood = mood
}

func (s *sink) Write(ctx context.Context, b querylog.Batch) error {
	s.mu.Lock()
	s.tries = append(s.tries, time.Now())
	m := well
	if s.mood != nil {
		m = s.mood(b)
	}
	s.mu.Unlock()
	switch m {
	case down:
		return errAway
	case hanging:
		<-ctx.Done()
		return ctx.Err()
	case invalid:
		return fmt.Errorf("%w: of this day there is no table", fleet.ErrInvalid)
	case slow:
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	case well, lostAnswer, hangingAfter:
	}
	s.store(b)
	if m == hangingAfter {
		<-ctx.Done()
	}
	if m == lostAnswer || m == hangingAfter {
		return errAway
	}
	return nil
}

func (s *sink) store(b querylog.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := fmt.Sprintf("%s/%s/%d", b.InstanceID, b.BootID, b.Seq)
	if _, known := s.stored[id]; known {
		return
	}
	s.stored[id] = b.Events
	s.order = append(s.order, b)
}

// counts is how often each event is stored, by its name.
func (s *sink) counts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := map[string]int{}
	for _, events := range s.stored {
		for _, e := range events {
			n[e.QName]++
		}
	}
	return n
}

// once says whether n events are stored, none of them twice.
func (s *sink) once(t testing.TB, n int) {
	t.Helper()
	counts := s.counts()
	doubled := 0
	for _, times := range counts {
		if times > 1 {
			doubled++
		}
	}
	if len(counts) != n || doubled > 0 {
		t.Errorf("got %d events, %d of them more than once, want %d, each once", len(counts), doubled, n)
	}
}

// inOrder says whether the batches of each boot were stored in their order.
func (s *sink) inOrder(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	last := map[string]uint64{}
	for _, b := range s.order {
		if b.Seq <= last[b.BootID] {
			t.Errorf("boot %s: got batch %d after %d, want the oldest first", b.BootID, b.Seq, last[b.BootID])
		}
		last[b.BootID] = b.Seq
	}
}
