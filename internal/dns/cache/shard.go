package cache

import (
	"sync"
	"time"

	"dnsfleet/internal/fleet"
)

// entry is one answer, linked from most to least recently used.
type entry struct {
	key        Key
	wire       []byte // never changed once stored
	stored     time.Time
	expires    time.Time
	failure    bool
	prev, next *entry
}

func (e *entry) size() int64 { return int64(len(e.wire)+len(e.key.Name)) + overhead }

// shard is an LRU of its own, so that cores seldom wait for each other.
type shard struct {
	mu      sync.Mutex // guards the following
	entries map[Key]*entry
	head    *entry // most recently used
	tail    *entry
	bytes   int64
}

// get returns nil for what is not there or past its stale time, which it removes.
func (s *shard) get(k Key, now time.Time, serveStale time.Duration) (wire []byte, stored, expires time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[k]
	if e == nil {
		return nil, stored, expires
	}
	if !now.Before(e.deadline(serveStale)) {
		s.remove(e)
		return nil, stored, expires
	}
	if s.head != e {
		s.unlink(e)
		s.pushFront(e)
	}
	return e.wire, e.stored, e.expires
}

// deadline is when the entry is of no use any more. Failures are never served stale.
func (e *entry) deadline(serveStale time.Duration) time.Time {
	if e.failure {
		return e.expires
	}
	return e.expires.Add(serveStale)
}

func (s *shard) put(e *entry, now time.Time, serveStale time.Duration, limit int64) bool {
	if e.size() > limit {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries == nil {
		s.entries = map[Key]*entry{}
	}
	if old := s.entries[e.key]; old != nil {
		if e.failure && !old.failure && now.Before(old.deadline(serveStale)) {
			return false
		}
		s.remove(old)
	}
	s.entries[e.key] = e
	s.pushFront(e)
	s.bytes += e.size()
	s.evict(limit)
	return true
}

func (s *shard) shrink(limit int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.evict(limit)
}

func (s *shard) evict(limit int64) {
	for s.bytes > limit && s.tail != nil {
		s.remove(s.tail)
	}
}

func (s *shard) remove(e *entry) {
	s.unlink(e)
	delete(s.entries, e.key)
	s.bytes -= e.size()
}

func (s *shard) pushFront(e *entry) {
	e.prev, e.next = nil, s.head
	if s.head != nil {
		s.head.prev = e
	}
	s.head = e
	if s.tail == nil {
		s.tail = e
	}
}

func (s *shard) unlink(e *entry) {
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		s.head = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	} else {
		s.tail = e.prev
	}
	e.prev, e.next = nil, nil
}

func (s *shard) clear() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.entries)
	s.entries, s.head, s.tail, s.bytes = nil, nil, nil, 0 // a map never gives its memory back
	return n
}

// count adds the shard's entries to lru and returns its bytes.
func (s *shard) count(lru *fleet.LRUStats, now time.Time, serveStale time.Duration) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	lru.Entries += len(s.entries)
	for e := s.head; e != nil; e = e.next {
		switch {
		case now.Before(e.expires):
			lru.Fresh++
		case now.Before(e.deadline(serveStale)):
			lru.Stale++
		default:
			lru.Expired++
		}
	}
	return s.bytes
}
