package stats

import (
	"sync/atomic"
	"time"
)

// The years in which a wall clock is believed. One that stands outside them was never set, and could not name slices:
// those start after 1970 and are written with four digits of a year.
var (
	firstBelievable = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	lastBelievable  = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
)

func believable(t time.Time) bool { return !t.Before(firstBelievable) && t.Before(lastBelievable) }

// clock is the time of one boot: the wall clock at its start, moved on by the monotonic clock. Whoever steps the wall
// clock later does not move it.
type clock struct {
	wall  time.Time // at the start, UTC
	start time.Time // the same instant, with the monotonic reading
	shift atomic.Int64
}

func newClock(wall time.Time) *clock {
	if !believable(wall) {
		wall = firstBelievable
	}
	return &clock{wall: wall.Round(0).UTC(), start: time.Now()}
}

func (c *clock) now() time.Time {
	return c.wall.Add(time.Since(c.start) + time.Duration(c.shift.Load()))
}
