package upstream

import (
	"bytes"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"dnsfleet/internal/dns/upstream/wire"
)

const (
	// A failure is remembered for firstFailure, doubling while the question goes on failing, up to maxFailure (RFC 9520,
	// section 3.2).
	firstFailure = time.Second
	maxFailure   = 5 * time.Minute
	// failureMemory is for how long after that the next failure of the question counts as one more.
	failureMemory = time.Minute

	failureSets = 1024 // of
	failureWays = 4    // each: what comes on top takes the place of what would be forgotten first
)

// failures are the questions that failed lately. Its size is fixed: 128 KiB.
type failures struct {
	seed maphash.Seed
	some atomic.Bool // there was one: most of the time there is none, and nothing to look for

	mu   sync.Mutex // guards the following
	sets [failureSets][failureWays]failure
}

type failure struct {
	question uint64 // hash, 0 = empty
	until    int64  // Unix nanoseconds
	lasts    time.Duration
	era      uint64 // 0 = an upstream said so
}

func newFailures() *failures { return &failures{seed: maphash.MakeSeed()} }

// key is the question and what of the flags bears on the answer.
func (f *failures) key(query []byte) uint64 {
	var buf [wire.UDPSize]byte
	end, _ := wire.QuestionEnd(query)
	question := append(buf[:0], query[wire.Size:end]...)
	copy(question, bytes.ToLower(question[:len(question)-4]))
	question = append(question, query[3]&0x10)
	return maphash.Bytes(f.seed, question) | 1
}

// has reports whether the question failed a moment ago. That nobody answered does not count any more, after its first
// second, when an upstream has come back since: era counts that, from 1.
func (f *failures) has(query []byte, now time.Time, era uint64) bool {
	if !f.some.Load() {
		return false
	}
	key := f.key(query)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, known := range f.sets[key>>1%failureSets] {
		if known.question == key {
			if known.era != 0 && known.era != era {
				known.until -= int64(known.lasts - firstFailure)
			}
			return now.UnixNano() < known.until
		}
	}
	return false
}

// add remembers a failure: in the era that nobody answered, or 0 if an upstream said so.
func (f *failures) add(query []byte, now time.Time, era uint64) {
	f.some.Store(true)
	key := f.key(query)
	f.mu.Lock()
	defer f.mu.Unlock()
	set := &f.sets[key>>1%failureSets]
	place := &set[0]
	for i := range set {
		if set[i].question == key {
			place = &set[i]
			break
		}
		if set[i].until < place.until {
			place = &set[i]
		}
	}
	lasts := firstFailure
	if place.question == key && now.UnixNano() < place.until+int64(failureMemory) {
		lasts = min(2*place.lasts, maxFailure)
	}
	*place = failure{key, now.Add(lasts).UnixNano(), lasts, era}
}

func (f *failures) forget(query []byte) {
	if !f.some.Load() {
		return
	}
	key := f.key(query)
	f.mu.Lock()
	defer f.mu.Unlock()
	set := &f.sets[key>>1%failureSets]
	for i := range set {
		if set[i].question == key {
			set[i] = failure{}
		}
	}
}
