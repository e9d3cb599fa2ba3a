package dns_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	engine "dnsfleet/internal/dns"
	"dnsfleet/internal/fleet"
)

func (b *bench) apply(t testing.TB, p fleet.Policy, revision int64) []string {
	t.Helper()
	unapplied, err := b.Apply(t.Context(), fleet.NewPolicyDoc(p, revision, time.Now()))
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	return unapplied
}

func TestWhatAPolicyNoLongerSaysIsGone(t *testing.T) {
	up := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		reply := new(dns.Msg).SetReply(q)
		reply.Answer = []dns.RR{mustRR(q.Question[0].Name + " 300 IN A 192.0.2.1")}
		_ = w.WriteMsg(reply)
	})
	_, list := writeList(t, "ads.test\n")
	p := policyOf(up.url())
	p.Lists = []fleet.PolicyList{{Name: "mine", URL: list}}
	p.Deny, p.Allow = []string{"denied.test", "both.test"}, []string{"both.test"}
	p.Records = []fleet.PolicyRecord{{Name: "own.test", Type: "A", Value: "10.0.0.1"}}
	b := start(t, p, nil)
	if err := b.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	check := func(when string, want map[string]fleet.Outcome) {
		t.Helper()
		for name, outcome := range want {
			b.ask(t, "udp", query(name, dns.TypeA))
			events := b.events.all()
			if got := events[len(events)-1].Outcome; got != outcome {
				t.Errorf("%s: %s: got %s, want %s", when, name, got, outcome)
			}
		}
	}
	check("before", map[string]fleet.Outcome{
		"ads.test": fleet.Blocked, "denied.test": fleet.Blocked, "both.test": fleet.Upstream, "own.test": fleet.Local,
	})
	if got := b.Blocklist(); got.Blocked != 1 || got.Allow != 1 || got.Deny != 2 || len(got.Lists) != 1 || got.Lists[0].Entries != 1 {
		t.Errorf("blocklist: got %+v, want 1 blocked, 1 allow, 2 deny", got)
	}
	if unapplied := b.apply(t, policyOf(up.url()), 2); len(unapplied) != 0 {
		t.Errorf("unapplied: got %v, want none", unapplied)
	}
	check("after", map[string]fleet.Outcome{
		"ads.test": fleet.Upstream, "denied.test": fleet.Upstream, "own.test": fleet.Upstream,
	})
	if got := b.Blocklist(); got.Blocked != 0 || got.Allow != 0 || got.Deny != 0 || len(got.Lists) != 0 || got.Lists == nil {
		t.Errorf("blocklist: got %+v, want nothing, and lists [] not null", got)
	}
	revision, hash := b.PolicyHash()
	policy := policyOf(up.url())
	if revision != 2 || hash != policy.Hash() {
		t.Errorf("policy: got %d %s, want 2 and its hash", revision, hash)
	}
}

