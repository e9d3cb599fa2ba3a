package dns

import (
	"net/netip"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/local"
	"dnsfleet/internal/dns/packet"
	"dnsfleet/internal/dns/rebinding"
	"dnsfleet/internal/dns/rules"
	"dnsfleet/internal/fleet"
)

// verdict is what the policy says of what an answer holds. The zero value lets it pass.
type verdict struct {
	rule    rules.Decision // that blocks
	private bool           // a name of the outside leads to an address of the inside
}

func (v verdict) blocked() bool { return v.rule.Blocked || v.private }

func (v verdict) text() [2]string {
	if v.private {
		return [2]string{"blocked by ", "rebinding protection: a private address for a public name"}
	}
	return blockedText(v.rule)
}

// scrutiny is how closely an answer is looked at.
type scrutiny uint8

const (
	trusted scrutiny = iota // the policy allows the name, whatever it leads to
	guarded                 // no public name leads to a private address
	held                    // and nothing that rules block is led to
)

// scrutinyOf is how closely the answer about a name is looked at that the rules do not block.
func scrutinyOf(d rules.Decision) scrutiny {
	switch d.Kind {
	case rules.Allow:
		return trusted
	case rules.Exception:
		return guarded
	default:
		return held
	}
}

// inspect holds an answer, in wire form, to the question about name to the policy: the names that aliases lead to and the
// addresses to the rules, and the addresses to the protection against rebinding. A name of a site's own that is an alias
// of a tracker's is blocked as the tracker is.
func (st *state) inspect(name, answer []byte, look scrutiny) (v verdict) {
	byRules, guarded := look == held, look != trusted && !st.guard.Exempt(name)
	if !byRules && !guarded {
		return v
	}
	pass, block := false, rules.Decision{}
	decide := func(d rules.Decision) {
		switch {
		case pass || block.Blocked:
		case d.Blocked:
			block = d
		case d.Allowed():
			pass = true
		}
	}
	var buf [256]byte
	var addrs [8]netip.Addr // aliases first: they decide before addresses
	kept := addrs[:0]
	for c := packet.RecordsOf(answer); ; {
		r, ok := c.Next()
		if !ok || r.Section != packet.AnswerSection {
			break
		}
		if r.Type == dns.TypeCNAME && byRules {
			if target, ok := packet.AppendName(buf[:0], answer, r.Data); ok {
				decide(st.rules.MatchWire(target, dns.TypeCNAME))
			}
		} else if addr, ok := r.Addr(answer); ok {
			kept = append(kept, addr)
			v.private = v.private || guarded && rebinding.Private(addr)
		}
	}
	for _, addr := range kept {
		if !byRules || pass || block.Blocked {
			break
		}
		qtype := dns.TypeAAAA
		if addr.Is4() {
			qtype = dns.TypeA
		}
		if d := st.rules.MatchAddr(addr, qtype); d.Blocked {
			block = d
		}
	}
	v.rule = block
	if block.Blocked {
		v.private = false
	}
	return v
}

// judge answers a query that a rule blocks or rewrites. now is false when nothing more is needed from the rules, or when
// the rewritten answer leads to a name that must be asked for: then r.rewrite says so.
func (e *Engine) judge(st *state, r *request) (a answer, now bool) {
	r.look = guarded
	if _, paused := e.PausedUntil(); paused {
		return answer{}, false
	}
	d := st.rules.Match(r.query.Name, r.query.Question.Qtype)
	switch {
	case d.Blocked:
		return st.blocking.answer(r, blockedText(d), d.List), true
	case d.Kind == rules.Rewritten && d.Rewrite.CNAME != "":
		r.rewrite = d.Rewrite
		return answer{}, false
	case d.Kind == rules.Rewritten:
		return rewrittenAnswer(r, d.Rewrite), true
	}
	r.look = scrutinyOf(d)
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
