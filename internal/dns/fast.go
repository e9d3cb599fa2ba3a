package dns

import (
	"github.com/miekg/dns"

	"dnsfleet/internal/dns/cache"
	"dnsfleet/internal/dns/listen"
	"dnsfleet/internal/dns/packet"
	"dnsfleet/internal/dns/rules"
	"dnsfleet/internal/fleet"
)

// fast answers a plain query from the rules or the cache, or sends it on its way to an upstream, on the bytes that came and
// those that are kept. It allocates only for what has to wait. done is false for all that it leaves to the way over
// package message; then nothing has been counted.
func (e *Engine) fast(l *lane, m *listen.Message, out []byte) (reply []byte, done bool) {
	q := &l.query
	st := e.state.Load()
	if st == nil || !q.Read(m.Raw) || !e.allowed(l, m.Client) {
		return nil, false
	}
	now := e.at(m.Arrived)
	question := cache.Question{Name: q.Name, Type: q.Type, DO: q.DO, CD: q.CD}
	entry, state := e.cache.Find(question, now)
	if state == cache.Fresh && entry.Stamp() == st.generation {
		return e.fromCache(l, m, out, entry)
	}
	if st.zone.Covers(q.Name) {
		return nil, false
	}
	_, paused := e.PausedUntil()
	look := guarded
	if !paused {
		d := st.rules.MatchWire(q.Name, q.Type)
		switch {
		case d.Blocked:
			return e.blocked(l, m, out, st, d)
		case d.Kind == rules.Rewritten:
			return nil, false
		}
		look = scrutinyOf(d)
	}
	if state != cache.Fresh {
		e.forward(l, m, st, entry, look)
		return nil, true
	}
	if v := st.inspect(q.Name, entry.AppendAnswer(out, now), look); v.blocked() {
		return e.withheld(l, m, out, st, v)
	}
	if !paused {
		entry.SetStamp(st.generation)
	}
	return e.fromCache(l, m, out, entry)
}

// fromCache answers with an entry that may be served.
func (e *Engine) fromCache(l *lane, m *listen.Message, out []byte, entry *cache.Entry) (reply []byte, done bool) {
	q := &l.query
	x := e.extra(l, m)
	event := e.event(m, q, fleet.Cached)
	out = entry.AppendAnswer(out, event.Time)
	q.Adopt(out)
	if event.RCode = int(out[3] & 0xF); event.RCode == dns.RcodeServerFailure {
		x.EDE, x.Code = true, dns.ExtendedErrorCodeCachedError
		event.Outcome = fleet.Servfail
	}
	out = q.Finish(out, 0, &x)
	if !q.Fits(len(out), m.Protocol == listen.UDP) {
		return nil, false
	}
	e.cache.Count(l.id, cache.Fresh)
	e.note(l, event)
	return out, true
}

// blocked answers what a rule blocks.
func (e *Engine) blocked(l *lane, m *listen.Message, out []byte, st *state, d rules.Decision) (reply []byte, done bool) {
	x := e.extra(l, m)
	x.EDE, x.Code, x.Text = true, dns.ExtendedErrorCodeBlocked, blockedText(d)
	return e.withhold(l, m, out, st, &x, d.List)
}

// withheld answers what is held back for what the answer leads to.
func (e *Engine) withheld(l *lane, m *listen.Message, out []byte, st *state, v verdict) (reply []byte, done bool) {
	x := e.extra(l, m)
	x.EDE, x.Code, x.Text = true, dns.ExtendedErrorCodeBlocked, v.text()
	return e.withhold(l, m, out, st, &x, v.rule.List)
}

func (e *Engine) withhold(l *lane, m *listen.Message, out []byte, st *state, x *packet.Extra, list string) (reply []byte, done bool) {
	q := &l.query
	event := e.event(m, q, fleet.Blocked)
	event.List = list
	out, event.RCode = st.blocking.append(out, q)
	out = q.Finish(out, 0, x)
	if !q.Fits(len(out), m.Protocol == listen.UDP) {
		return nil, false
	}
	e.note(l, event)
	return out, true
}

// event is what is recorded of a query, but for its name and how long it took.
func (e *Engine) event(m *listen.Message, q *packet.Query, outcome fleet.Outcome) fleet.QueryEvent {
	return fleet.QueryEvent{
		Time: e.at(m.Arrived), Client: m.Client, Protocol: m.Protocol.String(), QType: q.Type, QClass: dns.ClassINET, Outcome: outcome,
	}
}

// extra is what the OPT of every reply says.
func (e *Engine) extra(l *lane, m *listen.Message) packet.Extra {
	x := packet.Extra{Padding: l.query.Padding && encrypted(m.Protocol)}
	if l.query.Cookie != nil {
		x.Cookie = e.cookies.Append(l.cookie[:0], l.query.Cookie, m.Client, e.at(m.Arrived))
	}
	return x
}

// encrypted reports whether nobody can look inside, so that padding is of use.
func encrypted(p listen.Protocol) bool { return p == listen.DoT || p == listen.DoH }
