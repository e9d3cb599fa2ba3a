// Package sketch keeps who asked, and for what most, in buckets of ten minutes: what slices and reports tell of it, in
// bounded memory whatever is asked.
//
// A bucket holds a sketch of its clients (16 KiB at most) and three of names, each of which counts up to 1,536 names: about
// 150 KiB with names of usual length, 450 KiB with the longest that DNS has. The running bucket and the six before it are
// kept, so an instance that is asked for very many names takes 3 MiB, one under attack 10 MiB, and one at home much less.
package sketch

import (
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"dnsfleet/internal/fleet"
)

// Buckets is the sketches of one boot. All methods may be called concurrently.
type Buckets struct {
	hash hasher

	mu      sync.Mutex // guards what follows
	batch   batch
	any     bool // something was observed
	closed  []*bucket
	running *bucket
	next    *bucket                 // of events that came after the end of the running one; nil when there are none
	carried map[slot]fleet.Sketches // of slices from before a correction of the clock, by their new place
}

type bucket struct {
	start   time.Time
	told    bool // an hour slice has its tops
	clients fleet.Uniques

	domains, blocked, askers top
}

type slot struct {
	size  fleet.Size
	start int64
}

const width = fleet.TenMinutes

// New makes the sketches of a boot that begins at now. The clock is the one by which slices are cut.
func New(now time.Time) *Buckets {
	return &Buckets{
		hash: hasher{maphash.MakeSeed()}, batch: newBatch(), running: &bucket{start: now.Truncate(width.Duration())},
	}
}

func (b *bucket) end() time.Time { return b.start.Add(width.Duration()) }

// Observe counts events, at now. They go into the running bucket; only while that one is over and not closed yet, those that
// came after its end go into the next. So an event that comes late for its own bucket counts into the one after it.
func (b *Buckets) Observe(events []fleet.QueryEvent, now time.Time) {
	if len(events) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.any = true
	if end := b.running.end(); !now.Before(end) {
		var after []fleet.QueryEvent
		events, after = split(events, end)
		if len(after) > 0 && b.next == nil {
			b.next = &bucket{start: end}
		}
		b.count(after, b.next)
	}
	b.count(events, b.running)
}

// split parts events into those before end and the others.
func split(events []fleet.QueryEvent, end time.Time) (before, after []fleet.QueryEvent) {
	for _, e := range events {
		if e.Time.Before(end) {
			before = append(before, e)
		} else {
			after = append(after, e)
		}
	}
	return before, after
}

func (b *Buckets) count(events []fleet.QueryEvent, into *bucket) {
	defer b.batch.clear()
	for i := range events {
		b.batch.add(&events[i])
	}
	for name, n := range b.batch.domains {
		name = domain(name)
		into.domains.add(b.hash, name, n.all)
		if n.blocked > 0 {
			into.blocked.add(b.hash, name, n.blocked)
		}
	}
	client := func(name string, n int64) {
		name = tellable(name)
		into.askers.add(b.hash, name, n)
		into.clients.Add([]byte(name))
	}
	for name, n := range b.batch.named {
		client(name, n)
	}
	for address, n := range b.batch.addresses {
		client(address.String(), n)
	}
}

// Idle reports whether the running bucket is empty.
func (b *Buckets) Idle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.running.domains.sketch == nil && b.running.askers.sketch == nil
}

// Complete gives a slice that has just ended its sketches. Slices must come in their order, ten minutes before the hour
// that ends with them: those of ten minutes close the running bucket.
func (b *Buckets) Complete(s *fleet.Slice) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch s.Size {
	case fleet.TenMinutes:
		if b.running.start.Equal(s.Start) {
			b.rotate()
		}
		s.Sketches = fleet.Sketches{Clients: b.tenMinutes(s.Start)}
	case fleet.Hour:
		s.Sketches = b.hour(s.Start)
	}
}

func (b *Buckets) rotate() {
	end := b.running.end()
	b.closed = append(b.closed, b.running)
	b.running, b.next = b.next, nil
	if b.running == nil {
		b.running = &bucket{start: end}
	}
	b.expire()
}

