// Package ratelimit bounds how many queries each client may send, in memory of a fixed size.
package ratelimit

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"

	"dnsfleet/internal/fleet"
)

// Verdict is what becomes of a query.
type Verdict uint8

const (
	// Pass says to answer.
	Pass Verdict = iota
	// Slip says to answer with TC set and nothing else: a client whose address is its own comes again over TCP, and one
	// that somebody else pretends to be gets no more bytes than were sent in its name.
	Slip
	// Drop says not to answer.
	Drop
)

const (
	sets  = 8192
	ways  = 4          // one set is a cache line
	slips = 4          // bits of a state that count queries over the limit
	taken = ^uint64(0) // the key of a bucket that is changing hands

	// headroom is how far a clock may be set back, and half of how long a Limiter lasts.
	headroom = time.Duration(1) << 58
)

// Limiter holds a token bucket for each client prefix. A nil Limiter, and the zero one, let everything pass. It is safe for
// concurrent use, takes no lock and does not allocate.
//
// There are 32,768 buckets, four of which each prefix may have. A bucket that is full again says nothing and is anybody's.
// Where all four are in use the one that owes least gives way: whoever is over the limit stays known however many
// prefixes are made up beside him, and nobody is worse off for being forgotten.
type Limiter struct {
	seed   maphash.Seed // nobody outside knows which prefixes share a set
	start  time.Time
	each   time.Duration // what one query costs; 0 = no limit
	credit time.Duration // what a client may owe
	slip   uint64
	v4, v6 int
	table  *[sets]set
}

type set [ways]bucket

// bucket is a token bucket as the time at which it is full again. The low bits of state count queries over the limit.
type bucket struct{ key, state atomic.Uint64 }

// New makes a Limiter whose clock says now; nil for a section that limits nothing.
func New(section fleet.PolicyRateLimit, now time.Time) *Limiter {
	section = section.WithDefaults()
	if section.QueriesPerSecond == 0 {
		return nil
	}
	each := time.Second / time.Duration(section.QueriesPerSecond)
	return &Limiter{
		seed: maphash.MakeSeed(), start: now.Add(-headroom), each: each, credit: each * time.Duration(section.Burst),
		slip: uint64(*section.Slip), v4: section.IPv4Prefix, v6: section.IPv6Prefix, table: new([sets]set),
	}
}

// Allow takes a query of a client into account. Loopback always passes.
func (l *Limiter) Allow(client netip.Addr, now time.Time) Verdict {
	if l == nil || l.each == 0 {
		return Pass
	}
	client = client.Unmap()
	if client.IsLoopback() || !client.IsValid() {
		return Pass
	}
	return l.take(l.keyOf(client), min(max(now.Sub(l.start), 0), 2*headroom))
}

// keyOf is a number that stands for the prefix of a client; never 0 or taken.
func (l *Limiter) keyOf(client netip.Addr) uint64 {
	raw, bits := client.As16(), l.v6
	if client.Is4() {
		bits = 96 + l.v4
	}
	// A shift by 64 or more leaves nothing.
	high, low := binary.BigEndian.Uint64(raw[:8]), binary.BigEndian.Uint64(raw[8:])
	binary.BigEndian.PutUint64(raw[:8], high&^(^uint64(0)>>min(bits, 64)))
	binary.BigEndian.PutUint64(raw[8:], low&^(^uint64(0)>>max(bits-64, 0)))
	return min(max(maphash.Bytes(l.seed, raw[:]), 1), taken-1)
}

func (l *Limiter) take(key uint64, at time.Duration) Verdict {
	s := &l.table[key%sets]
	for {
		b := s.find(key)
		if b == nil {
			if s.claim(key, at, l.each) {
				return Pass
			}
			continue // somebody else was faster; perhaps it was the same client
		}
		old := b.state.Load()
		full, over := time.Duration(old>>slips), old&(1<<slips-1)
		if full < at || full-at > l.credit { // nobody owes more than that, unless the clock was set back
			full = at
		}
		if full+l.each-at <= l.credit {
			if b.state.CompareAndSwap(old, uint64(full+l.each)<<slips|over) {
				return Pass
			}
			continue
		}
		if l.slip == 0 {
			return Drop
		}
		over++
		verdict := Drop
		if over >= l.slip {
			over, verdict = 0, Slip
		}
		if b.state.CompareAndSwap(old, uint64(full)<<slips|over) {
			return verdict
		}
	}
}

func (s *set) find(key uint64) *bucket {
	for i := range s {
		if s[i].key.Load() == key {
			return &s[i]
		}
	}
	return nil
}

// claim makes the bucket that owes least the key's, with one query on it. It is false if that bucket changed meanwhile.
func (s *set) claim(key uint64, at, each time.Duration) bool {
	least, owes := &s[0], ^uint64(0)
	var was uint64
	for i := range s {
		b := &s[i]
		k, state := b.key.Load(), b.state.Load()
		if k != taken && state < owes {
			least, was, owes = b, k, state
		}
	}
	if owes == ^uint64(0) || !least.key.CompareAndSwap(was, taken) {
		return false
	}
	least.state.Store(uint64(at+each) << slips)
	least.key.Store(key)
	return true
}
