package dns

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/cache"
	"dnsfleet/internal/dns/cookie"
	"dnsfleet/internal/dns/listen"
	"dnsfleet/internal/dns/message"
	"dnsfleet/internal/dns/packet"
	"dnsfleet/internal/dns/upstream"
	"dnsfleet/internal/fleet"
)

// forwarded is a plain query that waits for an upstream.
type forwarded struct {
	engine    *Engine
	state     *state
	responder *listen.Responder
	raw       []byte   // in room, if it fits
	room      [96]byte // what most queries fit in
	client    netip.Addr
	protocol  listen.Protocol
	arrived   time.Time
	look      scrutiny
	stale     *cache.Entry // to answer with when upstreams fail or take long; nil for none

	answered atomic.Bool // by whoever comes first
	timer    *time.Timer // nil without stale
}

// forward lets a plain query wait for an upstream, or drops it when too many wait.
func (e *Engine) forward(l *lane, m *listen.Message, st *state, stale *cache.Entry, look scrutiny) {
	q := &l.query
	e.cache.Count(l.id, cache.Miss)
	if !e.admit() {
		e.note(l, e.event(m, q, fleet.Dropped))
		return
	}
	w := &forwarded{
		engine: e, state: st, responder: m.Later(), client: m.Client, protocol: m.Protocol,
		arrived: e.at(m.Arrived), look: look, stale: stale,
	}
	w.raw = append(w.room[:0], m.Raw...)
	if stale != nil {
		w.timer = time.AfterFunc(patience, w.lostPatience)
	}
	e.fly(st, cache.Question{Name: q.Name, Type: q.Type, DO: q.DO, CD: q.CD}, w)
}

// admit takes one of the places for queries that wait; false if none is free.
func (e *Engine) admit() bool {
	if e.waiting.Add(1) > int64(e.opts.MaxInFlight) {
		e.waiting.Add(-1)
		return false
	}
	return true
}

func (e *Engine) leave() { e.waiting.Add(-1) }

// Land answers with what the flight brought.
func (w *forwarded) Land(got *flown) {
	if w.timer != nil {
		w.timer.Stop()
	}
	if w.answered.Swap(true) {
		return
	}
	w.reply(func(a *replying) { w.answer(a, got) }, got.burst)
}

func (w *forwarded) lostPatience() {
	if !w.answered.Swap(true) {
		w.reply(func(a *replying) { w.serveStale(a) }, false)
	}
}

// optRoom is what an OPT usually takes, with a cookie or an extended error.
const optRoom = 64

// replying is a reply in the making.
type replying struct {
	query  packet.Query
	cookie [cookie.Size]byte
	extra  packet.Extra
	event  fleet.QueryEvent
	name   [nameSize]byte // the event's
	out    []byte
}

// reply makes a reply and sends it. Whatever goes wrong with it, the client's place is free again and the query counted.
func (w *forwarded) reply(write func(a *replying), burst bool) {
	e := w.engine
	defer e.leave()
	a, _ := e.replies.Get().(*replying)
	if a == nil {
		a = new(replying)
	}
	defer e.replies.Put(a)
	a.extra, a.out = packet.Extra{}, nil
	a.query.Read(w.raw) // as it did before
	a.event = fleet.QueryEvent{
		Time: w.arrived, Client: w.client, Protocol: w.protocol.String(), QType: a.query.Type, QClass: dns.ClassINET,
	}
	a.extra.Padding = a.query.Padding && encrypted(w.protocol)
	if a.query.Cookie != nil {
		a.extra.Cookie = e.cookies.Append(a.cookie[:0], a.query.Cookie, w.client, e.opts.Now())
	}
	func() {
		defer func() {
			if p := recover(); p != nil {
				e.panicked(p, a.query.Type)
				w.fail(a, fleet.UpstreamError, nil)
			}
		}()
		write(a)
	}()
	a.event.RCode = int(a.out[3] & 0xF)
	whole := a.query.Finish(a.out, 0, &a.extra)
	if !a.query.Fits(len(whole), w.protocol == listen.UDP) {
		whole = w.cut(a)
	}
	a.event.Duration = max(e.opts.Now().Sub(w.arrived), 0)
	name := a.query.AppendText(a.name[:0])
	a.event.QName = unsafe.String(&name[0], len(name)) //nolint:gosec // the name is overwritten after Record has returned
	e.opts.Recorder.Record(sharedLane, &a.event)
	if burst {
		e.outbox.add(w.responder, whole)
	} else {
		w.responder.Send(whole)
	}
}

