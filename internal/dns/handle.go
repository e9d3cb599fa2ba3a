package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/listen"
	"dnsfleet/internal/dns/message"
	"dnsfleet/internal/dns/packet"
	"dnsfleet/internal/dns/ratelimit"
	"dnsfleet/internal/dns/rules"
	"dnsfleet/internal/fleet"
)

// handler takes what the listeners read.
type handler struct{ *Engine }

// Handle answers a message: at once, unless an upstream must be asked.
func (e handler) Handle(m *listen.Message, out []byte) []byte {
	l := e.lane(m.Lane)
	reply := e.handle(l, m, out)
	if l.id == sharedLane {
		e.record(l)
		e.lanePool.Put(l)
	}
	return reply
}

func (e *Engine) handle(l *lane, m *listen.Message, out []byte) (reply []byte) {
	defer func() {
		if p := recover(); p != nil {
			reply = e.rescue(l, m, out, p)
		}
	}()
	if message.IsResponse(m.Raw) {
		return nil
	}
	if st := e.state.Load(); st != nil && st.limiter != nil {
		limiter := st.limiter
		if m.Protocol != listen.UDP {
			limiter = st.streams
		}
		if verdict := limiter.Allow(m.Client, e.at(m.Arrived)); verdict != ratelimit.Pass && !e.knows(l, m) {
			return e.limited(l, m, out, verdict)
		}
	}
	if reply, done := e.fast(l, m, out); done {
		return reply
	}
	return e.slow(l, m)
}

// BatchDone records what the reader's batch came to.
func (e handler) BatchDone(id int) {
	if id > sharedLane && id < len(e.lanes) {
		e.record(e.lanes[id])
	}
}

// lane is the lane of a reader, or one for now.
func (e *Engine) lane(id int) *lane {
	if id > sharedLane && id < len(e.lanes) {
		return e.lanes[id]
	}
	if l, ok := e.lanePool.Get().(*lane); ok {
		return l
	}
	return newLane(sharedLane)
}

// knows reports whether a client has shown by a cookie that its address is its own.
func (e *Engine) knows(l *lane, m *listen.Message) bool {
	return l.query.Read(m.Raw) && l.query.Cookie != nil && e.cookies.Valid(l.query.Cookie, m.Client, e.at(m.Arrived))
}

// limited answers a client that asks too much: with nothing, or so that it asks again over TCP, which nobody can do in
// another's name.
func (e *Engine) limited(l *lane, m *listen.Message, out []byte, verdict ratelimit.Verdict) []byte {
	q := &l.query
	if !q.Read(m.Raw) {
		e.opts.Recorder.Record(sharedLane, &fleet.QueryEvent{
			Time: e.at(m.Arrived), Client: m.Client, Protocol: m.Protocol.String(), Outcome: fleet.RateLimited,
		})
		return nil
	}
	event := e.event(m, q, fleet.RateLimited)
	e.note(l, event)
	if verdict != ratelimit.Slip || m.Protocol != listen.UDP {
		return nil
	}
	x := e.extra(l, m)
	out = q.AppendHead(out, dns.RcodeSuccess)
	packet.SetTruncated(out)
	return q.Finish(out, 0, &x)
}

// rescue answers a query whose handling broke down.
func (e *Engine) rescue(l *lane, m *listen.Message, out []byte, p any) []byte {
	e.panicked(p, l.query.Type)
	if !l.query.Read(m.Raw) {
		return nil
	}
	event := e.event(m, &l.query, fleet.UpstreamError)
	event.RCode = dns.RcodeServerFailure
	e.note(l, event)
	return l.query.Finish(l.query.AppendHead(out[:0], dns.RcodeServerFailure), 0, &packet.Extra{})
}

func (e *Engine) panicked(p any, qtype uint16) {
	e.opts.Log.Error("panic in a query", "panic", fmt.Sprint(p), "qtype", qtype, "stack", string(debug.Stack()))
}

// request is one message from a client on its way through package message.
type request struct {
	query    message.Query
	client   netip.Addr // unmapped, without zone
	protocol listen.Protocol
	arrived  time.Time

	rewrite *rules.Rewrite // what a rule says instead of the upstream and needs one for; nil for none
	look    scrutiny       // of what the answer holds
}

// answer is what becomes of a query. msg is nil when nothing is to be sent.
type answer struct {
	msg      *dns.Msg
	outcome  fleet.Outcome
	ede      *message.EDE
	upstream string
	list     string
}

