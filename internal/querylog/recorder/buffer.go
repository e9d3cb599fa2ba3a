package recorder

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog/batch"
)

// buffer holds events between two collections, spread over shards so that cores which record at the same time rarely
// wait for each other. Its memory is chunks; there are never more than max, those that are collected and not released
// included.
type buffer struct {
	shards []shard // of each lane one, then those that all lanes share
	lanes  int
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

type shard struct {
	mu       sync.Mutex
	current  *chunk // nil until there is an event
	full     []*chunk
	recorded uint64
	_        [128]byte // keeps neighbours off this shard's cache lines
}

// sharedShards are as many as lane 0 is spread over: a power of two.
const sharedShards = 16

func newBuffer(maxEvents, wakeEvents int) *buffer {
	lanes := min(2*runtime.GOMAXPROCS(0), 64)
	shards := lanes + sharedShards
	size := min(max(maxEvents/(4*shards), 1), chunkEvents)
	return &buffer{
		shards: make([]shard, shards), lanes: lanes, size: size, max: max(maxEvents/size, 1),
		enough: int64(max(wakeEvents/size, 1)), wake: make(chan struct{}, 1),
	}
}

// shard is the one of a lane. A lane beyond those that have one shares that of another.
func (b *buffer) shard(lane int) *shard {
	if lane > 0 {
		return &b.shards[(lane-1)%b.lanes]
	}
	return &b.shards[b.lanes+int(rand.Uint32()%sharedShards)] //nolint:gosec // spreads load, keeps no secret
}

// add takes an event or counts it as dropped.
func (b *buffer) add(lane int, e *fleet.QueryEvent) {
	at := e.Time.UnixMicro()
	if !usual(e, at) {
		b.mend(lane, *e)
		return
	}
	b.put(b.shard(lane), e, at)
}

// mend adds an event that no batch may hold as it is.
func (b *buffer) mend(lane int, e fleet.QueryEvent) {
	batch.Clean(&e)
	b.put(b.shard(lane), &e, e.Time.UnixMicro())
}

func (b *buffer) put(s *shard, e *fleet.QueryEvent, at int64) {
	var filled int64
	s.mu.Lock()
	c := s.current
	if c == nil || !c.add(e, at) {
		if c != nil {
			s.full = append(s.full, c)
			filled++
		}
		c = b.chunk()
		s.current = c
		if c != nil {
			c.add(e, at)
		}
	}
	if c != nil {
		s.recorded++
		if c.full() {
			s.full = append(s.full, c)
			s.current = nil
			filled++
		}
	}
	s.mu.Unlock()
	switch {
	case c == nil:
		b.full.Add(filled)
		b.dropped.Add(1)
		b.nudge()
	case filled > 0 && b.full.Add(filled) >= b.enough:
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
	return newChunk(b.size)
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

// release empties chunks that were collected and gives them back.
func (b *buffer) release(chunks []*chunk) {
	for _, c := range chunks {
		c.empty()
	}
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
