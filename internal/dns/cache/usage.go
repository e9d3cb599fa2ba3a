package cache

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// tickLength is the grain of popularity: an entry is written to at most once in a tick, however often it is used.
	tickLength = 15 * time.Second
	// historyTicks is how far back use is remembered: some ten minutes.
	historyTicks = 39
	historyMask  = 1<<historyTicks - 1
	tickShift    = 1 + historyTicks
	tickMask     = 1<<(64-tickShift) - 1
)

// usage is when an entry was used, in one word: the last tick in which it was, a bit for that tick and each before, and
// in the lowest bit whether it was used since the hand of the clock came by.
type usage struct{ word atomic.Uint64 }

func tickOf(now int64) uint64 { return uint64(now/int64(tickLength)) & tickMask }

// touch notes a use.
func (u *usage) touch(tick uint64) {
	old := u.word.Load()
	if old>>tickShift == tick && old&1 != 0 {
		return
	}
	// Whoever else writes at this moment notes a use as well, or takes the lowest bit away, which is as good.
	u.word.CompareAndSwap(old, since39(old, tick)|3)
}

// since39 is the word as of tick. A tick before the word's own leaves it as it is: clocks of two cores may differ.
func since39(word, tick uint64) uint64 {
	ahead := (tick - word>>tickShift) & tickMask
	if ahead > tickMask/2 {
		return word
	}
	history := word >> 1 & historyMask
	if ahead >= historyTicks {
		history = 0
	} else {
		history = history << ahead & historyMask
	}
	return tick<<tickShift | history<<1 | word&1
}

// spare takes the bit of the clock away and reports whether it was set.
func (u *usage) spare() bool {
	old := u.word.Load()
	if old&1 == 0 {
		return false
	}
	u.word.CompareAndSwap(old, old&^1)
	return true
}

// inherit takes over the history of the entry whose place this one takes.
func (u *usage) inherit(from *usage) { u.word.Store(from.word.Load()) }

// history are the ticks of use, the present one in the lowest bit.
func (u *usage) history(tick uint64) uint64 { return since39(u.word.Load(), tick) >> 1 & historyMask }

// set makes a history as of tick.
func (u *usage) set(history, tick uint64) { u.word.Store(tick<<tickShift | history&historyMask<<1) }

// popular is how many ticks saw a use, or 0 when the history does not promise another within ttl.
func popular(history uint64, ttl time.Duration) int {
	used, span := bits.OnesCount64(history), bits.Len64(history)
	if used < 2 || time.Duration(used)*ttl < time.Duration(span)*tickLength {
		return 0
	}
	return used
}
