package wire_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/upstream"
	"dnsfleet/internal/dns/upstream/upstreamtest"
	"dnsfleet/internal/dns/upstream/wire"
)

func name(t testing.TB, text string) []byte {
	t.Helper()
	buf := make([]byte, 256)
	end, err := dns.PackDomainName(text, buf, 0, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:end]
}

func query(t testing.TB, text string, qtype uint16) []byte {
	t.Helper()
	q := wire.AppendQuery(nil, name(t, text), qtype, dns.ClassINET, false, false)
	wire.SetID(q, 0x1234)
	return q
}

func TestAQueryMadeInPlaceIsTheOneThatIsPacked(t *testing.T) {
	for _, c := range []struct{ do, cd bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
		want, err := upstream.NewQuery(dns.Question{Name: "www.Example.", Qtype: dns.TypeHTTPS, Qclass: dns.ClassINET}, c.do, c.cd).Pack()
		if err != nil {
			t.Fatal(err)
		}
		got := wire.AppendQuery(nil, name(t, "www.Example."), dns.TypeHTTPS, dns.ClassINET, c.do, c.cd)
		want[0], want[1] = 0, 0
		if !bytes.Equal(got, want) {
			t.Errorf("do %v, cd %v: got % x, want % x", c.do, c.cd, got, want)
		}
	}
}

func TestWhatIsNoQueryIsNotForwarded(t *testing.T) {
	good := query(t, "www.example.", dns.TypeA)
	change := func(f func(q []byte) []byte) []byte { return f(slices.Clone(good)) }
	for what, c := range map[string]struct {
		query []byte
		want  bool
	}{
		"a query":                    {good, true},
		"a query without EDNS":       {wire.WithoutOPT(good), true},
		"a query for the root":       {query(t, ".", dns.TypeNS), true},
		"nothing":                    {nil, false},
		"a header":                   {good[:12], false},
		"a response":                 {change(func(q []byte) []byte { q[2] |= 0x80; return q }), false},
		"another opcode":             {change(func(q []byte) []byte { q[2] |= 0x28; return q }), false},
		"two questions":              {change(func(q []byte) []byte { q[5] = 2; return q }), false},
		"an answer in it":            {change(func(q []byte) []byte { q[7] = 1; return q }), false},
		"two additional records":     {change(func(q []byte) []byte { q[11] = 2; return q }), false},
		"a compressed name":          {change(func(q []byte) []byte { q[12] = 0xC0; return q }), false},
		"a name without an end":      {good[:20], false},
		"a question without a class": {good[:len(good)-12], false},
		"a name of 256 bytes":        {append(append(slices.Clone(good[:12]), bytes.Repeat(append([]byte{63}, make([]byte, 63)...), 4)...), 0, 0, 1, 0, 1), false},
	} {
		if _, got := wire.QuestionEnd(c.query); got != c.want {
			t.Errorf("%s: got %v, want %v", what, got, c.want)
		}
	}
}

func TestSuffixesAreInLowerCaseAndTheLongestComesFirst(t *testing.T) {
	var got []string
	wire.AppendSuffixes(nil, query(t, "A.bC.Example.", dns.TypeA), func(suffix []byte) bool {
		text, _, err := dns.UnpackDomainName(suffix, 0)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, text)
		return false
	})
	if want := []string{"a.bc.example.", "bc.example.", "example."}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPaddingFillsABlockOf128Bytes(t *testing.T) {
	for n := 1; n < 60; n++ {
		plain := query(t, strings.Repeat("a", n)+".example.", dns.TypeA)
		padded := wire.AppendPadded([]byte("in front"), plain)[len("in front"):]
		if len(padded)%128 != 0 || len(padded) > 256 {
			t.Fatalf("a query of %d bytes: got %d, want the next multiple of 128 that holds an option", len(plain), len(padded))
		}
		msg := new(dns.Msg)
		if err := msg.Unpack(padded); err != nil || len(msg.IsEdns0().Option) != 1 || msg.IsEdns0().Option[0].Option() != dns.EDNS0PADDING {
			t.Fatalf("got %v, %v, want a message with padding", msg, err)
		}
		if again := wire.AppendPadded(nil, padded); !bytes.Equal(again, padded) {
			t.Fatal("padded twice: got another message, want it as it is")
		}
	}
	if plain := wire.WithoutOPT(query(t, "a.", dns.TypeA)); !bytes.Equal(wire.AppendPadded(nil, plain), plain) {
		t.Error("without an OPT: got a padded query, want it as it is")
	}
}

