package replica

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/syncapi"
)

const (
	defaultStatsInterval = 10 * time.Second
	maxStretch           = 4 // times its own interval: further a primary cannot slow a reporter down
	stopTimeout          = 3 * time.Second
	minSliceBytes        = 64 << 10 // one slice of many upstreams must fit
	drainPause           = 200 * time.Millisecond
	maxDrain             = 256 // pushes in a row; more than any backlog takes
)

// Source is the history that a Reporter delivers, and the clock that it is built on. The Reporter calls it from one
// goroutine.
type Source interface {
	// Pending are complete slices that the store does not have, oldest first, of at most maxBytes of JSON together.
	Pending(maxBytes int) []fleet.Slice
	// Sent tells that a push brought these slices (perhaps none), and up to where the store now holds each boot and size.
	Sent(sent []fleet.Slice, until []fleet.SlicesUntil)
	// Now is the clock of the history: monotonic within a boot.
	Now() time.Time
	// Correct tells how much must be added to Now, as it is at this moment, to get the store's clock. It is called after
	// every exchange, before Sent, so it mostly holds nothing but the noise of the network; what to do with it is for
	// the Source.
	Correct(offset time.Duration)
}

// ReporterOptions are what NewReporter needs. Report, Source and Sender are required.
type ReporterOptions struct {
	// Report is the state of the instance; the Reporter fills in protocol, seq, sent_at, interval_seconds, clock skew
	// and slices.
	Report   func() fleet.Report
	Source   Source
	Sender   Sender
	Interval time.Duration    // 0 = 10 s
	Wall     func() time.Time // the wall clock, whose skew is reported; nil = time.Now
	Log      *slog.Logger
}

// ReporterStats is how a Reporter does, for metrics and for people.
type ReporterStats struct {
	Pushes      uint64 // that were stored
	Failures    uint64 // that were not, retried at once or later
	Slices      uint64 // that were stored
	InARow      int    // failures since the last success
	LastSuccess time.Time
	LastError   string         // of the last failure, "" after a success
	ClockSkew   *time.Duration // wall clock minus the store's, nil until it was measured
	Superseded  bool           // the store holds a report of a later boot of this instance: two processes share its id
}

// Reporter pushes what an instance counted. Its Stats are safe for concurrent use.
type Reporter struct {
	o ReporterOptions

	// The following belong to Run.
	seq     uint64
	budget  int           // bytes of slices in one push
	bare    bool          // the last push was refused as invalid: go without slices once, so that the counters arrive
	ahead   time.Duration // by which the Source's clock is, and stays, ahead of the store's
	settled bool          // a push came through, so that the next ones may follow their own rhythm
	drained int           // pushes in a row that only brought more slices
	retry   backoff
	class   int       // status of the failures in a row
	failing time.Time // when the first of them was

	mu    sync.Mutex // guards the following
	stats ReporterStats
}

// NewReporter is a reporter that has sent nothing.
func NewReporter(o ReporterOptions) *Reporter {
	if o.Interval <= 0 {
		o.Interval = defaultStatsInterval
	}
	if o.Wall == nil {
		o.Wall = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Reporter{o: o, budget: syncapi.MaxSliceBytes}
}

// Stats tells how it goes.
func (r *Reporter) Stats() ReporterStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// Run pushes now, then at every interval, and once more when ctx ends, for which it takes three seconds at most. Slices
// that are to go with that last push must be complete before ctx ends. It returns nil and may run once.
func (r *Reporter) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if !sleep(ctx, r.turn(ctx)) {
			break
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	for range maxDrain {
		_, more, err := r.pushInTime(last)
		if err != nil {
			r.o.Log.WarnContext(last, "last push failed", "err", err)
		}
		if err != nil || !more {
			break
		}
	}
	return nil
}

// turn pushes and returns how long to wait for the next turn.
func (r *Reporter) turn(ctx context.Context) time.Duration {
	reply, more, err := r.pushInTime(ctx)
	switch {
	case ctx.Err() != nil:
		return 0 // the end is no failure
	case err != nil:
		r.failed(ctx, err)
		return r.retry.next(err)
	}
	r.succeeded(ctx, reply)
	next := r.nextTurn(reply)
	switch {
	case more && next <= r.o.Interval && r.drained < maxDrain:
		r.drained++
		return drainPause + upTo(2*drainPause)
	case !r.settled:
		// Instances that started together, or found their primary together, part here.
		r.settled = true
		next = upTo(next)
	default:
		next = jittered(next)
	}
	r.drained = 0
	return next
}

// nextTurn is the interval, longer where the primary asks for that.
func (r *Reporter) nextTurn(reply syncapi.PushReply) time.Duration {
	own := r.o.Interval.Seconds()
	return time.Duration(min(max(own, reply.NextPushSeconds), maxStretch*own) * float64(time.Second))
}

// failed counts a failure. It logs the first of a row, and the next of another kind.
func (r *Reporter) failed(ctx context.Context, err error) {
	class := syncapi.StatusOf(err)
	if r.retry.failures == 0 {
		r.failing = time.Now()
	}
	if r.retry.failures == 0 || class != r.class {
		r.o.Log.WarnContext(ctx, "push failed, will be tried again", "err", err)
	}
	r.class = class
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.InARow++
	r.stats.LastError = err.Error()
}

func (r *Reporter) succeeded(ctx context.Context, reply syncapi.PushReply) {
	if r.retry.failures > 0 {
		r.o.Log.InfoContext(ctx, "push works again", "failures", r.retry.failures, "after", time.Since(r.failing).Round(time.Millisecond))
	}
	r.retry.reset()
	r.mu.Lock()
	defer r.mu.Unlock()
	superseded := reply.Result == fleet.EndedBoot
	if superseded && !r.stats.Superseded {
		r.o.Log.WarnContext(ctx, "another process reports as this instance; its counters are shown, not these")
	}
	r.stats.Superseded = superseded
	r.stats.InARow, r.stats.LastError, r.stats.LastSuccess = 0, "", r.o.Wall()
}
