package cache

import (
	"sync"
	"sync/atomic"

	"dnsfleet/internal/fleet"
)

// stretch is how many slots the hand of the clock passes with one hold of the lock.
const stretch = 32

// shard is a part of the cache with a lock of its own for those who write.
type shard struct {
	table atomic.Pointer[table] // nil = empty; read without the lock
	_     [120]byte             // readers' line is not the writers'

	mu    sync.Mutex // guards the following, and changes of the table
	count int
	hand  int // slot
	_     [104]byte
}

// put keeps e and returns by how much the shard has grown. A failure does not replace an answer that may still be served
// stale; nor does anything replace anything when onlyNew is set.
func (s *shard) put(e *Entry, q *Question, now, serveStale int64, onlyNew bool) (grown int64, kept bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.table.Load()
	if t != nil {
		if old := t.find(e.hash, q); old != nil {
			alive := now < old.deadline(serveStale)
			if alive && (onlyNew || e.failed() && !old.failed()) {
				return 0, false
			}
			if !onlyNew {
				e.use.inherit(&old.use)
			}
			t.replace(t.slotOf(old), e)
			return int64(e.size) - int64(old.size), true
		}
	}
	if s.count >= t.room() {
		grown = s.rebuild(s.count + s.count/2 + slotsPerBucket)
		t = s.table.Load()
	}
	t.add(e)
	s.count++
	return grown + int64(e.size), true
}

// rebuild moves the entries to a table with room for so many and returns by how much it is larger.
func (s *shard) rebuild(room int) int64 {
	old := s.table.Load()
	t := newTable((room*5/4)/slotsPerBucket + 1)
	old.each(t.add)
	s.table.Store(t)
	if old != nil { // entries keep their order
		s.hand = s.hand * len(t.terms) / len(old.terms)
	}
	return t.size() - old.size()
}

// remove returns how many bytes became free.
func (s *shard) remove(t *table, slot int) int64 {
	s.count--
	return int64(t.remove(slot).size)
}

// shrink gives memory of a table back that is mostly empty, and returns how much.
func (s *shard) shrink() int64 {
	t := s.table.Load()
	if s.count == 0 {
		s.table.Store(nil)
		s.hand = 0
		return t.size()
	}
	if len(t.terms) > 8*slotsPerBucket && s.count < len(t.terms)/4 {
		return -s.rebuild(s.count * 3 / 2)
	}
	return 0
}

// evict frees need bytes if it can within a stretch: of what has expired first, then of what was not used since the hand
// was here, or of anything if force is set. It returns how much became free.
func (s *shard) evict(need, now int64, force bool) (freed int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.table.Load()
	if t == nil {
		return 0
	}
	n := min(stretch, len(t.terms))
	slot := s.hand
	for range n {
		if term := t.terms[slot]; term.taken() && now/millisecond >= term.expires() {
			if freed += s.remove(t, slot); freed >= need {
				return freed + s.shrink()
			}
		}
		slot = s.after(t, slot)
	}
	for range n {
		slot = s.hand
		s.hand = s.after(t, slot)
		if t.terms[slot].taken() && (!t.at(slot).use.spare() || force) {
			if freed += s.remove(t, slot); freed >= need {
				break
			}
		}
	}
	return freed + s.shrink()
}

func (s *shard) after(t *table, slot int) int {
	if slot++; slot < len(t.terms) {
		return slot
	}
	return 0
}

// sweep removes what is past its deadline.
func (s *shard) sweep(now, serveStale int64) (removed int, freed int64, seen int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.table.Load()
	if t == nil {
		return 0, 0, 0
	}
	for slot, term := range t.terms {
		if term.taken() && now/millisecond >= term.deadline(serveStale) {
			freed += s.remove(t, slot)
			removed++
		}
	}
	return removed, freed + s.shrink(), len(t.terms)
}

func (s *shard) clear() (removed int, freed int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.table.Load()
	t.each(func(e *Entry) { freed += int64(e.size) })
	removed, s.count, s.hand = s.count, 0, 0
	s.table.Store(nil)
	return removed, freed + t.size()
}

// due appends the entries that are fresh and about to expire.
func (s *shard) due(to []*Entry, now, within int64) []*Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.table.Load(); t != nil {
		for slot, term := range t.terms {
			if term.taken() && term.due(now/millisecond, within/millisecond) {
				to = append(to, t.at(slot))
			}
		}
	}
	return to
}

// tally adds the shard's entries to lru.
func (s *shard) tally(lru *fleet.LRUStats, now, serveStale int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.table.Load()
	if t == nil {
		return
	}
	lru.Entries += s.count
	now /= millisecond
	for _, term := range t.terms {
		switch {
		case !term.taken():
		case now < term.expires():
			lru.Fresh++
		case now < term.deadline(serveStale):
			lru.Stale++
		default:
			lru.Expired++
		}
	}
}
