package dns

import (
	"errors"
	"slices"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/cache"
	"dnsfleet/internal/dns/local"
	"dnsfleet/internal/dns/message"
	"dnsfleet/internal/dns/upstream"
	"dnsfleet/internal/fleet"
)

// resolveNow answers from local records, rules and cache. now is false when an upstream must be asked.
func (e *Engine) resolveNow(st *state, r *request) (a answer, now bool) {
	q := r.query
	if found, ok := st.zone.Lookup(q.Name, q.Question.Qtype); ok {
		if found.Chase != "" {
			return answer{}, false
		}
		return localAnswer(r, found), true
	}
	if a, now = e.judge(st, r); now || r.rewrite != nil {
		return a, now
	}
	if q.Question.Qtype == dns.TypeANY {
		reply := q.Reply(dns.RcodeSuccess)
		reply.Answer = []dns.RR{local.MinimalANY(q.Question.Name)}
		return answer{msg: reply, outcome: fleet.Local}, true
	}
	key, ok := questionOf(q, q.Name)
	if !ok {
		return r.refuse(dns.RcodeFormatError, nil), true
	}
	entry, state := e.cache.Find(key, e.opts.Now())
	e.cache.Count(sharedLane, state)
	if state != cache.Fresh {
		return answer{}, false
	}
	return e.inspected(st, r, key, entry.AppendAnswer(nil, e.opts.Now()), e.cachedAnswer), true
}

// resolve answers what resolveNow could not.
func (e *Engine) resolve(st *state, r *request) answer {
	q := r.query
	if found, ok := st.zone.Lookup(q.Name, q.Question.Qtype); ok {
		return e.chase(st, r, found)
	}
	if r.rewrite != nil {
		return e.follow(st, r)
	}
	key, ok := questionOf(q, q.Name)
	if !ok {
		return r.refuse(dns.RcodeFormatError, nil)
	}
	return e.ask(st, r, key)
}

// questionOf is the question of a query about a name; false for what is none.
func questionOf(q message.Query, name string) (cache.Question, bool) {
	wire := make([]byte, 256)
	end, err := dns.PackDomainName(name, wire, 0, nil, false)
	return cache.Question{Name: wire[:max(end, 0)], Type: q.Question.Qtype, DO: q.DO(), CD: q.CD()}, err == nil && end > 0
}

// chase follows a local alias out of the zone. The policy's own alias is not checked against the rules: whoever wrote
// it wants its target.
func (e *Engine) chase(st *state, r *request, found local.Answer) answer {
	a := localAnswer(r, found)
	if found.Chase == "" {
		return a
	}
	key, ok := questionOf(r.query, found.Chase)
	if !ok {
		return a
	}
	r.look = trusted
	target := answer{}
	if entry, state := e.cache.Find(key, e.opts.Now()); state == cache.Fresh {
		target = e.inspected(st, r, key, entry.AppendAnswer(nil, e.opts.Now()), e.cachedAnswer)
	} else {
		target = e.ask(st, r, key)
	}
	if target.outcome == fleet.Servfail || target.outcome == fleet.UpstreamError {
		return target
	}
	a.msg.Rcode = target.msg.Rcode
	a.msg.Answer = append(slices.Clone(a.msg.Answer), target.msg.Answer...)
	a.msg.Ns = target.msg.Ns
	a.upstream = target.upstream
	return a
}

// follow answers a query that a rule makes an alias.
func (e *Engine) follow(st *state, r *request) answer {
	target := dns.CanonicalName(r.rewrite.CNAME)
	header := dns.RR_Header{Name: r.query.Question.Name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: local.NegativeTTL}
	found := local.Answer{Records: []dns.RR{&dns.CNAME{Hdr: header, Target: target}}, Chase: target}
	if r.query.Question.Qtype == dns.TypeCNAME {
		found.Chase = ""
	}
	a := e.chase(st, r, found)
	if a.outcome == fleet.Local {
		a.outcome = fleet.Rewritten
	}
	return a
}

