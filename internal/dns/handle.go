package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/message"
	"dnsfleet/internal/dns/rules"
	"dnsfleet/internal/fleet"
)

// request is one message from a client on its way through the engine.
type request struct {
	query    message.Query
	client   netip.Addr // unmapped, without zone
	protocol string     // udp or tcp
	arrived  time.Time

	rewrite *rules.Rewrite // what a rule says instead of the upstream and needs one for; nil for none
	inspect bool           // the rules have a say in what the answer holds
}

// answer is what becomes of a query. msg is nil when nothing is to be sent.
type answer struct {
	msg      *dns.Msg
	outcome  fleet.Outcome
	ede      *message.EDE
	upstream string
	list     string
}

// handle takes a message as far as it goes without waiting. If wait is nil the reply is what to send, nil for nothing.
// Otherwise an upstream must be asked: wait does that and returns the reply. wait must be called exactly once.
func (e *Engine) handle(raw []byte, client netip.Addr, protocol string) (reply []byte, wait func(context.Context) []byte) {
	if message.IsResponse(raw) {
		return nil, nil
	}
	r := &request{client: client, protocol: protocol, arrived: e.opts.Now()}
	done := false
	defer func() {
		if p := recover(); p != nil && !done {
			reply, wait = e.finish(r, e.crashed(r, p)), nil
		}
	}()
	a, now := e.answerNow(r, raw)
	if now {
		done = true
		return e.finish(r, a), nil
	}
	select {
	case e.inFlight <- struct{}{}:
	default:
		done = true
		return e.finish(r, answer{outcome: fleet.Dropped}), nil
	}
	return nil, func(ctx context.Context) []byte {
		defer func() { <-e.inFlight }()
		defer func() {
			if p := recover(); p != nil { // of the recorder: the query itself is guarded within
				e.opts.Log.ErrorContext(ctx, "panic in a query", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			}
		}()
		return e.finish(r, e.answerLater(ctx, r))
	}
}

// answerNow answers what needs no upstream.
func (e *Engine) answerNow(r *request, raw []byte) (a answer, now bool) {
	var err error
	r.query, err = message.Parse(raw)
	if !e.allowed(r.client) {
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
func (e *Engine) answerLater(ctx context.Context, r *request) (a answer) {
	defer func() {
		if p := recover(); p != nil {
			a = e.crashed(r, p)
		}
	}()
	return e.resolve(ctx, e.state.Load(), r)
}

func (e *Engine) crashed(r *request, p any) answer {
	e.opts.Log.Error("panic in a query", "panic", fmt.Sprint(p), "qtype", r.query.Question.Qtype, "stack", string(debug.Stack()))
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
		Time: r.arrived, Client: r.client, Protocol: r.protocol, QName: r.query.Name,
		QType: r.query.Question.Qtype, QClass: r.query.Question.Qclass,
		Outcome: a.outcome, Upstream: a.upstream, List: a.list,
	}
	var wire []byte
	if a.msg != nil {
		var err error
		wire, err = pack(r, a)
		if err != nil {
			e.opts.Log.Debug("answer not packed", "err", err)
			event.Outcome, event.Upstream, event.List = fleet.UpstreamError, "", ""
			a.msg = r.query.Reply(dns.RcodeServerFailure)
			wire, _ = r.query.Pack(a.msg, nil, true) // holds only the question, which was unpacked before
		}
		event.RCode = a.msg.Rcode
	}
	event.Duration = max(e.opts.Now().Sub(r.arrived), 0)
	if e.opts.Recorder != nil {
		e.opts.Recorder.RecordQuery(event)
	}
	return wire
}

// pack guards against records of upstreams that can be read but not written.
func pack(r *request, a answer) (wire []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return r.query.Pack(a.msg, a.ede, r.protocol == "udp")
}
