package local_test

import (
	"strings"
	"testing"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/local"
	"dnsfleet/internal/fleet"
)

// records reads lines of "name type value".
func records(text string) []fleet.PolicyRecord {
	var all []fleet.PolicyRecord
	for line := range strings.Lines(text) {
		if fields := strings.SplitN(strings.TrimSpace(line), " ", 3); len(fields) == 3 {
			all = append(all, fleet.PolicyRecord{Name: fields[0], Type: fields[1], Value: fields[2]})
		}
	}
	return all
}

func conditional(domains ...string) []fleet.PolicyConditional {
	all := make([]fleet.PolicyConditional, 0, len(domains))
	for _, d := range domains {
		all = append(all, fleet.PolicyConditional{Domain: d})
	}
	return all
}

// wireOf is a name in wire form and lower case.
func wireOf(t testing.TB, name string) []byte {
	t.Helper()
	buf := make([]byte, 256)
	end, err := dns.PackDomainName(dns.Fqdn(strings.ToLower(name)), buf, 0, nil, false)
	if err != nil {
		t.Fatalf("pack %q: %v", name, err)
	}
	return buf[:end]
}

// describe is an answer in one line: its records, then what a client is told if there are none, then what is to be chased.
func describe(a local.Answer, found bool) string {
	if !found {
		return "not local"
	}
	var parts []string
	for _, rr := range a.Records {
		parts = append(parts, strings.Join(strings.Fields(rr.String()), " "))
	}
	switch {
	case a.NotExist:
		parts = append(parts, "NXDOMAIN of "+a.Zone)
	case a.Zone != "":
		parts = append(parts, "NODATA of "+a.Zone)
	}
	if a.Chase != "" {
		parts = append(parts, "chase "+a.Chase)
	}
	return strings.Join(parts, " | ")
}

type question struct{ text, want string }

// expect asks "name type" and checks that Covers agrees.
func expect(t *testing.T, z *local.Zone, q question) {
	t.Helper()
	name, rrtype, _ := strings.Cut(q.text, " ")
	a, found := z.Lookup(dns.Fqdn(name), dns.StringToType[rrtype])
	if got := describe(a, found); got != q.want {
		t.Errorf("%s: got %s, want %s", q.text, got, q.want)
	}
	if covers := z.Covers(wireOf(t, name)); covers != found && !(covers && rrtype == "DS") {
		t.Errorf("%s: covers is %v, found is %v", q.text, covers, found)
	}
}

func TestANameHasItsRecordsAndNothingElse(t *testing.T) {
	z, unusable := local.New(records(`
		nas.home.arpa A 192.168.1.10
		NAS.home.arpa. A 192.168.1.11
		nas.home.arpa A 192.168.1.10
		nas.home.arpa TXT hello
		a.b.c.home.arpa A 192.168.1.12
		one.example.com A 10.0.0.1
		deep.er.corp.example A 10.0.0.2
		single A 10.0.0.3
	`))
	if len(unusable) != 0 {
		t.Fatalf("unusable: got %v, want none", unusable)
	}
	for name, q := range map[string]question{
		"all records of the type, each once":                   {"nas.home.arpa A", "nas.home.arpa. 300 IN A 192.168.1.10 | nas.home.arpa. 300 IN A 192.168.1.11"},
		"a name in capitals":                                   {"NAS.Home.ARPA TXT", `nas.home.arpa. 300 IN TXT "hello"`},
		"another type is NODATA and stays here":                {"nas.home.arpa AAAA", "NODATA of nas.home.arpa."},
		"DS of a name of ours is NODATA":                       {"nas.home.arpa DS", "NODATA of nas.home.arpa."},
		"ANY gives one set of records":                         {"nas.home.arpa ANY", "nas.home.arpa. 300 IN A 192.168.1.10 | nas.home.arpa. 300 IN A 192.168.1.11"},
		"a name between others exists":                         {"b.c.home.arpa A", "NODATA of home.arpa."},
		"so does the next":                                     {"c.home.arpa AAAA", "NODATA of home.arpa."},
		"a sibling in home.arpa does not":                      {"tv.home.arpa A", "NXDOMAIN of home.arpa."},
		"nor what is below a name":                             {"x.nas.home.arpa A", "NXDOMAIN of home.arpa."},
		"a record of a public name":                            {"one.example.com A", "one.example.com. 300 IN A 10.0.0.1"},
		"its domain is still the world's":                      {"example.com A", "not local"},
		"its neighbours too":                                   {"two.example.com A", "not local"},
		"and what is below it":                                 {"x.one.example.com A", "not local"},
		"the domain of a made-up name exists here":             {"er.corp.example A", "NODATA of er.corp.example."},
		"a name of one label":                                  {"single A", "single. 300 IN A 10.0.0.3"},
		"a longer name that ends like it":                      {"notsingle A", "not local"},
		"the root is not local":                                {". NS", "not local"},
		"a label that holds a dot is no name of ours":          {`nas\.home.arpa A`, "not local"},
		"a label that ends like a name of ours is another one": {`x\004home.arpa A`, "not local"},
	} {
		t.Run(name, func(t *testing.T) { expect(t, z, q) })
	}
}