// landing lets a goroutine wait for a flight.
type landing chan *flown

// Land see waiter.
func (l landing) Land(got *flown) { l <- got }

// ask asks the upstreams, together with everybody who asks the same now. When they fail, or take longer than a client
// has patience, an expired answer is served if the policy still allows it.
func (e *Engine) ask(st *state, r *request, key cache.Question) answer {
	old, state := e.cache.Find(key, e.opts.Now())
	if state != cache.Stale {
		old = nil
	}
	var timer <-chan time.Time
	if old != nil {
		timer = time.After(patience)
	}
	landed := make(landing, 1)
	e.fly(st, key, landed)
	var got *flown
	select {
	case got = <-landed:
	case <-timer:
	}
	now := e.opts.Now()
	switch {
	case old != nil && (got == nil || got.failed()):
		return e.inspected(st, r, key, old.AppendAnswer(nil, now), e.staleAnswer)
	case errors.Is(got.err, upstream.ErrCachedFailure):
		return answer{
			msg: r.query.Reply(dns.RcodeServerFailure), outcome: fleet.Servfail,
			ede: &message.EDE{Code: dns.ExtendedErrorCodeCachedError},
		}
	case got.err != nil:
		e.opts.Log.Debug("no upstream answered", "err", got.err)
		return answer{msg: r.query.Reply(dns.RcodeServerFailure), outcome: fleet.UpstreamError, ede: noUpstream()}
	case got.found:
		return e.inspected(st, r, key, got.appendAnswer(nil, now), e.cachedAnswer)
	}
	return e.inspected(st, r, key, got.appendAnswer(nil, now), func(r *request, msg *dns.Msg) answer {
		a := answer{msg: r.query.Adopt(msg), outcome: fleet.Upstream, upstream: got.from}
		if msg.Rcode == dns.RcodeServerFailure {
			a.outcome = fleet.Servfail
		}
		return a
	})
}

// inspected is what form makes of an answer in wire form, or what stands for it where the policy holds it back.
func (e *Engine) inspected(st *state, r *request, key cache.Question, wire []byte, form func(*request, *dns.Msg) answer) answer {
	if v := st.inspect(key.Name, wire, r.look); v.blocked() {
		return st.blocking.answer(r, v.text(), v.rule.List)
	}
	msg := new(dns.Msg)
	if err := msg.Unpack(wire); err != nil {
		e.opts.Log.Debug("answer not unpacked", "err", err)
		return answer{msg: r.query.Reply(dns.RcodeServerFailure), outcome: fleet.UpstreamError, ede: noUpstream()}
	}
	return form(r, msg)
}

func (e *Engine) cachedAnswer(r *request, msg *dns.Msg) answer {
	a := answer{msg: r.query.Adopt(msg), outcome: fleet.Cached}
	if msg.Rcode == dns.RcodeServerFailure {
		a.outcome, a.ede = fleet.Servfail, &message.EDE{Code: dns.ExtendedErrorCodeCachedError}
	}
	return a
}

func (e *Engine) staleAnswer(r *request, msg *dns.Msg) answer {
	ede := &message.EDE{Code: dns.ExtendedErrorCodeStaleAnswer}
	if msg.Rcode == dns.RcodeNameError {
		ede.Code = dns.ExtendedErrorCodeStaleNXDOMAINAnswer
	}
	return answer{msg: r.query.Adopt(msg), outcome: fleet.Stale, ede: ede}
}

func localAnswer(r *request, found local.Answer) answer {
	reply := r.query.Reply(dns.RcodeSuccess)
	reply.Answer = found.Records
	if found.NotExist {
		reply.Rcode = dns.RcodeNameError
	}
	if found.Zone != "" {
		reply.Ns = []dns.RR{local.SOA(found.Zone)}
	}
	return answer{msg: reply, outcome: fleet.Local}
}