// expire forgets what neither the hour that is running or ends now nor LastHour needs.
func (b *Buckets) expire() {
	oldest := b.running.start.Add(-fleet.Hour.Duration())
	b.closed = slices.DeleteFunc(b.closed, func(c *bucket) bool { return c.start.Before(oldest) })
}

func (b *Buckets) tenMinutes(start time.Time) fleet.Uniques {
	clients := b.take(width, start).Clients
	for _, c := range b.closed {
		if c.start.Equal(start) {
			clients.Merge(c.clients)
		}
	}
	return clients
}

func (b *Buckets) hour(start time.Time) fleet.Sketches {
	var untold []*bucket
	for _, c := range b.closed {
		if !c.told && c.start.Truncate(fleet.Hour.Duration()).Equal(start) {
			c.told = true
			untold = append(untold, c)
		}
	}
	hour := b.merge(fleet.TopOfHour, untold)
	before := b.take(fleet.Hour, start)
	return fleet.MergeSlices(fleet.Slice{Sketches: before}, fleet.Slice{Sketches: hour}).Sketches
}

func (b *Buckets) take(size fleet.Size, start time.Time) fleet.Sketches {
	at := slot{size, start.Unix()}
	s := b.carried[at]
	delete(b.carried, at)
	return s
}

func (b *Buckets) merge(limit int, buckets []*bucket) fleet.Sketches {
	var sum bucket
	for _, c := range buckets {
		sum.clients.Merge(c.clients)
		sum.domains.merge(b.hash, &c.domains)
		sum.blocked.merge(b.hash, &c.blocked)
		sum.askers.merge(b.hash, &c.askers)
	}
	return fleet.Sketches{
		Clients: sum.clients, TopDomains: sum.domains.list(limit), TopBlocked: sum.blocked.list(limit), TopClients: sum.askers.list(limit),
	}
}

// LastHour is the sketches of the running bucket and the five before it, of a boot that began at started; nil before the
// first event.
func (b *Buckets) LastHour(started time.Time) *fleet.LastHour {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.any {
		return nil
	}
	from := b.running.start.Add(-5 * width.Duration())
	recent := []*bucket{b.running}
	if b.next != nil {
		recent = append(recent, b.next)
	}
	for _, c := range b.closed {
		if !c.start.Before(from) {
			recent = append(recent, c)
		}
	}
	if from.Before(started) {
		from = started
	}
	return &fleet.LastHour{From: from, Sketches: b.merge(fleet.TopOfNow, recent)}
}

// Move follows a correction of the clock. place tells where a start is by the new clock, now is the start of the minute that is
// running, old are the slices that were built before, and rebuilt those that took their place, which are given their
// sketches. Everything counts into the bucket and the hour nearest to where it was.
func (b *Buckets) Move(now time.Time, place func(fleet.Size, time.Time) time.Time, old, rebuilt []fleet.Slice) {
	b.mu.Lock()
	defer b.mu.Unlock()
	moved := append(b.closed, b.running)
	if b.next != nil {
		moved = append(moved, b.next)
	}
	for _, c := range moved {
		c.start = place(width, c.start)
	}
	b.closed, b.running, b.next = moved, &bucket{start: now.Truncate(width.Duration())}, nil
	carried := map[slot][]fleet.Slice{}
	for _, s := range old {
		if s.Size != fleet.Minute {
			at := slot{s.Size, place(s.Size, s.Start).Unix()}
			carried[at] = append(carried[at], s)
		}
	}
	b.carried = map[slot]fleet.Sketches{}
	for at, list := range carried {
		b.carried[at] = fleet.MergeSlices(list...).Sketches
	}
	for i := range rebuilt {
		switch s := &rebuilt[i]; s.Size {
		case fleet.TenMinutes:
			s.Clients = b.tenMinutes(s.Start)
		case fleet.Hour:
			s.Sketches = b.hour(s.Start)
		}
	}
	b.expire()
}