func TestAWildcardStandsForNamesThatDoNotExist(t *testing.T) {
	z, _ := local.New(records(`
		*.home.arpa A 192.168.1.1
		*.home.arpa MX 10 mail.home.arpa
		nas.home.arpa A 192.168.1.10
		host.lab.home.arpa A 192.168.1.20
		*.wild.lab.home.arpa A 192.168.1.30
		*.alias.test CNAME nas.home.arpa
		*.loop.test CNAME x.loop.test
		*.example.com A 10.0.0.1
		www.sub.example.com A 10.0.0.2
		*.apps.lan A 10.0.0.3
		own.asked.home.arpa A 10.0.0.4
	`), conditional("asked.home.arpa", "example.com", "cut.below.home.arpa")...)
	for name, q := range map[string]question{
		"the owner is the name that was asked for":       {"tv.home.arpa A", "tv.home.arpa. 300 IN A 192.168.1.1"},
		"it reaches over several labels":                 {"a.b.home.arpa A", "a.b.home.arpa. 300 IN A 192.168.1.1"},
		"another of its types":                           {"tv.home.arpa MX", "tv.home.arpa. 300 IN MX 10 mail.home.arpa."},
		"a type it lacks is NODATA":                      {"tv.home.arpa AAAA", "NODATA of home.arpa."},
		"ANY gives one set of records":                   {"tv.home.arpa ANY", "tv.home.arpa. 300 IN A 192.168.1.1"},
		"a name that exists is not covered":              {"nas.home.arpa MX", "NODATA of nas.home.arpa."},
		"nor is what is below it":                        {"x.nas.home.arpa A", "NXDOMAIN of nas.home.arpa."},
		"a name between others is not covered":           {"lab.home.arpa A", "NODATA of home.arpa."},
		"nor what is below that":                         {"x.lab.home.arpa A", "NXDOMAIN of lab.home.arpa."},
		"a nearer wildcard counts":                       {"x.wild.lab.home.arpa A", "x.wild.lab.home.arpa. 300 IN A 192.168.1.30"},
		"where it hangs exists":                          {"wild.lab.home.arpa A", "NODATA of home.arpa."},
		"its own domain is not covered":                  {"home.arpa A", "NODATA of home.arpa."},
		"nor is one of a made-up domain":                 {"apps.lan A", "NODATA of apps.lan."},
		"a record in a forwarded domain":                 {"own.asked.home.arpa A", "own.asked.home.arpa. 300 IN A 10.0.0.4"},
		"what is below that is asked for":                {"x.own.asked.home.arpa A", "not local"},
		"the asterisk is a name like others":             {"*.home.arpa A", "*.home.arpa. 300 IN A 192.168.1.1"},
		"which ends the reach of the wildcard":           {"x.*.home.arpa A", "NXDOMAIN of *.home.arpa."},
		"a wildcard alias is followed":                   {"any.alias.test A", "any.alias.test. 300 IN CNAME nas.home.arpa. | nas.home.arpa. 300 IN A 192.168.1.10"},
		"its alias itself":                               {"any.alias.test CNAME", "any.alias.test. 300 IN CNAME nas.home.arpa."},
		"an alias that covers its own target ends":       {"y.loop.test A", "y.loop.test. 300 IN CNAME x.loop.test. | x.loop.test. 300 IN CNAME x.loop.test."},
		"a forwarded domain below is not covered":        {"asked.home.arpa A", "not local"},
		"nor what is below that domain":                  {"pc.asked.home.arpa A", "not local"},
		"a name on the way to a forwarded one exists":    {"below.home.arpa A", "NODATA of home.arpa."},
		"beside a forwarded one there is nothing":        {"x.below.home.arpa A", "NXDOMAIN of below.home.arpa."},
		"a wildcard beats the forwarded domain above it": {"x.example.com A", "x.example.com. 300 IN A 10.0.0.1"},
		"the forwarded domain itself is asked for":       {"example.com A", "not local"},
		"a name between others in it is not covered":     {"sub.example.com A", "NODATA of sub.example.com."},
		"a label may hold what looks like the domain":    {`x\004home\004arpa.home.arpa A`, `x\004home\004arpa.home.arpa. 300 IN A 192.168.1.1`},
	} {
		t.Run(name, func(t *testing.T) { expect(t, z, q) })
	}
}

