package recorder

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"

	"dnsfleet/internal/fleet"
)

// chunkEvents is how many events a chunk holds at most: enough to ask for one seldom, few enough to get one quickly.
const chunkEvents = 512

// buffer holds events between two collections, spread over shards so that cores which record at the same time rarely
// wait for each other. Its memory is chunks; there are never more than max, those that are collected and not released
// included.
type buffer struct {
	shards []shard
	mask   uint32
	size   int // events in a chunk
	max    int
	full   atomic.Int64  // chunks in all shards
	enough int64         // full chunks at which to wake the collector
	wake   chan struct{} // has room for one

	dropped atomic.Uint64

	mu   sync.Mutex
	free []*chunk
	used int
}

type chunk struct{ events []fleet.QueryEvent }

type shard struct {
	mu       sync.Mutex
	current  *chunk // nil until there is an event
	full     []*chunk
	recorded uint64
	_        [128]byte // keeps neighbours off this shard's cache lines
}

func newBuffer(maxEvents, wakeEvents int) *buffer {
	n := 16
	for n < 4*runtime.GOMAXPROCS(0) && n < 64 {
		n *= 2
	}
	size := min(max(maxEvents/(4*n), 1), chunkEvents)
	return &buffer{
		shards: make([]shard, n), mask: uint32(n - 1), size: size, max: max(maxEvents/size, 1),
		enough: int64(max(wakeEvents/size, 1)), wake: make(chan struct{}, 1),
	}
}

// add takes an event or counts it as dropped.
func (b *buffer) add(e *fleet.QueryEvent) {
	s := &b.shards[rand.Uint32()&b.mask] //nolint:gosec // spreads load, keeps no secret
	s.mu.Lock()
	c := s.current
	if c == nil {
		if c = b.chunk(); c == nil {
			s.mu.Unlock()
			b.dropped.Add(1)
			b.nudge()
			return
		}
		s.current = c
	}
	c.events = append(c.events, *e)
	s.recorded++
	filled := len(c.events) == b.size
	if filled {
		s.full = append(s.full, c)
		s.current = nil
	}
	s.mu.Unlock()
	if filled && b.full.Add(1) >= b.enough {
		b.nudge()
	}
}

func (b *buffer) nudge() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// chunk is an empty chunk, nil when all are in use.
func (b *buffer) chunk() *chunk {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used == b.max {
		return nil
	}
	b.used++
	if n := len(b.free); n > 0 {
		c := b.free[n-1]
		b.free[n-1] = nil
		b.free = b.free[:n-1]
		return c
	}
	return &chunk{make([]fleet.QueryEvent, 0, b.size)}
}

// collect takes all chunks out of the shards.
func (b *buffer) collect(into []*chunk) []*chunk {
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		b.full.Add(-int64(len(s.full)))
		into = append(into, s.full...)
		clear(s.full)
		s.full = s.full[:0]
		if s.current != nil {
			into = append(into, s.current)
			s.current = nil
		}
		s.mu.Unlock()
	}
	return into
}

// empty makes a collected chunk forget its events. It still counts as used.
func (b *buffer) empty(c *chunk) {
	clear(c.events)
	c.events = c.events[:0]
}

// release gives emptied chunks back.
func (b *buffer) release(chunks []*chunk) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= len(chunks)
	if room := 2*len(b.shards) + int(b.enough) - len(b.free); room > 0 {
		b.free = append(b.free, chunks[:min(room, len(chunks))]...)
	}
}

func (b *buffer) recorded() (n uint64) {
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		n += s.recorded
		s.mu.Unlock()
	}
	return n
}
