package recorder

import "dnsfleet/internal/fleet"

// keptRoom is for how many times Options.WakeEvents the collector keeps its room. A burst that needs more has it made.
const keptRoom = 4

// sorted is all events of the chunks, clean and oldest first. It sorts their places: an event is nine times as large.
func (r *Recorder) sorted() []fleet.QueryEvent {
	r.order.places = r.order.places[:0]
	for i, c := range r.chunks {
		c.clean()
		for j := range c.events {
			r.order.places = append(r.order.places, place{c.events[j].at, int32(i), int32(j)})
		}
	}
	r.order.sort()
	n := len(r.order.places)
	events := r.roomFor(n)
	for at := 0; at < n; at += nameBlock {
		r.tell(events[at:min(at+nameBlock, n)], r.order.places[at:])
	}
	if n > keptRoom*r.o.WakeEvents {
		r.order, r.room = order{}, nil
	}
	return events
}

// roomFor is n events, of which each is to be written.
func (r *Recorder) roomFor(n int) []fleet.QueryEvent {
	if !r.o.Lend {
		return make([]fleet.QueryEvent, n)
	}
	if cap(r.room) < n {
		r.room = make([]fleet.QueryEvent, n+n/4)
	}
	return r.room[:n]
}

// tell writes a block of events, those at the places.
func (r *Recorder) tell(events []fleet.QueryEvent, places []place) {
	var bytes [nameBlock][]byte
	var names [nameBlock]string
	for i := range events {
		p := places[i]
		c := r.chunks[p.chunk]
		c.tell(p.index, &events[i])
		bytes[i] = c.name(p.index)
	}
	r.names.tell(names[:len(events)], &bytes)
	for i := range events {
		events[i].QName = names[i]
	}
}
