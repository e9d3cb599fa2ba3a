// Package querylogtest is the suite that every query log must pass: it writes known events through a sink and holds each
// answer of the reader to one computed in plain Go from the same events.
//
// What the suite fixes beyond the doc comments of querylog and fleet:
//   - Times are cut to the millisecond; a window is exact to it.
//   - Names are told without their final dot, the root as ".".
//   - A client is its name, or its address where it has none. Who has neither is in no top and is not counted.
//   - The latency of an upstream covers queries that did not end as servfail or upstream_error, so that time-outs show as
//     errors and not as a slow mean.
//   - Points of a series start at multiples of the step since the epoch.
//   - Groups are the instances that have events among those asked for.
//   - Lists are empty rather than nil.
package querylogtest

import (
	"context"
	"flag"
	"testing"
	"time"

	"dnsfleet/internal/querylog"
)

var events = flag.Int("querylog.events", defaultEvents, "how many events the query log's suite writes")

// patience is how long one answer may take on a slow, busy machine: an export of all events is one.
func patience() time.Duration { return 2*time.Minute + time.Duration(*events)*time.Millisecond }

// Opener opens a handle on one log; every call is another handle on the same. The handle lives until t ends.
type Opener func(t *testing.T) (querylog.Sink, querylog.Reader)

// Run runs the suite. newLog makes an empty log that keeps at least a week.
func Run(t *testing.T, newLog func(t *testing.T) Opener) {
	t.Run("answers", func(t *testing.T) { testLog(t, newLog, 1) })
	t.Run("identity of batches", func(t *testing.T) { testIdentity(t, newLog) })
	t.Run("bad input", func(t *testing.T) { testBadInput(t, newLog) })
}

// RunBrief asks a quarter of the suite's questions and does nothing else: for another way to a log that has passed Run.
func RunBrief(t *testing.T, newLog func(t *testing.T) Opener) {
	t.Helper()
	t.Run("answers", func(t *testing.T) { testLog(t, newLog, 4) })
}

// testLog writes a log and asks one of so many questions about it.
func testLog(t *testing.T, newLog func(t *testing.T) Opener, oneOf int) {
	t.Helper()
	sink, reader := newLog(t)(t)
	l := generate(*events)
	l.write(t, sink)
	var off deviations
	t.Run("questions", func(t *testing.T) { testAnswers(t, l, reader, &off, oneOf) })
	off.log(t)
	t.Run("pages", func(t *testing.T) { testPaging(t, l, sink, reader) }) // last: it adds events
}

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience())
	t.Cleanup(cancel)
	return ctx
}