func TestBlockModes(t *testing.T) {
	for _, c := range []struct {
		name  string
		mode  fleet.BlockMode
		qtype uint16
		want  string
		soa   bool
	}{
		{"nxdomain says that there is no such name", fleet.BlockMode{Mode: "nxdomain"}, dns.TypeA, "NXDOMAIN [] ede=15", true},
		{"zero gives 0.0.0.0", fleet.BlockMode{Mode: "zero"}, dns.TypeA, "NOERROR [ads.test. 30 IN A 0.0.0.0] ede=15", false},
		{"zero gives ::", fleet.BlockMode{Mode: "zero"}, dns.TypeAAAA, "NOERROR [ads.test. 30 IN AAAA ::] ede=15", false},
		{"zero is NODATA for other types", fleet.BlockMode{Mode: "zero"}, dns.TypeHTTPS, "NOERROR [] ede=15", true},
		{"refused refuses", fleet.BlockMode{Mode: "refused"}, dns.TypeA, "REFUSED [] ede=15", false},
		{"own addresses are given", fleet.BlockMode{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.80")}}, dns.TypeA, "NOERROR [ads.test. 30 IN A 192.0.2.80] ede=15", false},
		{"own addresses of the other family are NODATA", fleet.BlockMode{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.80")}}, dns.TypeAAAA, "NOERROR [] ede=15", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := policyOf()
			p.Deny, p.BlockMode = []string{"ads.test"}, c.mode
			b := start(t, p, nil)
			reply := b.ask(t, "udp", queryEDNS("ads.test", c.qtype, 1232, false))
			if got := describe(reply); got != c.want || !reply.RecursionAvailable || (len(reply.Ns) == 1) != c.soa {
				t.Errorf("got %s, RA %v, authority %v; want %s, RA, SOA %v", got, reply.RecursionAvailable, reply.Ns, c.want, c.soa)
			}
			if got := b.events.outcomes()[fleet.Blocked]; got != 1 {
				t.Errorf("blocked: got %d, want 1", got)
			}
		})
	}
}

func TestPauseEndsByItselfAndResumeEndsIt(t *testing.T) {
	up := serveUpstream(t, zoneHandler(t, "ads.test. 300 IN A 192.0.2.1"))
	p := policyOf(up.url())
	p.Deny = []string{"ads.test"}
	b := start(t, p, nil)
	blocked := func() bool { return len(b.ask(t, "udp", query("ads.test", dns.TypeA)).Answer) == 0 }
	b.Pause(time.Minute)
	if blocked() || b.Check("ads.test").Blocked || b.Check("ads.test").Reason != "paused" || !b.Blocklist().Paused {
		t.Errorf("paused: got %+v, want not blocked", b.Check("ads.test"))
	}
	b.clock.advance(61 * time.Second)
	if !blocked() || !b.Check("ads.test").Blocked || b.Blocklist().Paused {
		t.Error("after the pause: want blocked")
	}
	b.Pause(0)
	b.clock.advance(1000 * time.Hour)
	if until, paused := b.PausedUntil(); blocked() || !paused || !until.IsZero() {
		t.Errorf("paused without end: got until %v paused %v, want not blocked", until, paused)
	}
	b.Resume()
	if !blocked() {
		t.Error("resumed: want blocked")
	}
}

func TestWhatThisReleaseCannotDoIsReportedAndTheRestApplies(t *testing.T) {
	up := serveUpstream(t, zoneHandler(t, "www.test. 300 IN A 192.0.2.1"))
	b := startWithout(t, nil)
	p := policyOf("quic://dns.example", up.url(), "udp://"+b.addr, "udp://host:99999")
	p.UpstreamStrategy = "luck"
	p.Deny, p.Allow = []string{"/(/", "ads.test"}, []string{"not a name"}
	p.Records = []fleet.PolicyRecord{{Name: "a.test", Type: "A", Value: "::1"}, {Name: "own.test", Type: "A", Value: "10.0.0.1"}}
	got := b.apply(t, p, 1)
	want := []string{"allow[0]", "deny[0]", "records[0]", "upstream_strategy", "upstreams[0]", "upstreams[2]", "upstreams[3]"}
	if !slices.Equal(got, want) {
		t.Errorf("unapplied: got %v, want %v", got, want)
	}
	for name, want := range map[string]string{
		"www.test": "NOERROR [www.test. 300 IN A 192.0.2.1] ede=-1", "ads.test": "NXDOMAIN [] ede=-1", "own.test": "NOERROR [own.test. 300 IN A 10.0.0.1] ede=-1",
	} {
		if got := describe(b.ask(t, "udp", query(name, dns.TypeA))); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

func TestCheckPolicyNamesTheFirstThingThatCannotWork(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*fleet.Policy)
		want   string // "" = nothing is wrong
	}{
		{"the default policy is fine", func(*fleet.Policy) {}, ""},
		{"kinds of upstream that come later are fine", func(p *fleet.Policy) {
			p.Upstreams = []fleet.PolicyUpstream{{Address: "https://dns.quad9.net/dns-query", Bootstrap: []string{"9.9.9.9"}}, {Address: "quic://9.9.9.9"}}
		}, ""},
		{"an upstream with an unknown scheme", func(p *fleet.Policy) { p.Upstreams[1].Address = "gopher://x" }, "upstreams[1]"},
		{"an upstream with a bad bootstrap", func(p *fleet.Policy) { p.Upstreams[0].Bootstrap = []string{"dns.example"} }, "upstreams[0]"},
		{"an expression that does not compile", func(p *fleet.Policy) { p.Deny = []string{"ok.example", "/(/"} }, "deny[1]"},
		{"an allow pattern with a space", func(p *fleet.Policy) { p.Allow = []string{"a b"} }, "allow[0]"},
		{"a file URL of another host", func(p *fleet.Policy) { p.Lists[0].URL = "file://host/path" }, "lists[0]"},
		{"an A record with a name", func(p *fleet.Policy) {
			p.Records = []fleet.PolicyRecord{{Name: "a.test", Type: "A", Value: "b.test"}}
		}, "records[0]"},
		{"a record type that is not served", func(p *fleet.Policy) {
			p.Records = []fleet.PolicyRecord{{Name: "a.test", Type: "NS", Value: "b.test"}}
		}, "records[0]"},
		{"a record whose wildcard is not its first label", func(p *fleet.Policy) {
			p.Records = []fleet.PolicyRecord{{Name: "a.*.test", Type: "A", Value: "10.0.0.1"}}
		}, "records[0]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := fleet.DefaultPolicy()
			c.change(&p)
			err := engine.CheckPolicy(p)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("got %v, want nil", err)
			case c.want != "" && (!errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), "policy: "+c.want+": ")):
				t.Errorf("got %v, want fleet.ErrInvalid naming %s", err, c.want)
			}
		})
	}
}

