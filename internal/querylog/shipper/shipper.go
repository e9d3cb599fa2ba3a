// Package shipper brings batches of query events to a sink, by way of a spool on disk while the sink is away.
//
// A batch that a Shipper took without an error is stored by the sink or synced in the spool, from which it is delivered
// as it is, with the identity it came with, until the sink has it, refuses it for good, or it is over the spool's
// bounds. A sink that knows batches by their identity so has each of them once. What is lost when the process is killed
// is what no Write has answered for yet.
package shipper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/batch"
	"dnsfleet/internal/querylog/spool"
)

// The wait after a failed delivery from the spool: up to firstWait, doubled up to maxWait, each with jitter.
const (
	firstWait = time.Second
	maxWait   = 30 * time.Second
)

// Options say what a shipper works with. What is 0 or nil gets its default, Sink and Codec have none.
type Options struct {
	Sink     querylog.Sink
	Codec    *batch.Codec
	Spool    *spool.Spool  // nil: there is no disk, so batches that the sink does not take are the caller's to keep or to lose
	Timeout  time.Duration // of a try of the sink while Write's caller waits; 3 s
	Patience time.Duration // of a try from the spool, where nobody waits: a slow line must get a large batch through; 45 s
	Log      *slog.Logger  // slog.DiscardHandler
}

// Shipper is a querylog.Sink in front of another. It may be used concurrently.
type Shipper struct {
	o    Options
	wake chan struct{} // something is in the spool

	delivered, spooled, invalid, failures atomic.Uint64
	away                                  atomic.Bool
}

// Stats count since New. The spool's own figures are those of its Stats.
type Stats struct {
	Delivered uint64 // events that the sink stored
	Spooled   uint64 // events that took the way through the spool
	Invalid   uint64 // events that the sink refused for good
	Failures  uint64 // tries of the sink that failed in another way
	Away      bool   // the last try failed
	Spool     spool.Stats
}

// New makes a shipper. Run delivers what is in the spool.
func New(o Options) *Shipper {
	if o.Timeout == 0 {
		o.Timeout = 3 * time.Second
	}
	if o.Patience == 0 {
		o.Patience = 45 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Shipper{o: o, wake: make(chan struct{}, 1)}
}

// Stats tell what became of batches so far.
func (s *Shipper) Stats() Stats {
	st := Stats{
		Delivered: s.delivered.Load(), Spooled: s.spooled.Load(), Invalid: s.invalid.Load(),
		Failures: s.failures.Load(), Away: s.away.Load(),
	}
	if s.o.Spool != nil {
		st.Spool = s.o.Spool.Stats()
	}
	return st
}

// Write hands b to the sink. If that fails, or earlier batches wait in the spool, it puts b there, synced. So nil says
// that b will not get lost, not that it can be read already. fleet.ErrInvalid says that b can never be stored; any other
// error, that neither took it: the sink may have it all the same, so that it can only be tried again with the same identity.
// Write waits for the sink no longer than the timeout of one try.
func (s *Shipper) Write(ctx context.Context, b querylog.Batch) error {
	var refused error
	if s.o.Spool == nil || s.o.Spool.Empty() {
		refused = s.try(ctx, b, s.o.Timeout)
		if refused == nil || errors.Is(refused, fleet.ErrInvalid) {
			return refused
		}
	}
	if s.o.Spool == nil {
		return refused
	}
	packed, err := s.o.Codec.Encode(b)
	if err == nil {
		err = s.o.Spool.Append(len(b.Events), packed)
	}
	if err != nil {
		return errors.Join(err, refused)
	}
	s.spooled.Add(uint64(len(b.Events)))
	s.nudge()
	return nil
}

func (s *Shipper) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// try writes b to the sink and counts how that ended.
func (s *Shipper) try(ctx context.Context, b querylog.Batch, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := s.o.Sink.Write(ctx, b)
	switch {
	case err == nil:
		s.delivered.Add(uint64(len(b.Events)))
		if s.away.Swap(false) {
			s.o.Log.InfoContext(ctx, "query log is back")
		}
		return nil
	case errors.Is(err, fleet.ErrInvalid):
		s.invalid.Add(uint64(len(b.Events)))
		s.o.Log.WarnContext(ctx, "query log refuses a batch for good", "instance", b.InstanceID, "seq", b.Seq, "events", len(b.Events), "err", err)
	default:
		s.failures.Add(1)
		if !s.away.Swap(true) {
			s.o.Log.WarnContext(ctx, "query log is away", "err", err)
		}
	}
	return fmt.Errorf("write batch %s/%s/%d: %w", b.InstanceID, b.BootID, b.Seq, err)
}

// Run delivers what is in the spool, oldest first, until ctx ends. What is left then stays in the spool.
func (s *Shipper) Run(ctx context.Context) error {
	if s.o.Spool == nil {
		<-ctx.Done()
		return nil
	}
	failures := 0
	for ctx.Err() == nil {
		err := s.deliver(ctx)
		if err == nil {
			failures = 0
			continue
		}
		var wait <-chan time.Time // until there is something
		if !errors.Is(err, spool.ErrEmpty) {
			wait = time.After(backoff(failures))
			failures++
		}
		wake := s.wake
		if wait != nil {
			wake = nil // more batches are no reason to try sooner
		}
		select {
		case <-ctx.Done():
		case <-wait:
		case <-wake:
		}
	}
	return nil
}

// deliver brings the oldest record of the spool to the sink.
func (s *Shipper) deliver(ctx context.Context) error {
	r, err := s.o.Spool.Oldest()
	if err != nil {
		return err
	}
	b, err := s.o.Codec.Decode(r.Payload)
	if err != nil { // its sums are right: somebody else wrote it
		s.o.Log.WarnContext(ctx, "record of the spool is no batch", "events", r.Events, "err", err)
		s.o.Spool.Drop(r)
		return nil
	}
	err = s.try(ctx, b, s.o.Patience)
	switch {
	case err == nil:
		s.o.Spool.Done(r)
	case errors.Is(err, fleet.ErrInvalid):
		s.o.Spool.Done(r) // counted as invalid
	default:
		return err
	}
	return nil
}

// backoff is the wait after that many failures before this one, between half and the whole of its step.
func backoff(failures int) time.Duration {
	step := min(firstWait<<min(failures, 10), maxWait)
	return step/2 + rand.N(step/2) //nolint:gosec // spreads load, keeps no secret
}
