// Package sketch keeps who asked, and for what most, in buckets of ten minutes: what slices and reports tell of it, in
// bounded memory whatever is asked.
//
// A bucket holds a sketch of its clients (16 KiB at most, and 64 KiB more while it is running) and three of names, each of
// which counts up to 1,536 names: 100 KiB with names of usual length, 450 KiB with the longest that DNS has. The running
// bucket and the six before it are kept, so an instance that is asked for very many names takes 3 MiB, one under attack 10 MiB, and one at home much less.
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
	next    *bucket // of events that came after the end of the running one; nil when there are none

	before *bucket         // sum of the closed ones that LastHour takes; nil = not known
	last   *fleet.LastHour // what LastHour told last; nil = it must be made anew
	lastAt time.Time
	news   bool // something was observed since

	carried map[slot]fleet.Sketches // of slices from before a correction of the clock, by their new place
}

type bucket struct {
	start   time.Time
	told    bool // an hour slice has its tops
	clients fleet.Uniques
	known   *[knownClients]uint64 // hashes of clients that were added, by their lowest bits; nil when it is closed

	domains, blocked, askers top
}

type slot struct {
	size  fleet.Size
	start int64
}

const width = fleet.TenMinutes

// knownClients is how many clients a bucket may recognize, which costs less than to add them again: a HyperLogLog that is
// not full yet is rewritten for every 160 or so.
const knownClients = 1 << 13

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
	b.any, b.news = true, true
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
	for _, n := range b.batch.domains.list {
		name := domain(n.key)
		into.domains.add(b.hash, name, n.all)
		if n.blocked > 0 {
			into.blocked.add(b.hash, name, n.blocked)
		}
	}
	client := func(name string, n int64) {
		name = tellable(name)
		into.askers.add(b.hash, name, n)
		into.addClient(b.hash.Hash(name), name)
	}
	for _, n := range b.batch.named.list {
		client(n.key, n.all)
	}
	for _, n := range b.batch.addresses.list {
		client(n.key.String(), n.all)
	}
}

func (b *bucket) addClient(hash uint64, name string) {
	if b.known == nil {
		b.known = new([knownClients]uint64)
	}
	if at := &b.known[hash%knownClients]; *at != hash {
		*at = hash
		b.clients.Add([]byte(name))
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
	if s.Size == width && s.Start.Equal(b.running.start) {
		b.rotate()
	}
	b.fill(s)
}

func (b *Buckets) fill(s *fleet.Slice) {
	switch s.Size {
	case fleet.Minute:
	case fleet.TenMinutes:
		s.Sketches = fleet.Sketches{Clients: b.tenMinutes(s.Start)}
	case fleet.Hour:
		s.Sketches = b.hour(s.Start)
	}
}

func (b *Buckets) rotate() {
	end := b.running.end()
	b.running.known = nil
	b.closed = append(b.closed, b.running)
	b.running, b.next = b.next, nil
	if b.running == nil {
		b.running = &bucket{start: end}
	}
	b.expire()
}

// expire follows a change of the closed buckets, and forgets those that neither the hour that is running or has just ended
// nor LastHour needs.
func (b *Buckets) expire() {
	oldest := b.running.start.Add(-fleet.Hour.Duration())
	b.changed()
	b.closed = slices.DeleteFunc(b.closed, func(c *bucket) bool { return c.start.Before(oldest) })
}

func (b *Buckets) tenMinutes(start time.Time) fleet.Uniques {
	var clients fleet.Uniques
	clients.Merge(b.take(width, start).Clients)
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
	hour := b.sum(untold...).sketches(fleet.TopOfHour)
	before := b.take(fleet.Hour, start)
	return fleet.MergeSlices(fleet.Slice{Sketches: before}, fleet.Slice{Sketches: hour}).Sketches
}

func (b *Buckets) take(size fleet.Size, start time.Time) fleet.Sketches {
	at := slot{size, start.Unix()}
	s := b.carried[at]
	delete(b.carried, at)
	return s
}

func (b *Buckets) sum(buckets ...*bucket) *bucket {
	var sum bucket
	for _, c := range buckets {
		sum.clients.Merge(c.clients)
		sum.domains.merge(b.hash, &c.domains)
		sum.blocked.merge(b.hash, &c.blocked)
		sum.askers.merge(b.hash, &c.askers)
	}
	return &sum
}

func (b *bucket) sketches(limit int) fleet.Sketches {
	return fleet.Sketches{
		Clients: b.clients, TopDomains: b.domains.list(limit), TopBlocked: b.blocked.list(limit), TopClients: b.askers.list(limit),
	}
}

// fresh is how old an answer of LastHour may be: a page that many people watch asks for it much oftener than it changes.
const fresh = time.Second

// LastHour is the sketches of the running bucket and the five before it, of a boot that began at started; nil before the
// first event. What was observed less than a second before now may be missing if it was asked for within that second.
func (b *Buckets) LastHour(started, now time.Time) *fleet.LastHour {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.any {
		return nil
	}
	if b.last != nil && (!b.news || now.Sub(b.lastAt) < fresh) {
		return b.last
	}
	from := b.running.start.Add(-5 * width.Duration())
	if b.before == nil {
		b.before = b.sum(slices.DeleteFunc(slices.Clone(b.closed), func(c *bucket) bool { return c.start.Before(from) })...)
	}
	recent := []*bucket{b.before, b.running}
	if b.next != nil {
		recent = append(recent, b.next)
	}
	if from.Before(started) {
		from = started
	}
	b.last, b.lastAt, b.news = &fleet.LastHour{From: from, Sketches: b.sum(recent...).sketches(fleet.TopOfNow)}, now, false
	return b.last
}

// changed says that the closed buckets are others now.
func (b *Buckets) changed() { b.before, b.last = nil, nil }

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
		c.start, c.known = place(width, c.start), nil
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
		b.fill(&rebuilt[i])
	}
	b.expire()
}