func TestAnAliasIsFollowed(t *testing.T) {
	z, _ := local.New(records(`
		a.lan CNAME B.lan
		a.lan CNAME other.lan
		b.lan CNAME c.lan
		c.lan A 10.0.0.1
		out.lan CNAME www.example.com
		gone.lan CNAME gone.home.arpa
		none.lan CNAME mid.lan
		x.mid.lan A 10.0.0.2
		host.lan CNAME localhost
		corp.lan CNAME pc.corp.local
		round.lan CNAME about.lan
		about.lan CNAME round.lan
		own.lan CNAME c.lan
		own.lan A 10.0.0.3
	`), conditional("corp.local")...)
	for name, q := range map[string]question{
		"over several names":                      {"a.lan A", "a.lan. 300 IN CNAME b.lan. | b.lan. 300 IN CNAME c.lan. | c.lan. 300 IN A 10.0.0.1"},
		"of two the first counts":                 {"a.lan CNAME", "a.lan. 300 IN CNAME b.lan."},
		"to a type that the end lacks":            {"b.lan AAAA", "b.lan. 300 IN CNAME c.lan. | NODATA of c.lan."},
		"to the outside":                          {"out.lan A", "out.lan. 300 IN CNAME www.example.com. | chase www.example.com."},
		"not of ANY":                              {"out.lan ANY", "out.lan. 300 IN CNAME www.example.com."},
		"to a name that cannot exist":             {"gone.lan A", "gone.lan. 300 IN CNAME gone.home.arpa. | NXDOMAIN of home.arpa."},
		"to a name between others":                {"none.lan A", "none.lan. 300 IN CNAME mid.lan. | NODATA of mid.lan."},
		"to localhost":                            {"host.lan A", "host.lan. 300 IN CNAME localhost. | localhost. 3600 IN A 127.0.0.1"},
		"into a domain that is forwarded":         {"corp.lan A", "corp.lan. 300 IN CNAME pc.corp.local. | chase pc.corp.local."},
		"round in a circle, once":                 {"round.lan A", "round.lan. 300 IN CNAME about.lan. | about.lan. 300 IN CNAME round.lan."},
		"not where there is what was asked for":   {"own.lan A", "own.lan. 300 IN A 10.0.0.3"},
		"where there is not what was asked for":   {"own.lan AAAA", "own.lan. 300 IN CNAME c.lan. | NODATA of c.lan."},
		"though not from the target to the alias": {"c.lan CNAME", "NODATA of c.lan."},
	} {
		t.Run(name, func(t *testing.T) { expect(t, z, q) })
	}
}

func TestAChainOfAliasesIsBounded(t *testing.T) {
	var chain []fleet.PolicyRecord
	for c := 'a'; c < 'z'; c++ {
		chain = append(chain, fleet.PolicyRecord{Name: string(c) + ".lan", Type: "CNAME", Value: string(c+1) + ".lan"})
	}
	z, _ := local.New(chain)
	if a, found := z.Lookup("a.lan.", dns.TypeA); !found || len(a.Records) != 8 {
		t.Errorf("got %d records, want 8", len(a.Records))
	}
}