// respond packs a reply to the query, changed.
func respond(t testing.TB, q []byte, change func(*dns.Msg)) []byte {
	t.Helper()
	m := upstreamtest.Change(q, change)
	if m == nil {
		t.Fatal("reply cannot be packed")
	}
	return m
}

func rrs(texts ...string) []dns.RR {
	var records []dns.RR
	for _, text := range texts {
		records = append(records, upstreamtest.RR(text))
	}
	return records
}

func TestOnlyWhatTheQuestionLeadsToIsLeftOfAnAnswer(t *testing.T) {
	const a, alias, far = "www.example. 300 IN A 192.0.2.1", "www.example. 300 IN CNAME host.cdn.test.", "host.cdn.test. 300 IN A 192.0.2.2"
	const soa = "example. 300 IN SOA ns.example. host.example. 1 1 1 1 60"
	const sig = " 300 IN RRSIG A 13 2 300 20300101000000 20200101000000 1 example. AAAA"
	for what, c := range map[string]struct {
		qtype                   uint16
		answer, ns, extra       []string
		wantAnswer, wantSection []string // nil = as they came
	}{
		"an address":                       {qtype: dns.TypeA, answer: []string{a}},
		"an alias and its address":         {qtype: dns.TypeA, answer: []string{alias, far}},
		"an alias whose target is unknown": {qtype: dns.TypeA, answer: []string{alias}},
		"the alias itself":                 {qtype: dns.TypeCNAME, answer: []string{alias}},
		"signatures along the way":         {qtype: dns.TypeA, answer: []string{alias, "www.example." + sig, far, "host.cdn.test." + sig}},
		"an alias of a whole tree":         {qtype: dns.TypeA, answer: []string{"example. 300 IN DNAME cdn.test.", "example." + sig, "www.example. 300 IN CNAME www.cdn.test.", "www.cdn.test. 300 IN A 192.0.2.2"}},
		"an alias behind its address":      {qtype: dns.TypeA, answer: []string{far, alias}},
		"everything there is":              {qtype: dns.TypeANY, answer: []string{a, `www.example. 300 IN TXT "x"`, "www.example. 300 IN MX 5 mx.example."}},
		"nothing, and from where":          {qtype: dns.TypeMX, ns: []string{soa}},
		"nothing, and proof":               {qtype: dns.TypeMX, ns: []string{soa, "example." + sig, "www.example. 300 IN NSEC x.example. A", "www.example." + sig}},
		"nothing at the end of an alias":   {qtype: dns.TypeMX, answer: []string{alias}, ns: []string{"cdn.test. 300 IN SOA ns.cdn.test. host.cdn.test. 1 1 1 1 60"}},
		"servers of the zone":              {qtype: dns.TypeA, answer: []string{a}, ns: []string{"example. 300 IN NS ns.example."}, extra: []string{"ns.example. 300 IN A 192.0.2.53"}},
		"another name":                     {qtype: dns.TypeA, answer: []string{a, "bank.test. 300 IN A 6.6.6.6"}, wantAnswer: []string{a}},
		"a name beside the zone":           {qtype: dns.TypeA, answer: []string{a}, ns: []string{"ample. 300 IN NS evil.test."}, wantSection: []string{}},
		"an SOA of another zone":           {qtype: dns.TypeMX, ns: []string{"bank.test. 300 IN SOA a. b. 1 1 1 1 60", soa}, wantSection: []string{soa}},
		"an SOA below the name":            {qtype: dns.TypeMX, ns: []string{"a.www.example. 300 IN SOA a. b. 1 1 1 1 60"}, wantSection: []string{}},
		"another type":                     {qtype: dns.TypeA, answer: []string{`www.example. 300 IN TXT "x"`, a}, wantAnswer: []string{a}},
		"another class":                    {qtype: dns.TypeA, answer: []string{"www.example. 300 CH A 6.6.6.6"}, wantAnswer: []string{}},
		"an alias from elsewhere":          {qtype: dns.TypeA, answer: []string{"bank.test. 300 IN CNAME evil.test.", a}, wantAnswer: []string{a}},
	} {
		q := query(t, "www.example.", c.qtype)
		msg := respond(t, q, func(m *dns.Msg) {
			m.Answer, m.Ns, m.Compress = rrs(c.answer...), rrs(c.ns...), true
			m.Extra = append(rrs(c.extra...), m.Extra...)
		})
		got, err := wire.Read(msg, q)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		read := new(dns.Msg)
		if err := read.Unpack(got.Wire); err != nil {
			t.Errorf("%s: what is left: %v", what, err)
			continue
		}
		want := rrs(c.answer...)
		if c.wantAnswer != nil {
			want = rrs(c.wantAnswer...)
		}
		wantNs := rrs(c.ns...)
		if c.wantSection != nil {
			wantNs = rrs(c.wantSection...)
		}
		if !same(read.Answer, want) || !same(read.Ns, wantNs) || len(read.Extra) != 1 || read.IsEdns0() == nil {
			t.Errorf("%s: got\n%v\nwant answer %v, authority %v and the OPT", what, read, want, wantNs)
		}
	}
}

