package fleet_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dnsfleet/internal/fleet"
)

const fullPolicy = `
upstreams: [{address: "udp://9.9.9.9:53"}, {address: "https://dns.quad9.net/dns-query", bootstrap: ["9.9.9.9"]}]
upstream_strategy: fastest
lists: [{name: ads, url: "https://lists.example/hosts.txt", refresh: 24h}, {name: mine, url: "file:///etc/dnsfleet/mine.txt"}]
allow: ["good.example"]
deny: ["ads.example"]
block_mode: {address: [192.0.2.80]}
cache: {max_bytes: 64MiB, min_ttl: 0s, max_ttl: 24h, serve_stale: 1d}
records: [{name: nas.home.arpa, type: A, value: 192.168.1.10}]
conditional:
- {domain: corp.example, upstreams: [{address: "tls://dns.corp.example", bootstrap: ["10.0.0.53"]}, {address: "10.0.0.54"}]}
- {domain: 1.168.192.in-addr.arpa, upstreams: [{address: 192.168.1.1}]}
rate_limit: {queries_per_second: 50, burst: 200, slip: 0, ipv4_prefix: 24, ipv6_prefix: 56}
rebinding: {protect: false, allow: ["plex.direct"]}
`

func TestAPolicySurvivesJSON(t *testing.T) {
	p, err := fleet.ParsePolicy([]byte(fullPolicy))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := time.Duration(p.Cache.ServeStale), 24*time.Hour; got != want {
		t.Errorf("serve_stale: got %v, want %v", got, want)
	}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	back, err := fleet.ParsePolicy(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, back, cmp.Comparer(func(a, b fleet.BlockMode) bool {
		return a.Mode == b.Mode && len(a.Addresses) == len(b.Addresses) && a.Addresses[0] == b.Addresses[0]
	})); diff != "" {
		t.Errorf("policy changed on its way through JSON:\n%s", diff)
	}
	if p.Hash() != back.Hash() {
		t.Errorf("hash: got %s, want %s", back.Hash(), p.Hash())
	}
}

func TestAPolicyIsReadStrictlyWhereItIsEdited(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"an unknown key":                                {"blocklists: []", "unknown key blocklists"},
		"an unknown key deep inside":                    {"lists: [{name: a, url: 'file:///a'}, {name: b, url: 'file:///b', colour: red}]", "lists[1].colour"},
		"a wrong type":                                  {"allow: 5", "allow"},
		"a strategy that does not exist":                {"upstream_strategy: luck", "upstream_strategy"},
		"a block mode that does not":                    {"block_mode: laugh", "block_mode"},
		"a negative duration":                           {"cache: {max_ttl: -5s}", "cache"},
		"a size that overflows":                         {"cache: {max_bytes: 99999999999GiB}", "cache"},
		"two lists of one name":                         {"lists: [{name: a, url: 'file:///a'}, {name: a, url: 'file:///b'}]", "lists[1].name"},
		"a list that is no URL":                         {"lists: [{name: a, url: 'ftp://x/y'}]", "lists[0].url"},
		"a key nobody knows in an upstream of a domain": {"conditional: [{domain: a, upstreams: [{address: '1.1.1.1', port: 5}]}]", "conditional[0].upstreams[0].port"},
		"a domain without upstreams":                    {"conditional: [{domain: corp.example}]", "conditional[0].upstreams"},
		"an upstream of a domain without address":       {"conditional: [{domain: corp.example, upstreams: [{address: ' '}]}]", "conditional[0].upstreams[0].address"},
		"upstreams without a domain":                    {"conditional: [{upstreams: [{address: '1.1.1.1'}]}]", "conditional[0].domain"},
		"the root as a domain":                          {"conditional: [{domain: '.', upstreams: [{address: '1.1.1.1'}]}]", "conditional[0].domain"},
		"a network instead of its reverse zone":         {"conditional: [{domain: '192.168.1.0/24', upstreams: [{address: '1.1.1.1'}]}]", "conditional[0].domain"},
		"a domain with an empty label":                  {"conditional: [{domain: a..b, upstreams: [{address: '1.1.1.1'}]}]", "conditional[0].domain"},
		"one domain twice, written differently":         {"conditional: [{domain: a.b, upstreams: [{address: '1.1.1.1'}]}, {domain: A.b., upstreams: [{address: '1.1.1.2'}]}]", "conditional[1].domain"},
		"broken YAML":                                   {"allow: [", "policy"},
		"two documents":                                 {"allow: []\n---\nallow: []", "more than one document"},
		"a list instead of a map":                       {"- a", "policy"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := fleet.ParsePolicy([]byte(c.text))
			if !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want ErrInvalid that names %q", err, c.want)
			}
		})
	}
}