// slow takes a message by way of package message, as far as it goes without waiting, and further on a goroutine of its
// own.
func (e *Engine) slow(l *lane, m *listen.Message) []byte {
	r := &request{client: m.Client, protocol: m.Protocol, arrived: e.at(m.Arrived)}
	a, now := e.answerNow(l, r, m.Raw)
	if now {
		return e.finish(r, a)
	}
	if !e.admit() {
		return e.finish(r, answer{outcome: fleet.Dropped})
	}
	responder := m.Later()
	go func() {
		defer e.leave()
		var reply []byte
		defer func() { responder.Send(reply) }()
		defer func() {
			if p := recover(); p != nil { // of the recorder: the query itself is guarded within
				e.panicked(p, r.query.Question.Qtype)
			}
		}()
		reply = e.finish(r, e.answerLater(r))
	}()
	return nil
}

// answerNow answers what needs no upstream.
func (e *Engine) answerNow(l *lane, r *request, raw []byte) (a answer, now bool) {
	defer func() {
		if p := recover(); p != nil {
			a, now = e.crashed(r, p), true
		}
	}()
	var err error
	r.query, err = message.Parse(raw)
	if !e.allowed(l, r.client) {
		return r.refuse(dns.RcodeRefused, &message.EDE{Code: dns.ExtendedErrorCodeProhibited}), true
	}
	var refusal *message.RefusalError
	if errors.As(err, &refusal) {
		return r.refuse(refusal.RCode, nil), true
	}
	st := e.state.Load()
	if st == nil {
		return answer{
			msg: r.query.Reply(dns.RcodeServerFailure), outcome: fleet.UpstreamError,
			ede: &message.EDE{Code: dns.ExtendedErrorCodeNotReady, Text: "no policy yet"},
		}, true
	}
	return e.resolveNow(st, r)
}

// answerLater asks upstreams and turns a panic into SERVFAIL.
func (e *Engine) answerLater(r *request) (a answer) {
	defer func() {
		if p := recover(); p != nil {
			a = e.crashed(r, p)
		}
	}()
	return e.resolve(e.state.Load(), r)
}

func (e *Engine) crashed(r *request, p any) answer {
	e.panicked(p, r.query.Question.Qtype)
	if r.query.Msg == nil {
		return answer{outcome: fleet.UpstreamError}
	}
	return answer{msg: r.query.Reply(dns.RcodeServerFailure), outcome: fleet.UpstreamError}
}

// refuse answers a message that is not served. A message without even a header gets no answer.
func (r *request) refuse(rcode int, ede *message.EDE) answer {
	a := answer{outcome: fleet.Invalid, ede: ede}
	if rcode == dns.RcodeRefused {
		a.outcome = fleet.Refused
	}
	if r.query.Msg != nil {
		a.msg = r.query.Reply(rcode)
	}
	return a
}

// finish packs the reply and records the event: exactly once for each query.
func (e *Engine) finish(r *request, a answer) []byte {
	event := fleet.QueryEvent{
		Time: r.arrived, Client: r.client, Protocol: r.protocol.String(), QName: r.query.Name,
		QType: r.query.Question.Qtype, QClass: r.query.Question.Qclass,
		Outcome: a.outcome, Upstream: a.upstream, List: a.list,
	}
	var wire []byte
	if a.msg != nil {
		x := message.Extra{EDE: a.ede, Padding: r.query.Padded() && encrypted(r.protocol)}
		if came := r.query.Cookie(); came != nil {
			x.Cookie = e.cookies.Append(nil, came, r.client, e.opts.Now())
		}
		var err error
		wire, err = packGuarded(r.query, a.msg, x, r.protocol == listen.UDP)
		if err != nil {
			e.opts.Log.Debug("answer not packed", "err", err)
			event.Outcome, event.Upstream, event.List = fleet.UpstreamError, "", ""
			a.msg = r.query.Reply(dns.RcodeServerFailure)
			wire, _ = r.query.Pack(a.msg, message.Extra{}, true) // holds only the question, which was unpacked before
		}
		event.RCode = a.msg.Rcode
	}
	event.Duration = max(e.opts.Now().Sub(r.arrived), 0)
	e.opts.Recorder.Record(sharedLane, &event)
	return wire
}

// packGuarded guards against records of upstreams that can be read but not written.
func packGuarded(q message.Query, msg *dns.Msg, x message.Extra, udp bool) (wire []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return q.Pack(msg, x, udp)
}