func TestAnAddressOfAPrivateNetworkGetsAName(t *testing.T) {
	z, _ := local.New(records(`
		nas.home.arpa A 192.168.1.10
		disk.home.arpa A 192.168.1.10
		nas.home.arpa AAAA fd00::a
		named.home.arpa A 192.168.1.11
		11.1.168.192.in-addr.arpa PTR other.home.arpa
		www.example.com A 93.184.216.34
		*.apps.home.arpa A 192.168.1.12
		blocked.example.com A 0.0.0.0
		me.home.arpa A 127.0.0.1
		desk.corp.example A 10.1.0.1
		cgnat.home.arpa A 100.64.0.1
		wild.home.arpa A 172.16.0.1
		*.16.172.in-addr.arpa PTR any.home.arpa
	`), conditional("1.10.in-addr.arpa")...)
	for name, q := range map[string]question{
		"the first that was given":                  {"10.1.168.192.in-addr.arpa PTR", "10.1.168.192.in-addr.arpa. 300 IN PTR nas.home.arpa."},
		"of IPv6 too":                               {"a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa PTR", "a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. 300 IN PTR nas.home.arpa."},
		"unless it has one":                         {"11.1.168.192.in-addr.arpa PTR", "11.1.168.192.in-addr.arpa. 300 IN PTR other.home.arpa."},
		"the names between exist":                   {"1.168.192.in-addr.arpa PTR", "NODATA of 168.192.in-addr.arpa."},
		"not a public address":                      {"34.216.184.93.in-addr.arpa PTR", "not local"},
		"not that of a wildcard":                    {"12.1.168.192.in-addr.arpa PTR", "NXDOMAIN of 168.192.in-addr.arpa."},
		"not that of a name that is blocked":        {"0.0.0.0.in-addr.arpa PTR", "NXDOMAIN of 0.in-addr.arpa."},
		"not the loopback, which has one":           {"1.0.0.127.in-addr.arpa PTR", "1.0.0.127.in-addr.arpa. 3600 IN PTR localhost."},
		"not where the reverse zone is forwarded":   {"1.0.1.10.in-addr.arpa PTR", "not local"},
		"a provider's shared address":               {"1.0.64.100.in-addr.arpa PTR", "1.0.64.100.in-addr.arpa. 300 IN PTR cgnat.home.arpa."},
		"not where a wildcard has one":              {"1.0.16.172.in-addr.arpa PTR", "1.0.16.172.in-addr.arpa. 300 IN PTR any.home.arpa."},
		"an address without a record has none":      {"99.1.168.192.in-addr.arpa PTR", "NXDOMAIN of 168.192.in-addr.arpa."},
		"of type A there is nothing at the pointer": {"10.1.168.192.in-addr.arpa A", "NODATA of 10.1.168.192.in-addr.arpa."},
	} {
		t.Run(name, func(t *testing.T) { expect(t, z, q) })
	}
}

func TestRecordsOfOneTypeHaveOneTTL(t *testing.T) {
	z, _ := local.New([]fleet.PolicyRecord{
		{Name: "x.lan", Type: "A", Value: "10.0.0.1", TTL: 3600e9},
		{Name: "x.lan", Type: "A", Value: "10.0.0.2", TTL: 60e9},
		{Name: "x.lan", Type: "TXT", Value: "a", TTL: 5e9},
		{Name: "x.lan", Type: "A", Value: "10.0.0.3", TTL: 7200e9},
	})
	expect(t, z, question{"x.lan A", "x.lan. 60 IN A 10.0.0.1 | x.lan. 60 IN A 10.0.0.2 | x.lan. 60 IN A 10.0.0.3"})
	expect(t, z, question{"x.lan TXT", `x.lan. 5 IN TXT "a"`})
}

func TestAnswersDoNotChangeTheZone(t *testing.T) {
	z, _ := local.New(records("*.lan A 10.0.0.1"))
	for _, name := range []string{"a.lan", "b.lan", "a.lan"} {
		expect(t, z, question{name + " A", name + ". 300 IN A 10.0.0.1"})
	}
}

func TestANYForOtherNamesSaysThatThereIsNoMore(t *testing.T) {
	rr := local.MinimalANY("www.example.")
	if got, want := strings.Join(strings.Fields(rr.String()), " "), `www.example. 3600 IN HINFO "RFC8482" ""`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := (&dns.Msg{Answer: []dns.RR{rr}}).Pack(); err != nil {
		t.Errorf("pack: %v", err)
	}
}