func TestAPolicyWithoutConditionalForwardingSaysNothingOfIt(t *testing.T) {
	p := fleet.DefaultPolicy()
	text, err := json.Marshal(p)
	if err != nil || strings.Contains(string(text), "conditional") {
		t.Errorf("got %s, %v, want no key that an older release would report", text, err)
	}
	with := p
	with.Conditional = []fleet.PolicyConditional{}
	if p.Hash() != with.Hash() {
		t.Error("none and an empty list: got different hashes")
	}
	with.Conditional = []fleet.PolicyConditional{{Domain: "Corp.Example.", Upstreams: []fleet.PolicyUpstream{{Address: "10.0.0.1"}}}}
	if p.Hash() == with.Hash() {
		t.Error("a policy with conditional forwarding: got the hash of one without")
	}
	if got := with.Conditional[0].Suffix(); got != "corp.example" {
		t.Errorf("suffix: got %q, want corp.example", got)
	}
}

func TestAnEmptyPolicyHasDefaultsButNobodysListsOrUpstreams(t *testing.T) {
	p, err := fleet.ParsePolicy(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Lists) != 0 || len(p.Upstreams) != 0 || p.Cache != fleet.DefaultCachePolicy() || p.BlockMode.Mode != "nxdomain" {
		t.Errorf("got %+v, want no lists, no upstreams, the default cache and nxdomain", p)
	}
}

func TestANewerPolicyIsAppliedAsFarAsItIsKnown(t *testing.T) {
	body := `{"revision":7,"hash":"abc","updated_at":"2026-01-02T03:04:05Z","new_at_top":1,"policy":{
		"deny":["ads.example"],"groups":[{"name":"kids"}],"block_mode":"teleport",
		"lists":[{"name":"a","url":"file:///a","refresh":"1h","sha256":"x"}]}}`
	doc, unapplied, err := fleet.DecodePolicyDoc([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"block_mode", "groups", "lists[0].sha256"}; !cmp.Equal(unapplied, want) {
		t.Errorf("unapplied: got %q, want %q", unapplied, want)
	}
	if doc.Revision != 7 || doc.Hash != "abc" || len(doc.Policy.Lists) != 1 || doc.Policy.Deny[0] != "ads.example" || doc.Policy.BlockMode.Mode != "nxdomain" {
		t.Errorf("got %+v, want what is known applied and the rest left at its default", doc)
	}
	for _, broken := range []string{``, `{}`, `{"policy":{}}`, `{"hash":"a"}`, `[]`} {
		if _, _, err := fleet.DecodePolicyDoc([]byte(broken)); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%q: got %v, want ErrInvalid", broken, err)
		}
	}
}

// FuzzParsePolicy: what is accepted is valid, and survives JSON with the same hash.
func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte(fullPolicy))
	f.Add([]byte(`{"allow":["a"],"block_mode":"zero"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := fleet.ParsePolicy(text)
		if err != nil {
			return
		}
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		back, err := fleet.ParsePolicy(again)
		if err != nil || back.Hash() != p.Hash() {
			t.Errorf("%s came back as %v, %v", again, back, err)
		}
	})
}