func TestAListOutlivesItsSourceAndARestart(t *testing.T) {
	path, list := writeList(t, "ads.test\n")
	var gone atomic.Bool
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if gone.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "0.0.0.0 web-ads.test")
	}))
	defer web.Close()
	dir := t.TempDir()
	in := func(o *engine.Options) { o.DataDir = dir }
	p := policyOf()
	p.Lists = []fleet.PolicyList{{Name: "mine", URL: list}, {Name: "web", URL: web.URL}}
	first := start(t, p, in)
	eventually(t, "both lists are loaded by themselves", func() bool { return first.Ready() == nil && first.Blocklist().Blocked == 2 })

	gone.Store(true)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := first.Reload(t.Context()); err == nil {
		t.Error("reload with both sources gone: got nil, want an error")
	}
	stillBlocked := func(when string, b *bench) {
		t.Helper()
		for _, name := range []string{"ads.test", "web-ads.test"} {
			if reply := b.ask(t, "udp", query(name, dns.TypeA)); reply.Rcode != dns.RcodeNameError || b.events.outcomes()[fleet.Blocked] == 0 {
				t.Errorf("%s: %s: got %s, want blocked", when, name, describe(reply))
			}
		}
	}
	stillBlocked("source gone", first)
	for _, l := range first.Blocklist().Lists {
		if l.Error == "" || l.Entries != 1 || l.UpdatedAt.IsZero() {
			t.Errorf("list %s: got %+v, want its entry and why the last fetch failed", l.Name, l)
		}
	}
	first.stop()

	second := start(t, p, in) // Apply has returned: no fetch can have ended well
	stillBlocked("after a restart", second)
	if err := second.Ready(); err != nil {
		t.Errorf("ready after a restart: got %v, want nil", err)
	}
}

func TestReadyComesWhenAListHasFailedOnce(t *testing.T) {
	p := policyOf()
	p.Lists = []fleet.PolicyList{{Name: "broken", URL: "file:///nonexistent/list.txt"}}
	b := start(t, p, nil)
	eventually(t, "ready in spite of the broken list", func() bool { return b.Ready() == nil })
	if got := b.Blocklist().Lists[0].Error; got == "" {
		t.Error("the list's error: got none, want why")
	}
}

func TestAChangedFileIsNoticedOnReload(t *testing.T) {
	path, list := writeList(t, "ads.test\n")
	p := policyOf()
	p.Lists = []fleet.PolicyList{{Name: "mine", URL: list}}
	b := start(t, p, nil)
	if err := b.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("other.test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b.Check("ads.test").Blocked || !b.Check("other.test").Blocked {
		t.Errorf("got ads %+v other %+v, want only other blocked", b.Check("ads.test"), b.Check("other.test"))
	}
}

func TestOtherUpstreamsStartWithAnEmptyCache(t *testing.T) {
	one := serveUpstream(t, zoneHandler(t, "www.test. 300 IN A 192.0.2.1"))
	two := serveUpstream(t, zoneHandler(t, "www.test. 300 IN A 192.0.2.2"))
	b := start(t, policyOf(one.url()), nil)
	b.ask(t, "udp", query("www.test", dns.TypeA))
	b.apply(t, policyOf(two.url()), 2)
	if got := answers(b.ask(t, "udp", query("www.test", dns.TypeA))); got != "www.test. 300 IN A 192.0.2.2" {
		t.Errorf("got %s, want the new upstream's answer", got)
	}
	if got := b.ClearCache(); got != 1 {
		t.Errorf("clear cache: got %d, want 1", got)
	}
}

func TestTheAnswersOfTheControlAPIHaveTheirKeys(t *testing.T) {
	p := policyOf("udp://127.0.0.1:1")
	p.Deny = []string{"ads.test"}
	b := start(t, p, nil)
	for _, c := range []struct {
		name  string
		value any
		want  string
	}{
		{"check", b.Check("x.ads.test"), `{"domain":"x.ads.test","blocked":true,"rule":"ads.test","list":"","reason":"deny"}`},
		{"upstreams", b.Upstreams(), `[{"address":"udp://127.0.0.1:1","healthy":true,"failures":0}]`},
		{"blocklist", b.Blocklist(), `{"blocked":0,"allow":0,"deny":1,"paused":false,"lists":[]}`},
	} {
		if got, err := json.Marshal(c.value); err != nil || string(got) != c.want {
			t.Errorf("%s: got %s %v, want %s", c.name, got, err, c.want)
		}
	}
}
