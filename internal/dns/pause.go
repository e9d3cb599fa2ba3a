package dns

import (
	"sync/atomic"
	"time"
)

// pauseState is whether blocking is paused. It ends by itself: nobody needs to be running for that.
type pauseState struct {
	end atomic.Pointer[time.Time] // nil = not paused, zero time = until resumed
}

func (p *pauseState) set(now time.Time, d time.Duration) {
	if d <= 0 {
		p.end.Store(&time.Time{})
		return
	}
	p.end.Store(new(now.Add(d)))
}

func (p *pauseState) clear() { p.end.Store(nil) }

func (p *pauseState) until(now time.Time) (time.Time, bool) {
	end := p.end.Load()
	if end == nil || !end.IsZero() && !now.Before(*end) {
		return time.Time{}, false
	}
	return *end, true
}
