package cache

import (
	"math/bits"
	"sync/atomic"
	"unsafe"
)

const (
	slotsPerBucket = 7
	lowBytes       = 0x0101010101010101
	// overflow is the byte of a bucket's tags that counts the entries which would be here and are further on. At its
	// highest it has lost count and stays.
	overflowShift = 8 * slotsPerBucket
	overflowFull  = 0xFF
)

// bucket is a line of memory: what a look-up has to read before it reads the entry.
type bucket struct {
	tags  atomic.Uint64 // a byte of each entry's hash, 0 = free; then the overflow
	slots [slotsPerBucket]atomic.Pointer[Entry]
}

// table is an open-addressed hash table. Readers take no lock; what they see while something is moved is an entry or a
// miss. Everything else is for the holder of the shard's lock.
type table struct {
	buckets []bucket
	terms   []term // of each slot
}

func newTable(buckets int) *table {
	return &table{buckets: make([]bucket, buckets), terms: make([]term, buckets*slotsPerBucket)}
}

// size is the memory that a table takes.
func (t *table) size() int64 {
	if t == nil {
		return 0
	}
	return int64(unsafe.Sizeof(*t)) + int64(len(t.buckets))*int64(unsafe.Sizeof(bucket{})) + int64(len(t.terms))*int64(unsafe.Sizeof(term(0)))
}

// room is how many entries the table takes before it should grow.
func (t *table) room() int {
	if t == nil {
		return 0
	}
	return len(t.terms) * 4 / 5
}

func (t *table) home(hash uint64) int {
	return int((hash >> 8 & 0xFFFFFFFF) * uint64(len(t.buckets)) >> 32)
}

func (t *table) next(i int) int {
	if i++; i < len(t.buckets) {
		return i
	}
	return 0
}

func tagOf(hash uint64) uint64 { return max(hash>>56, 1) }

// matches has the highest bit of each byte set that equals tag. There may be one too many, never one too few.
func matches(tags, tag uint64) uint64 {
	x := tags ^ tag*lowBytes
	return (x - lowBytes) &^ x & (lowBytes << 7) &^ (0x80 << overflowShift)
}

// find needs no lock.
func (t *table) find(hash uint64, q *Question) *Entry {
	tag := tagOf(hash)
	i := t.home(hash)
	for range t.buckets {
		b := &t.buckets[i]
		tags := b.tags.Load()
		for m := matches(tags, tag); m != 0; m &= m - 1 {
			if e := b.slots[bits.TrailingZeros64(m)/8].Load(); e != nil && e.hash == hash && e.is(q) {
				return e
			}
		}
		if tags>>overflowShift == 0 {
			return nil
		}
		i = t.next(i)
	}
	return nil
}

// each calls yield with every entry; it needs no lock.
func (t *table) each(yield func(*Entry)) {
	if t == nil {
		return
	}
	for i := range t.buckets {
		for j := range t.buckets[i].slots {
			if e := t.buckets[i].slots[j].Load(); e != nil {
				yield(e)
			}
		}
	}
}

// at is the entry of a slot; the slot is taken.
func (t *table) at(slot int) *Entry {
	return t.buckets[slot/slotsPerBucket].slots[slot%slotsPerBucket].Load()
}

// slotOf is where an entry of the table is.
func (t *table) slotOf(e *Entry) int {
	i := t.home(e.hash)
	for range t.buckets {
		for j := range t.buckets[i].slots {
			if t.buckets[i].slots[j].Load() == e {
				return i*slotsPerBucket + j
			}
		}
		i = t.next(i)
	}
	return -1
}

// replace puts e in the place of an entry with the same question.
func (t *table) replace(slot int, e *Entry) {
	t.buckets[slot/slotsPerBucket].slots[slot%slotsPerBucket].Store(e)
	t.terms[slot] = termOf(e)
}

// add needs a free slot.
func (t *table) add(e *Entry) {
	i := t.home(e.hash)
	for {
		b := &t.buckets[i]
		tags := b.tags.Load()
		if free := matches(tags, 0); free != 0 {
			j := bits.TrailingZeros64(free) / 8 // the lowest is never one too many
			b.slots[j].Store(e)
			t.terms[i*slotsPerBucket+j] = termOf(e)
			b.tags.Store(tags | tagOf(e.hash)<<(8*j))
			return
		}
		if tags>>overflowShift != overflowFull {
			b.tags.Store(tags + 1<<overflowShift)
		}
		i = t.next(i)
	}
}

func (t *table) remove(slot int) *Entry {
	at, j := slot/slotsPerBucket, slot%slotsPerBucket
	b := &t.buckets[at]
	e := b.slots[j].Load()
	b.tags.Store(b.tags.Load() &^ (0xFF << (8 * j)))
	b.slots[j].Store(nil)
	t.terms[slot] = 0
	for i := t.home(e.hash); i != at; i = t.next(i) {
		if tags := t.buckets[i].tags.Load(); tags>>overflowShift != overflowFull {
			t.buckets[i].tags.Store(tags - 1<<overflowShift)
		}
	}
	return e
}

// term is when the entry of a slot expires, in whole milliseconds of the cache's own time, and in the lower bits what
// else a sweep wants to know without a look at the entry; 0 is a free slot.
type term int64

const (
	termTaken   term = 1 << 15
	termFailure term = 1 << 14
	termSkipped term = 1 << 13 // never refreshed ahead
	termLead    term = termSkipped - 1
	termShift        = 16
	millisecond      = 1_000_000
	// leadShare of a TTL is its end, in which a popular entry is refreshed.
	leadShare = 10
)

func termOf(e *Entry) term {
	t := term(e.expires/millisecond)<<termShift | termTaken
	if e.failed() {
		t |= termFailure
	}
	if e.flags&(flagFailure|flagNoData) != 0 {
		t |= termSkipped
	}
	return t | min(term((e.expires-e.stored)/leadShare/(1000*millisecond)), termLead)
}

func (t term) taken() bool { return t != 0 }

// expires is in milliseconds.
func (t term) expires() int64 { return int64(t >> termShift) }

// deadline is when the entry is of no use any more, in milliseconds.
func (t term) deadline(serveStale int64) int64 {
	if t&termFailure != 0 {
		return t.expires()
	}
	return t.expires() + serveStale/millisecond
}

// due reports whether the entry is fresh and about to expire.
func (t term) due(now, within int64) bool {
	left := t.expires() - now
	return t&termSkipped == 0 && left > 0 && left <= max(within, int64(t&termLead)*1000)
}