func same(got, want []dns.RR) bool {
	return slices.EqualFunc(got, want, func(a, b dns.RR) bool { return a.String() == b.String() })
}

func TestNoBadMannersPassWhoReadsInPlace(t *testing.T) {
	q := query(t, "www.example.", dns.TypeA)
	for _, m := range upstreamtest.Messages() {
		msg := m.Message(slices.Clone(q))
		if m.Right || !wire.Answers(msg, q) {
			continue
		}
		if got, err := wire.Read(msg, q); err == nil && got.RCode == dns.RcodeSuccess {
			t.Errorf("%s: got % x read, want an error", m.Name, got.Wire)
		}
	}
}

func TestTheUpperBitsOfAnRCodeAreInTheOPT(t *testing.T) {
	q := query(t, "www.example.", dns.TypeA)
	msg := respond(t, q, func(m *dns.Msg) { m.Rcode, m.Answer = dns.RcodeBadVers, nil })
	if got, err := wire.Read(msg, q); err != nil || got.RCode != dns.RcodeBadVers {
		t.Errorf("got %d, %v, want BADVERS", got.RCode, err)
	}
}

func TestAnAnswerIsReadWithoutAllocating(t *testing.T) {
	q := query(t, "www.example.", dns.TypeA)
	msg := respond(t, q, func(m *dns.Msg) {
		m.Compress = true
		m.Answer = rrs("www.example. 300 IN CNAME a.example.", "a.example. 300 IN A 192.0.2.1", "a.example. 300 IN A 192.0.2.2")
		m.Ns = rrs("example. 300 IN NS ns.example.")
	})
	if got := testing.AllocsPerRun(100, func() {
		if !wire.Answers(msg, q) {
			t.Fatal("got no answer")
		}
		if _, err := wire.Read(msg, q); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("got %v allocations, want none", got)
	}
}

// Whatever an upstream sends, a message is taken only with the query's id and question, as a response; what is left of
// it is whole, speaks only of names that the question leads to, and is left as it is when it is read again.
func FuzzRead(f *testing.F) {
	q := query(f, "www.example.", dns.TypeA)
	for _, m := range upstreamtest.Messages() {
		if m.Message != nil {
			f.Add(m.Message(q))
		}
	}
	f.Add(respond(f, q, func(m *dns.Msg) {
		m.Compress = true
		m.Answer = rrs("www.example. 300 IN CNAME a.test.", "a.test. 300 IN A 192.0.2.1")
		m.Ns = rrs("test. 300 IN SOA a.test. b.test. 1 1 1 1 1")
	}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !wire.Answers(raw, q) {
			return
		}
		if wire.ID(raw) != 0x1234 || raw[2]&0xF8 != 0x80 {
			t.Fatalf("took % x, which has another id, or is no response", raw)
		}
		got, err := wire.Read(slices.Clone(raw), q)
		if err != nil || got.Truncated {
			return
		}
		again, err := wire.Read(slices.Clone(got.Wire), q)
		if err != nil || !bytes.Equal(again.Wire, got.Wire) {
			t.Fatalf("% x: got % x, %v when read again", got.Wire, again.Wire, err)
		}
		msg := new(dns.Msg)
		if err := msg.Unpack(got.Wire); err != nil {
			return // of a type whose data is not looked into
		}
		chain := []string{"www.example."}
		for range msg.Answer {
			for _, rr := range msg.Answer {
				alias, ok := rr.(*dns.CNAME)
				if ok && strings.EqualFold(alias.Hdr.Name, chain[len(chain)-1]) {
					chain = append(chain, alias.Target)
				}
			}
		}
		for _, rr := range msg.Answer {
			h := rr.Header()
			if !slices.ContainsFunc(chain, func(n string) bool {
				return strings.EqualFold(n, h.Name) || (h.Rrtype == dns.TypeDNAME || h.Rrtype == dns.TypeRRSIG) && dns.IsSubDomain(h.Name, n)
			}) {
				t.Fatalf("left %v, which the question does not lead to", rr)
			}
		}
		for _, rr := range msg.Extra {
			if rr.Header().Rrtype != dns.TypeOPT {
				t.Fatalf("left %v in the additional section", rr)
			}
		}
	})
}

// FuzzQuery: what is taken as a query can be padded, stripped and walked, and stays the same question.
func FuzzQuery(f *testing.F) {
	f.Add(query(f, "www.example.", dns.TypeA))
	f.Add(wire.WithoutOPT(query(f, "www.example.", dns.TypeA)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := slices.Clone(raw)
		end, ok := wire.QuestionEnd(raw)
		wire.AppendSuffixes(nil, raw, func([]byte) bool { return false })
		padded := wire.AppendPadded(nil, raw)
		if !ok {
			return
		}
		if !bytes.Equal(padded[12:end], raw[12:end]) || !bytes.Equal(raw, before) {
			t.Fatalf("% x: got % x when padded", raw, padded)
		}
		if wire.HasOPT(raw) {
			if plain := wire.WithoutOPT(raw); wire.HasOPT(plain) || !bytes.Equal(plain[12:], raw[12:end]) {
				t.Fatalf("% x: got % x without its OPT", raw, plain)
			}
			if !wire.HasOPT(padded) {
				t.Fatalf("% x: got % x, which has lost its OPT", raw, padded)
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	q := query(b, "www.example.", dns.TypeA)
	msg := respond(b, q, func(m *dns.Msg) {
		m.Compress = true
		m.Answer = rrs("www.example. 300 IN CNAME a.example.", "a.example. 300 IN A 192.0.2.1", "a.example. 300 IN A 192.0.2.2")
	})
	b.Run("in place", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := wire.Read(msg, q); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("unpacked", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := new(dns.Msg).Unpack(msg); err != nil {
				b.Fatal(err)
			}
		}
	})
}
