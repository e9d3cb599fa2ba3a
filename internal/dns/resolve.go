package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/cache"
	"dnsfleet/internal/dns/local"
	"dnsfleet/internal/dns/message"
	"dnsfleet/internal/dns/rules"
	"dnsfleet/internal/dns/upstream"
	"dnsfleet/internal/fleet"
)

// patience is how long a client waits for upstreams when there is an expired answer to give instead (RFC 8767,
// section 5: the client response timer).
const patience = 1800 * time.Millisecond

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
	hit := e.cache.Get(keyOf(q))
	if hit.State == cache.Fresh {
		return e.inspected(st, r, cachedAnswer(r, hit.Msg)), true
	}
	return answer{}, false
}

// resolve answers what resolveNow could not.
func (e *Engine) resolve(ctx context.Context, st *state, r *request) answer {
	q := r.query
	if found, ok := st.zone.Lookup(q.Name, q.Question.Qtype); ok {
		return e.chase(ctx, st, r, found)
	}
	if r.rewrite != nil {
		return e.follow(ctx, st, r)
	}
	return e.inspected(st, r, e.ask(ctx, st, r, keyOf(q)))
}

// chase follows a local alias out of the zone. The policy's own alias is not checked against the rules: whoever wrote
// it wants its target.
func (e *Engine) chase(ctx context.Context, st *state, r *request, found local.Answer) answer {
	a := localAnswer(r, found)
	if found.Chase == "" {
		return a
	}
	key := keyOf(r.query)
	key.Name = found.Chase
	target := answer{}
	if hit := e.cache.Get(key); hit.State == cache.Fresh {
		target = cachedAnswer(r, hit.Msg)
	} else {
		target = e.ask(ctx, st, r, key)
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

// ask asks the upstreams, together with everybody who asks the same now. When they fail, or take longer than a client
// has patience, an expired answer is served if the policy still allows it.
func (e *Engine) ask(ctx context.Context, st *state, r *request, key cache.Key) answer {
	old := e.cache.Peek(key)
	var timer <-chan time.Time
	if old.State == cache.Stale {
		timer = time.After(patience)
	}
	flight := e.flights.join(key, func() flown { return e.fly(ctx, st, key) })
	var got flown
	select {
	case <-flight.done:
		got = flight.result
	case <-timer:
		return staleAnswer(r, old.Msg)
	}
	failed := got.err != nil || got.msg.Rcode == dns.RcodeServerFailure
	switch {
	case failed && old.State == cache.Stale:
		return staleAnswer(r, old.Msg)
	case errors.Is(got.err, upstream.ErrCachedFailure):
		return answer{
			msg: r.query.Reply(dns.RcodeServerFailure), outcome: fleet.Servfail,
			ede: &message.EDE{Code: dns.ExtendedErrorCodeCachedError},
		}
	case got.err != nil:
		e.opts.Log.DebugContext(ctx, "no upstream answered", "err", got.err)
		return answer{
			msg: r.query.Reply(dns.RcodeServerFailure), outcome: fleet.UpstreamError,
			ede: &message.EDE{Code: dns.ExtendedErrorCodeNetworkError, Text: "no upstream answered"},
		}
	case got.cached:
		return cachedAnswer(r, got.msg.Copy())
	case failed:
		return answer{msg: r.query.Adopt(got.msg.Copy()), outcome: fleet.Servfail, upstream: got.address}
	}
	return answer{msg: r.query.Adopt(got.msg.Copy()), outcome: fleet.Upstream, upstream: got.address}
}

// fly is one exchange for all who wait for it. It looks into the cache again, since the exchange before it may have
// ended after the caller looked.
func (e *Engine) fly(ctx context.Context, st *state, key cache.Key) flown {
	if hit := e.cache.Peek(key); hit.State == cache.Fresh {
		return flown{msg: hit.Msg, cached: true}
	}
	question := dns.Question{Name: key.Name, Qtype: key.Type, Qclass: key.Class}
	result, err := st.upstreams.Resolve(ctx, upstream.NewQuery(question, key.DO, key.CD))
	if err != nil {
		return flown{err: err}
	}
	if e.state.Load().upstreams == st.upstreams { // the policy has not moved to other upstreams meanwhile
		e.cache.Put(key, result.Msg)
	}
	return flown{msg: result.Msg, address: result.Address}
}

func keyOf(q message.Query) cache.Key {
	return cache.Key{Name: q.Name, Type: q.Question.Qtype, Class: q.Question.Qclass, DO: q.DO(), CD: q.CD()}
}

func cachedAnswer(r *request, msg *dns.Msg) answer {
	a := answer{msg: r.query.Adopt(msg), outcome: fleet.Cached}
	if msg.Rcode == dns.RcodeServerFailure {
		a.outcome, a.ede = fleet.Servfail, &message.EDE{Code: dns.ExtendedErrorCodeCachedError}
	}
	return a
}

func staleAnswer(r *request, msg *dns.Msg) answer {
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
	if len(reply.Answer) == 0 {
		reply.Ns = []dns.RR{local.SOA(r.query.Question.Name)}
	}
	return answer{msg: reply, outcome: fleet.Local}
}

func blockedAnswer(r *request, d rules.Decision, mode fleet.BlockMode) answer {
	by := "policy"
	if d.List != "" {
		by = "list " + d.List
	}
	a := answer{
		msg: r.query.Reply(dns.RcodeSuccess), outcome: fleet.Blocked, list: d.List,
		ede: &message.EDE{Code: dns.ExtendedErrorCodeBlocked, Text: fmt.Sprintf("blocked by %s", by)},
	}
	switch {
	case mode.Mode == "refused":
		a.msg.Rcode = dns.RcodeRefused
		return a
	case mode.Mode == "zero":
		a.msg.Answer = addressRecords(r.query.Question, [][]byte{net.IPv4zero.To4(), net.IPv6zero})
	case len(mode.Addresses) > 0:
		raw := make([][]byte, 0, len(mode.Addresses))
		for _, addr := range mode.Addresses {
			raw = append(raw, addr.Unmap().AsSlice())
		}
		a.msg.Answer = addressRecords(r.query.Question, raw)
	default:
		a.msg.Rcode = dns.RcodeNameError
	}
	if len(a.msg.Answer) == 0 {
		a.msg.Ns = []dns.RR{local.SOA(r.query.Question.Name)}
	}
	return a
}

// addressRecords are the addresses of the family that is asked for.
func addressRecords(q dns.Question, addresses [][]byte) []dns.RR {
	var records []dns.RR
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: local.NegativeTTL}
	for _, raw := range addresses {
		switch {
		case q.Qtype == dns.TypeA && len(raw) == net.IPv4len:
			records = append(records, &dns.A{Hdr: header, A: raw})
		case q.Qtype == dns.TypeAAAA && len(raw) == net.IPv6len:
			records = append(records, &dns.AAAA{Hdr: header, AAAA: raw})
		}
	}
	return records
}
