package exchange

import (
	"time"

	"dnsfleet/internal/dns/upstream/loop"
	"dnsfleet/internal/dns/upstream/wire"
)

// Waiter waits for what a datagram brings. It is called by a thread of the loop, and must not block.
type Waiter interface {
	// Answered ends the wait, with what UDP.Finish takes.
	Answered(a wire.Answer, err error)
	// Slow is called once, if that has not happened when it was to be.
	Slow()
}

// Flight is a datagram on its way to an upstream and the wait for the answer. It is used by one query at a time; the zero
// value is ready.
type Flight struct {
	udp     *UDP
	waiter  Waiter
	waiting waiting
	attempt uint32
}

// Start sends a query over the loop, and tells the waiter when it has been answered, or is slow, unless that is zero. It
// is false, and the waiter hears nothing, where Exchange has to be called: without a loop that runs and has room, for a
// name that is not looked up yet. q.Budget must have one left. q.Wire must not change before it has ended.
func (u *UDP) Start(f *Flight, q Query, slow time.Time, w Waiter) bool {
	if u.loop == nil || len(q.Wire) > wire.UDPSize || len(q.Wire) < wire.Size {
		return false
	}
	addr, attempt, ok := u.route.known()
	if !ok || addr.Addr().Zone() != "" {
		return false
	}
	if u.open.Add(1) > maxSockets {
		u.open.Add(-1)
		return false
	}
	q.Budget.Take()
	f.udp, f.waiter, f.attempt = u, w, attempt
	f.waiting = waiting{out: append(f.waiting.out[:0], q.Wire...), query: q.Wire}
	wire.SetID(f.waiting.out, u.ids.uint16())
	if !u.loop.Start(loop.Query{To: addr, Wire: f.waiting.out, Slow: slow, Deadline: q.Deadline, Handler: f}) {
		u.open.Add(-1)
		q.Budget.giveBack()
		return false
	}
	return true
}

// Receive see loop.Handler.
func (f *Flight) Receive(msg []byte) (over, clean bool) {
	a, over, err := f.waiting.take(msg)
	if !over {
		return false, false
	}
	clean = f.waiting.clean(err)
	f.end(a, err)
	return true, clean
}

// Slow see loop.Handler.
func (f *Flight) Slow() { f.waiter.Slow() }

// Fail see loop.Handler.
func (f *Flight) Fail(err error) {
	f.udp.route.failed(f.attempt)
	f.end(wire.Answer{}, err)
}

// end is the last that a Flight does: the waiter may use it again.
func (f *Flight) end(a wire.Answer, err error) {
	f.udp.open.Add(-1)
	w := f.waiter
	f.waiter, f.waiting.query = nil, nil
	w.Answered(a, err)
}

var _ loop.Handler = (*Flight)(nil)
