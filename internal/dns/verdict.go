package dns

import (
	"context"
	"net/netip"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/local"
	"dnsfleet/internal/dns/rules"
	"dnsfleet/internal/fleet"
)

// judge answers a query that a rule blocks or rewrites. now is false when nothing more is needed from the rules, or when
// the rewritten answer leads to a name that must be asked for: then r.rewrite says so.
func (e *Engine) judge(st *state, r *request) (a answer, now bool) {
	if _, paused := e.PausedUntil(); paused {
		return answer{}, false
	}
	d := st.rules.Match(r.query.Name, r.query.Question.Qtype)
	switch {
	case d.Blocked:
		return blockedAnswer(r, d, st.doc.Policy.BlockMode), true
	case d.Kind == rules.Rewritten && d.Rewrite.CNAME != "":
		r.rewrite = d.Rewrite
		return answer{}, false
	case d.Kind == rules.Rewritten:
		return rewrittenAnswer(r, d.Rewrite), true
	}
	r.inspect = !d.Allowed()
	return answer{}, false
}

// rewrittenAnswer is what a rule says instead of the upstream. A family of addresses that it does not name is NODATA.
func rewrittenAnswer(r *request, w *rules.Rewrite) answer {
	reply := r.query.Reply(w.RCode)
	raw := make([][]byte, 0, len(w.Addrs))
	for _, addr := range w.Addrs {
		raw = append(raw, addr.Unmap().AsSlice())
	}
	reply.Answer = addressRecords(r.query.Question, raw)
	if len(reply.Answer) == 0 && w.RCode != dns.RcodeRefused {
		reply.Ns = []dns.RR{local.SOA(r.query.Question.Name)}
	}
	return answer{msg: reply, outcome: fleet.Rewritten}
}

// follow answers a query that a rule makes an alias.
func (e *Engine) follow(ctx context.Context, st *state, r *request) answer {
	target := dns.CanonicalName(r.rewrite.CNAME)
	header := dns.RR_Header{Name: r.query.Question.Name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: local.NegativeTTL}
	found := local.Answer{Records: []dns.RR{&dns.CNAME{Hdr: header, Target: target}}, Chase: target}
	if r.query.Question.Qtype == dns.TypeCNAME {
		found.Chase = ""
	}
	a := e.chase(ctx, st, r, found)
	if a.outcome == fleet.Local {
		a.outcome = fleet.Rewritten
	}
	return a
}

// inspected is a, or what stands for it where the rules block a name that the answer leads to, or an address in it: a name
// of a site's own that is an alias of a tracker's is blocked as the tracker is.
func (e *Engine) inspected(st *state, r *request, a answer) answer {
	if !r.inspect || a.msg == nil || len(a.msg.Answer) == 0 {
		return a
	}
	var aliases []string
	var addrs []netip.Addr
	for _, rr := range a.msg.Answer {
		switch rr := rr.(type) {
		case *dns.CNAME:
			aliases = append(aliases, rr.Target)
		case *dns.A:
			if addr, ok := netip.AddrFromSlice(rr.A.To4()); ok {
				addrs = append(addrs, addr)
			}
		case *dns.AAAA:
			if addr, ok := netip.AddrFromSlice(rr.AAAA); ok {
				addrs = append(addrs, addr)
			}
		}
	}
	if d := st.rules.Inspect(aliases, addrs); d.Blocked {
		return blockedAnswer(r, d, st.doc.Policy.BlockMode)
	}
	return a
}
