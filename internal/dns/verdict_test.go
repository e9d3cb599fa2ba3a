package dns_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"dnsfleet/internal/fleet"
)

// listOf is a policy list of these lines, as a file.
func listOf(t testing.TB, name string, lines ...string) fleet.PolicyList {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".txt")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return fleet.PolicyList{Name: name, URL: "file://" + path}
}

// zoneUpstream answers from the given records, and NXDOMAIN for other names.
func zoneUpstream(t testing.TB, records ...string) *upstreamServer {
	t.Helper()
	zone := map[string][]dns.RR{}
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		zone[rr.Header().Name] = append(zone[rr.Header().Name], rr)
	}
	return serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		name := q.Question[0].Name
		if zone[name] == nil {
			m.Rcode = dns.RcodeNameError
			m.Ns = []dns.RR{mustRR(name[strings.LastIndexByte(strings.TrimSuffix(name, "."), '.')+1:] + " 300 IN SOA ns.test. host.test. 1 1 1 1 60")}
		}
		for hops := 0; zone[name] != nil && hops < 8; hops++ {
			next := ""
			for _, rr := range zone[name] {
				if alias, is := rr.(*dns.CNAME); is {
					next = alias.Target
				}
				if rr.Header().Rrtype == q.Question[0].Qtype || rr.Header().Rrtype == dns.TypeCNAME {
					m.Answer = append(m.Answer, rr)
				}
			}
			name = next
		}
		w.WriteMsg(m)
	})
}

func TestWhatAnAnswerLeadsToIsHeldToTheRules(t *testing.T) {
	up := zoneUpstream(t,
		"metrics.site.example. 60 IN CNAME t.tracker.example.", "t.tracker.example. 60 IN A 192.0.2.1",
		"fine.example. 60 IN CNAME other.example.", "other.example. 60 IN A 192.0.2.2",
		"good.example. 60 IN CNAME t.tracker.example.", "bad-address.example. 60 IN A 203.0.113.66",
	)
	policy := policyOf(up.url())
	policy.Allow = []string{"good.example"}
	policy.Lists = []fleet.PolicyList{listOf(t, "trackers", "||tracker.example^", "203.0.113.66", "||rewritten.example^$dnsrewrite=192.0.2.99",
		"||nothing.example^$dnsrewrite=NXDOMAIN", "||alias.example^$dnsrewrite=other.example", "||only4.example^$dnstype=A")}
	b := start(t, policy, nil)
	eventually(t, "the list is loaded", func() bool { return b.Ready() == nil && b.Blocklist().Blocked > 0 })
	for range 2 { // from the upstream, then from the cache
		for _, c := range []struct {
			name    string
			qtype   uint16
			rcode   int
			answer  string
			outcome fleet.Outcome // but for upstream, which the second time is cached
		}{
			{"metrics.site.example", dns.TypeA, dns.RcodeNameError, "", fleet.Blocked},
			{"fine.example", dns.TypeA, dns.RcodeSuccess, "192.0.2.2", fleet.Upstream},
			{"good.example", dns.TypeA, dns.RcodeSuccess, "192.0.2.1", fleet.Upstream},
			{"bad-address.example", dns.TypeA, dns.RcodeNameError, "", fleet.Blocked},
			{"rewritten.example", dns.TypeA, dns.RcodeSuccess, "192.0.2.99", fleet.Rewritten},
			{"rewritten.example", dns.TypeAAAA, dns.RcodeSuccess, "", fleet.Rewritten},
			{"nothing.example", dns.TypeA, dns.RcodeNameError, "", fleet.Rewritten},
			{"alias.example", dns.TypeA, dns.RcodeSuccess, "192.0.2.2", fleet.Rewritten},
			{"alias.example", dns.TypeCNAME, dns.RcodeSuccess, "", fleet.Rewritten},
			{"only4.example", dns.TypeA, dns.RcodeNameError, "", fleet.Blocked},
			{"only4.example", dns.TypeAAAA, dns.RcodeNameError, "", fleet.Upstream},
		} {
			reply := b.ask(t, "udp", query(c.name, c.qtype))
			var addresses []string
			for _, rr := range reply.Answer {
				if a, is := rr.(*dns.A); is {
					addresses = append(addresses, a.A.String())
				}
			}
			all := b.events.all() // the event is recorded before the answer is written
			event := all[len(all)-1]
			what := fmt.Sprintf("%s %s", c.name, dns.TypeToString[c.qtype])
			if reply.Rcode != c.rcode || strings.Join(addresses, " ") != c.answer {
				t.Errorf("%s: got %s %v, want %s %s", what, dns.RcodeToString[reply.Rcode], addresses, dns.RcodeToString[c.rcode], c.answer)
			}
			if got := event.Outcome; got != c.outcome && !(c.outcome == fleet.Upstream && got == fleet.Cached) {
				t.Errorf("%s: got outcome %s, want %s", what, got, c.outcome)
			}
			if c.outcome == fleet.Blocked && event.List != "trackers" {
				t.Errorf("%s: got list %q, want trackers", what, event.List)
			}
		}
	}
	b.Pause(0)
	if reply := b.ask(t, "udp", query("metrics.site.example", dns.TypeA)); len(reply.Answer) != 2 {
		t.Errorf("paused: got %v, want what the upstream said", reply.Answer)
	}
}
