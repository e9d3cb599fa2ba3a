// Package stats counts what one instance does, and turns the counts into history: slices of a minute, ten minutes and
// an hour, kept on disk until the fleet has them.
//
// Counting is two calls on the hot path that neither allocate nor wait. The counters grow from the start of the process
// to its end; a minute is the difference between two readings of them, and longer slices are merged from minutes.
package stats

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/stats/history"
	"dnsfleet/internal/stats/sketch"
)

// Options are what Counters are made with.
type Options struct {
	// Dir is a directory of this package's own, made if it is missing. "" keeps history in memory only.
	Dir string
	// BootID names this boot and is new at every start; "" makes one.
	BootID string
	// Now is the wall clock, read once by New; nil is time.Now. All later times come from the monotonic clock.
	Now func() time.Time
	// Log may be nil.
	Log *slog.Logger
}

// Counters counts for one boot and keeps its history. All methods may be called concurrently.
type Counters struct {
	boot  string
	log   *slog.Logger
	tally *tally
	clock *clock
	book  *history.Book
	wake  chan struct{} // tells Run that the clock was corrected

	sketches *sketch.Buckets

	mu        sync.Mutex // guards what follows
	started   time.Time
	running   running
	longer    *assembler
	recent    []fleet.Slice // the last minutes, never changed in place
	known     bool          // a store has answered, so that Correct was told its clock
	corrected bool
	offered   bool // slices of this boot were handed out
	failing   bool // the last write to disk failed
}

// ErrInUse says that another process uses the directory.
var ErrInUse = history.ErrInUse

// New opens the history in o.Dir and closes the slices of a boot that ended without doing so, from what is on disk. It
// answers ErrInUse (wrapped) while another process has the directory. Damaged history is skipped and logged.
func New(o Options) (*Counters, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.BootID == "" {
		o.BootID = fleet.RandomID()
	}
	if !fleet.ValidID(o.BootID) {
		return nil, fmt.Errorf("%w: boot id %q", fleet.ErrInvalid, o.BootID)
	}
	book, err := history.Open(history.Options{Dir: o.Dir, Log: o.Log})
	if err != nil {
		return nil, err
	}
	if len(book.Slices(o.BootID)) > 0 {
		return nil, errors.Join(fmt.Errorf("%w: boot id %s was used before", fleet.ErrInvalid, o.BootID), book.Close())
	}
	c := &Counters{
		boot: o.BootID, log: o.Log, tally: newTally(), clock: newClock(o.Now()), book: book,
		wake: make(chan struct{}, 1), longer: newAssembler(),
	}
	c.started = c.clock.now()
	c.sketches = sketch.New(c.started)
	c.running = running{start: c.started.Truncate(time.Minute), since: c.started, before: c.tally.totals()}
	c.recover()
	return c, nil
}

// Record counts one query. It does not allocate or wait. A lane from 1 is for one who counts at a time and then shares no
// memory with other cores; lane 0, and those beyond twice the number of cores, are right too, but slower.
func (c *Counters) Record(lane int, o fleet.Outcome, d time.Duration) { c.tally.query(lane, o, d) }

// ObserveExchange counts one exchange with the upstream of that address; d counts only if it did not fail. After 63
// addresses all new ones count as "other".
func (c *Counters) ObserveExchange(address string, d time.Duration, failed bool) {
	c.tally.exchange(address, d, failed)
}

// Observe adds events to the sketches of clients and names, off the way of an answer: whoever collects events calls it with
// every batch. What comes later than its ten minutes were cut counts into the ones after, so that nothing is lost;
// what comes after Run has ended is in LastHour only. It keeps nothing of the list.
func (c *Counters) Observe(events []fleet.QueryEvent) { c.sketches.Observe(events, c.clock.now()) }

// LastHour is what was observed in the running ten minutes and the fifty before; nil before the first event. It may be a
// second old. The caller may keep it, but not change it.
func (c *Counters) LastHour() *fleet.LastHour {
	return c.sketches.LastHour(c.StartedAt(), c.clock.now())
}

// Counters is what was counted since New. While nothing is being counted, the outcomes add up to Latency.Count().
func (c *Counters) Counters() fleet.Counters { return c.tally.totals().counters() }

// Durations tells how many queries took no longer than each of the ascending bounds (within the error of a
// fleet.Latency), how many there were, and the exact sum of their durations.
func (c *Counters) Durations(bounds []time.Duration) (within []uint64, count uint64, sum time.Duration) {
	t := c.tally.totals()
	within = make([]uint64, len(bounds))
	for bin, n := range t.bins {
		count += n
		for i, bound := range bounds {
			if bin <= fleet.LatencyBin(bound) {
				within[i] += n
			}
		}
	}
	return within, count, time.Duration(t.nanos)
}

// BootID names this boot.
func (c *Counters) BootID() string { return c.boot }

// StartedAt is when this boot began, by Now's clock. It lies within the boot's first minute slice.
func (c *Counters) StartedAt() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.started
}

// Now is the time by which slices are cut: the wall clock at the start, moved on by the monotonic clock, and what Correct
// added. It is UTC and jumps only in Correct.
func (c *Counters) Now() time.Time { return c.clock.now() }

// Pending are the slices to send, oldest first across boots and sizes; the JSON of the list has at most maxBytes bytes.
// Slices of this boot are held back until a store has answered (Correct or Sent), because only then is it known
// whether they have the right time. After Run has returned the boot's last slices are among them. Now and then a slice
// that was sent before is in the list, as a witness: the answer shows whether the store remembers it.
func (c *Counters) Pending(maxBytes int) []fleet.Slice {
	c.mu.Lock()
	defer c.mu.Unlock()
	pending := c.book.Pending(c.clock.now(), c.boot, !c.known, maxBytes)
	c.offered = c.offered || slices.ContainsFunc(pending, func(s fleet.Slice) bool { return s.BootID == c.boot })
	return pending
}

// Sent takes a store's answer to a push that carried the slices sent. They are done, and stay two hours more; if until
// shows that the store forgot slices, all that are still here go again. Call it after every push that was answered, also
// one without slices, and after Correct.
func (c *Counters) Sent(sent []fleet.Slice, until []fleet.SlicesUntil) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = true
	c.note(c.book.Sent(c.clock.now(), c.boot, sent, until))
}

// HistoryStats is the state of the history: how many slices are kept, wait, and were dropped unsent.
type HistoryStats = history.Stats

// History tells how the history is.
func (c *Counters) History() HistoryStats { return c.book.Stats() }

// Close frees the directory, after Run has returned and the last Sent.
func (c *Counters) Close() error { return c.book.Close() }

// note logs when keeping history begins to fail and when it works again; in between it is kept in memory.
func (c *Counters) note(err error) {
	switch {
	case err != nil && !c.failing:
		c.log.Error("history is kept in memory only", "err", err)
	case err == nil && c.failing:
		c.log.Info("history is kept on disk again")
	}
	c.failing = err != nil
}
