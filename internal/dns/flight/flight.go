// Package flight lets all who ask the same at the same time share one exchange.
package flight

import (
	"hash/maphash"
	"sync"
)

// Waiter is somebody who waits for the end of a flight.
type Waiter[R any] interface {
	// Land is called once with what the flight brought, which all waiters share. It must not block.
	Land(R)
}

const shardCount = 16

// Group is the flights under way. It is safe for concurrent use; New makes one.
type Group[R any] struct {
	seed   maphash.Seed
	shards [shardCount]shard[R]
	flying sync.WaitGroup
}

type shard[R any] struct {
	mu      sync.Mutex // guards the following
	flights map[string][]Waiter[R]
	_       [64]byte // keeps neighbours off this shard's cache lines
}

// New makes a Group in which nothing is under way.
func New[R any]() *Group[R] {
	g := &Group[R]{seed: maphash.MakeSeed()}
	for i := range g.shards {
		g.shards[i].flights = map[string][]Waiter[R]{}
	}
	return g
}

func (g *Group[R]) shard(key []byte) *shard[R] {
	return &g.shards[maphash.Bytes(g.seed, key)%shardCount]
}

// Join lets w, which may be nil, wait for the flight of the key. first reports whether there was none: then the caller has to see
// to it that Land is called for the key, once. The key is not kept.
func (g *Group[R]) Join(key []byte, w Waiter[R]) (first bool) {
	s := g.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	waiters, flying := s.flights[string(key)]
	if flying && w == nil {
		return false
	}
	if w != nil {
		waiters = append(waiters, w)
	}
	s.flights[string(key)] = waiters
	if !flying {
		g.flying.Add(1)
	}
	return !flying
}

// Land ends a flight: whoever joins from now on begins another. It calls all waiters, in the order in which they came.
func (g *Group[R]) Land(key []byte, r R) {
	s := g.shard(key)
	s.mu.Lock()
	waiters := s.flights[string(key)]
	delete(s.flights, string(key))
	s.mu.Unlock()
	defer g.flying.Done()
	for _, w := range waiters {
		w.Land(r)
	}
}

// Wait returns when nothing is under way, after the last Join.
func (g *Group[R]) Wait() { g.flying.Wait() }
