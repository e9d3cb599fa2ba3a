package stats

import (
	"context"
	"time"

	"dnsfleet/internal/fleet"
)

// checkpointEvery is how much of the running minute a crash may cost.
const checkpointEvery = 5 * time.Second

// running is the minute that is being counted.
type running struct {
	start  time.Time     // of the slice
	since  time.Time     // when counting into it began: later than start in a boot's first minute
	before totals        // what was counted until then
	moved  []fleet.Slice // what Correct moved into it
}

// slice is the running minute as of until, when counted was read.
func (r running) slice(boot string, counted totals, until time.Time) fleet.Slice {
	s := counted.since(r.before).slice(boot, r.start)
	lived := until.Sub(r.since)
	for _, m := range r.moved {
		lived += m.Covered()
	}
	if r.moved != nil {
		s = fleet.MergeSlices(append([]fleet.Slice{s}, r.moved...)...)
	}
	return lasted(s, lived)
}

// Run cuts slices at each UTC minute of Now and keeps the running one on disk every five seconds. When ctx ends it closes
// the running slices as they are and returns nil; what is counted after that is in Counters only. A disk that cannot be
// written does not stop it: history is then in memory, and every later write tries again.
func (c *Counters) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			c.end()
			return nil
		case <-c.wake:
		case <-timer.C:
		}
		timer.Reset(c.tick())
	}
}

// tick does what is due now and returns the time until it is due again.
func (c *Counters) tick() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock.now()
	counted := c.tally.totals()
	c.cut(counted, now)
	c.checkpoint(counted, now)
	return min(c.running.start.Add(time.Minute).Sub(now), checkpointEvery)
}

// cut closes the minutes that are over at now, silent ones included, and the longer slices that end with them.
func (c *Counters) cut(counted totals, now time.Time) {
	var complete []fleet.Slice
	for end := c.running.start.Add(time.Minute); !now.Before(end); end = end.Add(time.Minute) {
		minute := c.running.slice(c.boot, counted, end)
		complete = append(append(complete, minute), c.sketched(c.longer.add(minute))...)
		c.remember(minute)
		c.running = running{start: end, since: end, before: counted}
	}
	if complete == nil {
		return
	}
	c.note(c.book.Add(complete...))
	c.book.Expire(now, c.boot, c.known)
}

// sketched gives the longer slices that have just ended their sketches.
func (c *Counters) sketched(longer []fleet.Slice) []fleet.Slice {
	for i := range longer {
		c.sketches.Complete(&longer[i])
	}
	return longer
}

func (c *Counters) checkpoint(counted totals, now time.Time) {
	c.note(c.book.Checkpoint(c.running.slice(c.boot, counted, now)))
}

// end closes all that is running.
func (c *Counters) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock.now()
	counted := c.tally.totals()
	c.cut(counted, now)
	var last []fleet.Slice
	minute := c.running.slice(c.boot, counted, now)
	if now.After(c.running.since) || c.running.moved != nil || minute.Outcomes.Total() > 0 || !c.sketches.Idle() {
		last = append([]fleet.Slice{minute}, c.sketched(c.longer.add(minute))...)
	}
	last = append(last, c.sketched(c.longer.end())...)
	c.running = running{start: c.running.start, since: now, before: counted}
	c.note(c.book.Add(last...))
	c.note(c.book.End(c.boot))
}

// recover closes the slices of boots that ended without doing so. Their last minute is the one that was kept while it
// was being counted; the longer slices are merged from the minutes of its hour. What the sketches had of the ten minutes that
// were running is lost, and the tops of the hour: to keep them would be to write them every few seconds.
func (c *Counters) recover() {
	minute, found := c.book.Running()
	for _, boot := range c.book.Unended() {
		if found && minute.BootID == boot {
			c.closeBoot(boot, minute)
		} else {
			c.closeBoot(boot)
		}
	}
}

func (c *Counters) closeBoot(boot string, last ...fleet.Slice) {
	type name struct {
		size  fleet.Size
		start int64
	}
	have := map[name]bool{}
	var missing, minutes []fleet.Slice
	need := func(s fleet.Slice) {
		if n := (name{s.Size, s.Start.Unix()}); !have[n] {
			have[n] = true
			missing = append(missing, s)
		}
	}
	clients := map[int64]fleet.Uniques{} // of hours, from what is known of their parts
	for _, s := range c.book.Slices(boot) {
		have[name{s.Size, s.Start.Unix()}] = true
		switch s.Size {
		case fleet.Minute:
			minutes = append(minutes, s)
		case fleet.TenMinutes:
			hour := s.Start.Truncate(time.Hour).Unix()
			sum := clients[hour]
			sum.Merge(s.Clients)
			clients[hour] = sum
		case fleet.Hour:
		}
	}
	for _, s := range last {
		if n := len(minutes); n == 0 || minutes[n-1].Start.Before(s.Start) {
			minutes = append(minutes, s)
			need(s)
		}
	}
	longer := newAssembler()
	for _, m := range minutes {
		if m.Start.Before(minutes[len(minutes)-1].Start.Truncate(time.Hour)) {
			continue
		}
		for _, s := range longer.add(m) {
			need(s)
		}
	}
	for _, s := range longer.end() {
		need(s)
	}
	for i := range missing {
		if s := &missing[i]; s.Size == fleet.Hour {
			s.Clients = clients[s.Start.Unix()]
		}
	}
	c.note(c.book.Add(missing...))
	c.note(c.book.End(boot))
}
