// Package recorder collects an instance's query events and hands them on as batches.
package recorder

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/batch"
)

// Options say whose events are collected and how. What is 0 or nil gets its default; the ids and Sink have none.
type Options struct {
	InstanceID string
	BootID     string
	Sink       querylog.Sink // takes the batches, one after the other; a shipper, where events are not to get lost

	// Lend says that Sink keeps nothing of a batch's Events but their texts when its Write has returned. So the next collection
	// is told in the same room, which spares the garbage collector most of what it has to do.
	Lend bool

	// Observe sees every collection of events once, clean and oldest first, before it is cut into batches and whatever the
	// sink says to them; nil for none. Calls follow each other, and the next waits for this one: Observe is quick, changes
	// nothing, keeps the slice no longer than the call, and calls no Flush.
	Observe func([]fleet.QueryEvent)

	Interval     time.Duration // events are handed on at least this often, until SetInterval says otherwise; 500 ms
	WakeEvents   int           // and when there are about this many; 8,192
	MaxEvents    int           // bound of what is held, with 64 bytes for each name; events beyond it are dropped; 131,072, which take 16 MB
	FlushTimeout time.Duration // bound of the last hand-over, after the context of Run has ended; 10 s
	Log          *slog.Logger  // slog.DiscardHandler
}

// What SetInterval may set.
const (
	MinInterval = 100 * time.Millisecond
	MaxInterval = 30 * time.Second
)

// Recorder collects events. It may be used concurrently.
//
// Each event that was given to it is in the end dropped, refused, or in a batch that the sink took. A killed process
// loses those that wait: what was recorded within the interval and the batch under way.
type Recorder struct {
	o        Options
	buffer   *buffer
	interval atomic.Int64 // nanoseconds

	handed, refused, batches atomic.Uint64
	refusing                 atomic.Bool

	mu     sync.Mutex // guards the following, and the order of batches
	seq    uint64
	chunks []*chunk
	order  order
	names  names
	room   []fleet.QueryEvent // for the next collection
}

// Stats count events since New.
type Stats struct {
	Recorded uint64 // taken by Record
	Dropped  uint64 // not taken, because as many waited as may
	Handed   uint64 // in batches that the sink took
	Refused  uint64 // in batches that it did not take: they are lost
	Batches  uint64 // handed or refused
}

// Waiting is how many events were recorded and not handed on yet.
func (s Stats) Waiting() uint64 { return s.Recorded - min(s.Handed+s.Refused, s.Recorded) }

// New makes a recorder. Run hands on what it collects.
func New(o Options) *Recorder {
	if o.Interval == 0 {
		o.Interval = 500 * time.Millisecond
	}
	if o.WakeEvents == 0 {
		o.WakeEvents = 8192
	}
	if o.MaxEvents == 0 {
		o.MaxEvents = 128 << 10
	}
	if o.FlushTimeout == 0 {
		o.FlushTimeout = 10 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Recorder{o: o, buffer: newBuffer(o.MaxEvents, o.WakeEvents)}
	r.interval.Store(int64(o.Interval))
	return r
}

// SetInterval changes how often events are handed on at least, within MinInterval and MaxInterval. The interval that runs
// ends as it was; the next is of the new length.
func (r *Recorder) SetInterval(d time.Duration) {
	r.interval.Store(int64(min(max(d, MinInterval), MaxInterval)))
}

// Record takes an event. It never waits for a sink, and allocates only where a few hundred events need new room. *e and the
// bytes of its name are the caller's again when it returns; its other texts may be kept.
//
// Lanes spare those who record the wait for each other. Lane 0 is for all, a lane from 1 for one who records at a time; twice as
// many as there are cores have room of their own. In a wrong lane nothing gets lost either, but somebody may have to wait.
func (r *Recorder) Record(lane int, e *fleet.QueryEvent) { r.buffer.add(lane, e) }

// Stats tell what became of events so far.
func (r *Recorder) Stats() Stats {
	handed, refused := r.handed.Load(), r.refused.Load() // first, so that they never exceed what was recorded
	return Stats{
		Handed: handed, Refused: refused, Batches: r.batches.Load(),
		Recorded: r.buffer.recorded(), Dropped: r.buffer.dropped.Load(),
	}
}

// Run hands on what is recorded, until ctx ends, and then what is left. What is recorded after that waits for Flush.
func (r *Recorder) Run(ctx context.Context) error {
	// A batch under way is not to fail because the process stops, nor may it keep the process from stopping.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(r.o.FlushTimeout, cancel) })()
	every := time.Duration(r.interval.Load())
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			r.Flush(work)
			return nil
		case <-tick.C:
			if now := time.Duration(r.interval.Load()); now != every {
				every = now
				tick.Reset(every)
			}
		case <-r.buffer.wake:
		}
		r.Flush(work)
	}
}

// Flush hands on all that is recorded and returns when the sink has answered. A caller that stopped Run and then
// everything that records calls it last.
func (r *Recorder) Flush(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.chunks = r.buffer.collect(r.chunks[:0])
	if len(r.chunks) == 0 {
		return
	}
	events := r.sorted()
	if r.o.Observe != nil {
		r.o.Observe(events)
	}
	for len(events) > 0 {
		n := batch.Cut(events)
		r.seq++
		r.hand(ctx, querylog.Batch{InstanceID: r.o.InstanceID, BootID: r.o.BootID, Seq: r.seq, Events: events[:n:n]})
		events = events[n:]
	}
	r.buffer.release(r.chunks)
	clear(r.chunks)
}

func (r *Recorder) hand(ctx context.Context, b querylog.Batch) {
	err := r.o.Sink.Write(ctx, b)
	r.batches.Add(1)
	if err == nil {
		r.handed.Add(uint64(len(b.Events)))
		r.refusing.Store(false)
		return
	}
	r.refused.Add(uint64(len(b.Events)))
	if !r.refusing.Swap(true) { // one line for each time that it begins
		r.o.Log.ErrorContext(ctx, "query events are lost, nothing takes them", "seq", b.Seq, "events", len(b.Events), "err", err)
	}
}
