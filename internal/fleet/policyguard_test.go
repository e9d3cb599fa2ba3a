package fleet_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dnsfleet/internal/fleet"
)

func TestWhatALimitLeavesOutHasADefault(t *testing.T) {
	slip := func(n int) *int { return &n }
	for name, c := range map[string]struct {
		text string
		want fleet.PolicyRateLimit
	}{
		"nothing is said": {
			"", fleet.PolicyRateLimit{QueriesPerSecond: 0, Burst: 0, Slip: slip(2), IPv4Prefix: 32, IPv6Prefix: 64},
		},
		"only how many": {
			"rate_limit: {queries_per_second: 20}",
			fleet.PolicyRateLimit{QueriesPerSecond: 20, Burst: 20, Slip: slip(2), IPv4Prefix: 32, IPv6Prefix: 64},
		},
		"everything": {
			"rate_limit: {queries_per_second: 20, burst: 100, slip: 1, ipv4_prefix: 24, ipv6_prefix: 56}",
			fleet.PolicyRateLimit{QueriesPerSecond: 20, Burst: 100, Slip: slip(1), IPv4Prefix: 24, IPv6Prefix: 56},
		},
		"a slip of none is none": {
			"rate_limit: {queries_per_second: 20, slip: 0}",
			fleet.PolicyRateLimit{QueriesPerSecond: 20, Burst: 20, Slip: slip(0), IPv4Prefix: 32, IPv6Prefix: 64},
		},
		"as JSON": {
			`{"rate_limit": {"queries_per_second": 20, "slip": 10}}`,
			fleet.PolicyRateLimit{QueriesPerSecond: 20, Burst: 20, Slip: slip(10), IPv4Prefix: 32, IPv6Prefix: 64},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := fleet.ParsePolicy([]byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			// Equal would fill in what is left out.
			type plain fleet.PolicyRateLimit
			if diff := cmp.Diff(plain(c.want), plain(p.RateLimit.WithDefaults())); diff != "" {
				t.Errorf("got other defaults than wanted:\n%s", diff)
			}
		})
	}
}

func TestALimitOfAnotherReleaseIsBroughtIntoItsBounds(t *testing.T) {
	body := `{"revision":1,"hash":"a","policy":{"rate_limit":{"queries_per_second":2000000,"burst":-1,"slip":99,"ipv4_prefix":64,"ipv6_prefix":-3,"per":"hour"}}}`
	doc, unapplied, err := fleet.DecodePolicyDoc([]byte(body))
	if err != nil || !cmp.Equal(unapplied, []string{"rate_limit.per"}) {
		t.Fatalf("got %v, %v, want only rate_limit.per not applied", unapplied, err)
	}
	got := doc.Policy.RateLimit.WithDefaults()
	if got.QueriesPerSecond != 1_000_000 || got.Burst != 1_000_000 || *got.Slip != 10 || got.IPv4Prefix != 32 || got.IPv6Prefix != 64 {
		t.Errorf("got %+v with slip %d, want everything in its bounds", got, *got.Slip)
	}
}

