package dns

import (
	"net/netip"
	"time"
	"unsafe"

	"dnsfleet/internal/dns/cookie"
	"dnsfleet/internal/dns/packet"
	"dnsfleet/internal/fleet"
)

const (
	laneEvents = 64       // as many as a batch has messages
	nameSize   = 256      // as much as the text of a plain name takes
	laneNames  = 64 * 256 // for the names of all events
	sharedLane = 0        // of all goroutines
)

// lane is what one reader needs to answer queries, and what it has counted. One of a reader is never used by two goroutines
// at a time; the counters are read by others.
type lane struct {
	id      int // 0 for those that goroutines take turns with
	query   packet.Query
	cookie  [cookie.Size]byte
	client  netip.Addr // the last one that was looked up, and
	allowed bool       // whether it is answered

	events []fleet.QueryEvent // of the batch under way; their names lie in names
	names  []byte
}

func newLane(id int) *lane {
	return &lane{id: id, events: make([]fleet.QueryEvent, 0, laneEvents), names: make([]byte, 0, laneNames)}
}

// note keeps the event of an answer for the end of the batch, when it is known how long the answers took.
func (e *Engine) note(l *lane, event fleet.QueryEvent) {
	if len(l.events) == cap(l.events) || len(l.names)+nameSize > cap(l.names) {
		e.record(l)
	}
	start := len(l.names)
	l.names = l.query.AppendText(l.names)
	event.QName = unsafe.String(&l.names[start], len(l.names)-start) //nolint:gosec // the names are overwritten after Record has returned
	l.events = append(l.events, event)
}

// record hands the lane's events on.
func (e *Engine) record(l *lane) {
	if len(l.events) == 0 {
		return
	}
	now := e.opts.Now()
	for i := range l.events {
		event := &l.events[i]
		event.Duration = max(now.Sub(event.Time), 0)
		e.opts.Recorder.Record(l.id, event)
	}
	l.events, l.names = l.events[:0], l.names[:0]
}

// allowed reports whether the client is answered.
func (e *Engine) allowed(l *lane, client netip.Addr) bool {
	if client != l.client {
		l.client, l.allowed = client, e.answers(client)
	}
	return l.allowed
}

// at is the engine's time for a message that arrived then by the machine's clock.
func (e *Engine) at(arrived time.Time) time.Time {
	if e.ownClock {
		return e.opts.Now()
	}
	return arrived
}