func (w *forwarded) answer(a *replying, got *flown) {
	e := w.engine
	switch {
	case got.failed() && w.stale != nil:
		w.serveStale(a)
		return
	case errors.Is(got.err, upstream.ErrCachedFailure):
		w.fail(a, fleet.Servfail, &message.EDE{Code: dns.ExtendedErrorCodeCachedError})
		return
	case got.err != nil:
		e.opts.Log.Debug("no upstream answered", "err", got.err)
		w.fail(a, fleet.UpstreamError, noUpstream())
		return
	}
	a.out = got.appendAnswer(make([]byte, 0, got.size()+optRoom), e.opts.Now())
	a.event.Outcome, a.event.Upstream = fleet.Upstream, got.from
	switch {
	case got.failed():
		a.event.Outcome = fleet.Servfail
		if got.found {
			a.extra.EDE, a.extra.Code = true, dns.ExtendedErrorCodeCachedError
		}
	case got.found:
		a.event.Outcome = fleet.Cached
	}
	w.hold(a)
}

// hold puts the answer for this query into form, or what stands for it where the policy holds it back.
func (w *forwarded) hold(a *replying) {
	if v := w.state.inspect(a.query.Name, a.out, w.look); v.blocked() {
		a.out, _ = w.state.blocking.append(a.out[:0], &a.query)
		a.extra.EDE, a.extra.Code, a.extra.Text = true, dns.ExtendedErrorCodeBlocked, v.text()
		a.event.Outcome, a.event.List, a.event.Upstream = fleet.Blocked, v.rule.List, ""
		return
	}
	a.query.Adopt(a.out)
}

func (w *forwarded) serveStale(a *replying) {
	a.out = w.stale.AppendAnswer(make([]byte, 0, w.stale.Size()+optRoom), w.engine.opts.Now())
	a.event.Outcome = fleet.Stale
	a.extra.EDE, a.extra.Code = true, dns.ExtendedErrorCodeStaleAnswer
	if a.out[3]&0xF == dns.RcodeNameError {
		a.extra.Code = dns.ExtendedErrorCodeStaleNXDOMAINAnswer
	}
	w.hold(a)
}

// fail answers SERVFAIL.
func (w *forwarded) fail(a *replying, outcome fleet.Outcome, ede *message.EDE) {
	a.out = a.query.AppendHead(make([]byte, 0, 512), dns.RcodeServerFailure)
	a.event.Outcome, a.event.Upstream, a.event.List = outcome, "", ""
	a.extra.EDE = false
	if ede != nil {
		a.extra.EDE, a.extra.Code, a.extra.Text = true, ede.Code, [2]string{ede.Text}
	}
}

// cut makes a reply that fits: by way of package message, which knows which records to leave out.
func (w *forwarded) cut(a *replying) []byte {
	q, err := message.Parse(w.raw)
	msg := new(dns.Msg)
	if err == nil {
		err = msg.Unpack(a.out)
	}
	if err == nil {
		x := message.Extra{Cookie: a.extra.Cookie, Padding: a.extra.Padding}
		if a.extra.EDE {
			x.EDE = &message.EDE{Code: a.extra.Code, Text: a.extra.Text[0] + a.extra.Text[1]}
		}
		var whole []byte
		if whole, err = packGuarded(q, q.Adopt(msg), x, w.protocol == listen.UDP); err == nil {
			return whole
		}
	}
	w.engine.opts.Log.Debug("answer not cut", "err", err)
	w.fail(a, fleet.UpstreamError, nil)
	a.event.RCode = dns.RcodeServerFailure
	return a.query.Finish(a.out, 0, &a.extra)
}

// noUpstream is the extended error of a query that no upstream has answered.
func noUpstream() *message.EDE {
	return &message.EDE{Code: dns.ExtendedErrorCodeNetworkError, Text: "no upstream answered"}
}