func TestLimitsThatMeanTheSameAreEqual(t *testing.T) {
	two, two2, none := 2, 2, 0
	for name, c := range map[string]struct {
		a, b fleet.PolicyRateLimit
		want bool
	}{
		"one that says its defaults": {
			fleet.PolicyRateLimit{QueriesPerSecond: 5}, fleet.PolicyRateLimit{QueriesPerSecond: 5, Burst: 5, Slip: &two, IPv4Prefix: 32}, true,
		},
		"slips of one value":       {fleet.PolicyRateLimit{Slip: &two}, fleet.PolicyRateLimit{Slip: &two2}, true},
		"a slip of none is not":    {fleet.PolicyRateLimit{QueriesPerSecond: 5}, fleet.PolicyRateLimit{QueriesPerSecond: 5, Slip: &none}, false},
		"nor is another prefix":    {fleet.PolicyRateLimit{QueriesPerSecond: 5}, fleet.PolicyRateLimit{QueriesPerSecond: 5, IPv4Prefix: 24}, false},
		"nor another rate":         {fleet.PolicyRateLimit{QueriesPerSecond: 5}, fleet.PolicyRateLimit{QueriesPerSecond: 6, Burst: 5}, false},
		"nor is one from no limit": {fleet.PolicyRateLimit{}, fleet.PolicyRateLimit{QueriesPerSecond: 1}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.a.Equal(c.b); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestRebindingIsProtectedAgainstUnlessThePolicySaysOtherwise(t *testing.T) {
	for text, want := range map[string]bool{
		"":                                    true,
		"rebinding: {}":                       true,
		"rebinding: {allow: [plex.direct]}":   true,
		"rebinding: {protect: true}":          true,
		"rebinding: {protect: false}":         false,
		`{"rebinding": {"protect": false}}`:   false,
		`{"rebinding": null}`:                 true,
		"rebinding: {protect: null}":          true,
		"rate_limit: {queries_per_second: 5}": true,
	} {
		p, err := fleet.ParsePolicy([]byte(text))
		if err != nil || p.Rebinding.Protects() != want {
			t.Errorf("%q: got %v, %v, want %v", text, p.Rebinding.Protects(), err, want)
		}
	}
}

func TestGuardsAreReadStrictlyWhereTheyAreEdited(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"an unknown key of a limit":        {"rate_limit: {qps: 5}", "unknown key rate_limit.qps"},
		"an unknown key of the protection": {"rebinding: {deny: []}", "unknown key rebinding.deny"},
		"a rate below none":                {"rate_limit: {queries_per_second: -1}", "rate_limit.queries_per_second: must be from 0 to 1000000"},
		"a rate above a million":           {"rate_limit: {queries_per_second: 1000001}", "rate_limit.queries_per_second"},
		"a rate that is a text":            {"rate_limit: {queries_per_second: fast}", "rate_limit"},
		"half a query":                     {"rate_limit: {queries_per_second: 0.5}", "rate_limit"},
		"a burst below none":               {"rate_limit: {burst: -1}", "rate_limit.burst"},
		"a slip above ten":                 {"rate_limit: {slip: 11}", "rate_limit.slip: must be from 0 to 10"},
		"a slip below none":                {"rate_limit: {slip: -1}", "rate_limit.slip"},
		"an IPv4 prefix of 33 bits":        {"rate_limit: {ipv4_prefix: 33}", "rate_limit.ipv4_prefix"},
		"an IPv6 prefix of 129 bits":       {"rate_limit: {ipv6_prefix: 129}", "rate_limit.ipv6_prefix"},
		"an IPv6 prefix below none":        {"rate_limit: {ipv6_prefix: -1}", "rate_limit.ipv6_prefix"},
		"a limit that is a number":         {"rate_limit: 5", "rate_limit"},
		"a protection that is a word":      {"rebinding: {protect: maybe}", "rebinding"},
		"an address instead of a domain":   {"rebinding: {allow: [lan, '192.168.0.0/16']}", "rebinding.allow[1]"},
		"a wildcard instead of a domain":   {"rebinding: {allow: ['*.plex.direct']}", "rebinding.allow[0]"},
		"a domain that is empty":           {"rebinding: {allow: ['']}", "rebinding.allow[0]: is required"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := fleet.ParsePolicy([]byte(c.text))
			if !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want ErrInvalid that names %q", err, c.want)
			}
		})
	}
}

func TestAPolicyWithoutGuardsSaysNothingOfThem(t *testing.T) {
	p := fleet.Policy{UpstreamStrategy: "failover", BlockMode: fleet.BlockMode{Mode: "nxdomain"}}
	text, err := json.Marshal(p)
	if err != nil || strings.Contains(string(text), "rate_limit") || strings.Contains(string(text), "rebinding") {
		t.Errorf("got %s, %v, want no key that an older release would report", text, err)
	}
	// What a release that knew neither made of it.
	if got, want := p.Hash(), "da52aed09058c7078a9c6282a7703ede"; got != want {
		t.Errorf("hash: got %s, want %s as it always was", got, want)
	}
	hashes := map[string]string{p.Hash(): "no guards"}
	for _, text := range []string{
		"rate_limit: {queries_per_second: 5}", "rate_limit: {queries_per_second: 5, slip: 0}", "rebinding: {protect: false}",
		"rebinding: {protect: true}", "rebinding: {allow: [plex.direct]}",
	} {
		with, err := fleet.ParsePolicy([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		q := p
		q.RateLimit, q.Rebinding = with.RateLimit, with.Rebinding
		if other := hashes[q.Hash()]; other != "" {
			t.Errorf("%s: got the hash of %s", text, other)
		}
		hashes[q.Hash()] = text
	}
	p.Rebinding.Allow = []string{}
	if hashes[p.Hash()] != "no guards" {
		t.Error("an empty list of domains: got another hash than none")
	}
}
