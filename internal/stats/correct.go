package stats

import (
	"time"

	"dnsfleet/internal/fleet"
)

// maxOffset is how far the clock may be off before it is corrected.
const maxOffset = 30 * time.Second

// Correct tells how far the store's clock is ahead of Now. If that is more than 30 s and no slice of this boot was handed
// out yet, Now is moved by it, once, and the slices that this boot has built are moved with it: each minute to the nearest
// minute, the longer ones merged anew. A machine that starts without a clock, in a house whose network is not up yet, so
// gets its history right. Later the clock is left alone: a slice that a store may have keeps its name for ever.
func (c *Counters) Correct(offset time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = true
	if offset >= -maxOffset && offset <= maxOffset || c.corrected || c.offered {
		return
	}
	if !believable(c.started.Add(offset)) || !believable(c.clock.now().Add(offset)) {
		c.log.Warn("store's clock is not believable, own clock stays", "offset", offset)
		return
	}
	c.log.Warn("clock was wrong, corrected to the store's", "offset", offset)
	c.corrected = true
	c.move(offset)
	select {
	case c.wake <- struct{}{}:
	default: // it is told already
	}
}

// move shifts the clock and gives the minutes of this boot, the running one included, their new names. Those that then
// lie in or after the minute that runs by the corrected clock become part of it.
func (c *Counters) move(offset time.Duration) {
	counted := c.tally.totals()
	var minutes []fleet.Slice
	old := c.book.Slices(c.boot)
	for _, s := range old {
		if s.Size == fleet.Minute {
			minutes = append(minutes, s)
		}
	}
	minutes = append(minutes, c.running.slice(c.boot, counted, c.clock.now()))
	c.clock.shift.Add(int64(offset))
	now := c.clock.now()
	c.running = running{start: now.Truncate(time.Minute), since: now, before: counted}
	c.longer, c.recent = newAssembler(), nil
	first := c.running.start
	var kept []fleet.Slice
	for _, m := range minutes {
		m.Start = m.Start.Add(offset.Round(time.Minute))
		if !m.Start.Before(c.running.start) {
			c.running.moved = append(c.running.moved, m)
			continue
		}
		if kept == nil {
			first = m.Start
		}
		kept = append(append(kept, m), c.longer.add(m)...)
		c.remember(m)
	}
	c.started = within(c.started.Add(offset), first)
	c.sketches.Move(c.running.start, func(size fleet.Size, start time.Time) time.Time {
		d := size.Duration()
		start = start.Add(offset + d/2).Truncate(d) // the nearest
		if lowest := first.Truncate(d); start.Before(lowest) {
			return lowest
		}
		if highest := c.running.start.Truncate(d); start.After(highest) {
			return highest
		}
		return start
	}, old, kept)
	c.note(c.book.Replace(c.boot, kept...))
	c.checkpoint(counted, now)
}

// within is t, or the nearest instant to it in the minute that starts at start.
func within(t, start time.Time) time.Time {
	last := start.Add(time.Minute - time.Millisecond)
	switch {
	case t.Before(start):
		return start
	case t.After(last):
		return last
	}
	return t
}
