package answer_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/cache/answer"
	"dnsfleet/internal/fleet"
)

const soa = "x. 300 IN SOA ns.x. h.x. 1 1 1 1 60"

// message is a response to name and type; records of authority and additional section follow "/" each.
func message(t testing.TB, qtype uint16, rcode int, records ...string) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion("a.x.", qtype)
	m.Response, m.RecursionAvailable, m.Rcode, m.Compress = true, true, rcode, true
	section := &m.Answer
	for _, text := range records {
		if text == "/" {
			if section == &m.Answer {
				section = &m.Ns
			} else {
				section = &m.Extra
			}
			continue
		}
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		*section = append(*section, rr)
	}
	return m
}

func pack(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func name(t testing.TB, text string) []byte {
	t.Helper()
	wire := make([]byte, 256)
	end, err := dns.PackDomainName(text, wire, 0, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	return wire[:end]
}

func limits(change func(*fleet.CachePolicy)) fleet.CachePolicy {
	l := fleet.DefaultCachePolicy()
	if change != nil {
		change(&l)
	}
	return l
}

func TestLifetime(t *testing.T) {
	t.Parallel()
	const one = "a.x. 100 IN A 192.0.2.1"
	minimum := limits(func(l *fleet.CachePolicy) { l.MinTTL = fleet.Duration(time.Minute) })
	forever := limits(func(l *fleet.CachePolicy) { l.MaxTTL = 0 })
	with := func(m *dns.Msg, change func(*dns.Msg)) *dns.Msg { change(m); return m }
	for _, c := range []struct {
		name   string
		msg    *dns.Msg
		limits fleet.CachePolicy
		want   time.Duration
	}{
		{"an answer lives its TTL", message(t, dns.TypeA, 0, one), limits(nil), 100 * time.Second},
		{"the shortest TTL of the answer counts", message(t, dns.TypeA, 0, one, "a.x. 7 IN A 192.0.2.2"), limits(nil), 7 * time.Second},
		{"the TTL of an alias counts", message(t, dns.TypeA, 0, "a.x. 9 IN CNAME b.x.", "b.x. 100 IN A 192.0.2.1"), limits(nil), 9 * time.Second},
		{"the TTLs of other sections do not count", message(t, dns.TypeA, 0, one, "/", "x. 5 IN NS ns.x.", "/", "ns.x. 3 IN A 192.0.2.2"), limits(nil), 100 * time.Second},
		{"a TTL of 0 is not kept", message(t, dns.TypeA, 0, "a.x. 0 IN A 192.0.2.1"), limits(nil), 0},
		{"a TTL of 0 lives the minimum", message(t, dns.TypeA, 0, "a.x. 0 IN A 192.0.2.1"), minimum, time.Minute},
		{"a long TTL lives the maximum", message(t, dns.TypeA, 0, "a.x. 1000000 IN A 192.0.2.1"), limits(nil), 24 * time.Hour},
		{"a long TTL lives on without a maximum", message(t, dns.TypeA, 0, "a.x. 1000000 IN A 192.0.2.1"), forever, 1_000_000 * time.Second},
		{"the largest TTL of RFC 2181 is one", message(t, dns.TypeA, 0, "a.x. 2147483647 IN A 192.0.2.1"), forever, 2_147_483_647 * time.Second},
		{"a TTL with the high bit is 0", message(t, dns.TypeA, 0, "a.x. 2147483648 IN A 192.0.2.1"), limits(nil), 0},
		{"a TTL with the high bit shortens the rest", message(t, dns.TypeA, 0, one, "a.x. 4294967295 IN A 192.0.2.1"), limits(nil), 0},
		{"NXDOMAIN lives by the SOA's minimum", message(t, dns.TypeA, dns.RcodeNameError, "/", soa), limits(nil), time.Minute},
		{"NXDOMAIN lives by the SOA's TTL", message(t, dns.TypeA, dns.RcodeNameError, "/", "x. 9 IN SOA ns.x. h.x. 1 1 1 1 60"), limits(nil), 9 * time.Second},
		{"NXDOMAIN lives three hours at most", message(t, dns.TypeA, dns.RcodeNameError, "/", "x. 90000 IN SOA ns.x. h.x. 1 1 1 1 90000"), limits(nil), 3 * time.Hour},
		{"NXDOMAIN of a SOA with a TTL of 0 is not kept", message(t, dns.TypeA, dns.RcodeNameError, "/", "x. 0 IN SOA ns.x. h.x. 1 1 1 1 60"), limits(nil), 0},
		{"NXDOMAIN lives the minimum", message(t, dns.TypeA, dns.RcodeNameError, "/", "x. 5 IN SOA ns.x. h.x. 1 1 1 1 60"), minimum, time.Minute},
		{"NXDOMAIN at the end of an alias lives by the shorter", message(t, dns.TypeA, dns.RcodeNameError, "a.x. 20 IN CNAME b.x.", "/", soa), limits(nil), 20 * time.Second},
		{"NODATA lives by the SOA", message(t, dns.TypeAAAA, 0, "/", soa), limits(nil), time.Minute},
		{"an alias to nothing lives by the SOA", message(t, dns.TypeA, 0, "a.x. 100 IN CNAME b.x.", "/", soa), limits(nil), time.Minute},
		{"NXDOMAIN without SOA is not kept", message(t, dns.TypeA, dns.RcodeNameError), limits(nil), 0},
		{"NXDOMAIN without SOA is not kept even with a minimum", message(t, dns.TypeA, dns.RcodeNameError), minimum, 0},
		{"NODATA without SOA is not kept", message(t, dns.TypeA, 0), limits(nil), 0},
		{"a SOA in the additional section is none", message(t, dns.TypeA, dns.RcodeNameError, "/", "/", soa), limits(nil), 0},
		{"a referral is not kept", message(t, dns.TypeA, 0, "/", "x. 300 IN NS ns.x."), limits(nil), 0},
		{"SERVFAIL is kept for a moment", message(t, dns.TypeA, dns.RcodeServerFailure), minimum, 5 * time.Second},
		{"REFUSED is not kept", message(t, dns.TypeA, dns.RcodeRefused), minimum, 0},
		{"FORMERR is not kept", message(t, dns.TypeA, dns.RcodeFormatError), minimum, 0},
		{"NOTIMP is not kept", message(t, dns.TypeA, dns.RcodeNotImplemented), minimum, 0},
		{"BADVERS is not kept for NOERROR", with(message(t, dns.TypeA, dns.RcodeBadVers, one), func(m *dns.Msg) { m.SetEdns0(1232, false) }), limits(nil), 0},
		{"ANY is not kept", message(t, dns.TypeANY, 0, one), limits(nil), 0},
		{"a zone transfer is not kept", message(t, dns.TypeAXFR, 0, one), minimum, 0},
		{"a truncated answer is not kept", with(message(t, dns.TypeA, 0, one), func(m *dns.Msg) { m.Truncated = true }), limits(nil), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a, err := answer.Read(pack(t, c.msg), name(t, "a.x."), c.msg.Question[0].Qtype, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := a.Lifetime(&c.limits); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	good := pack(t, message(t, dns.TypeA, 0, "a.x. 100 IN CNAME b.x.", "b.x. 100 IN A 192.0.2.1"))
	const firstRecord = 12 + 5 + 4
	for n, change := range map[string]func(b []byte) []byte{
		"a query":                         func(b []byte) []byte { b[2] &^= 0x80; return b },
		"another opcode":                  func(b []byte) []byte { b[2] |= 0x28; return b },
		"no question":                     func(b []byte) []byte { b[5] = 0; return b },
		"two questions":                   func(b []byte) []byte { b[5] = 2; return b },
		"another name":                    func(b []byte) []byte { b[13] = 'b'; return b },
		"another type":                    func(b []byte) []byte { b[firstRecord-3] = 28; return b },
		"another class":                   func(b []byte) []byte { b[firstRecord-1] = 3; return b },
		"a record too few":                func(b []byte) []byte { b[7] = 3; return b },
		"a cut record":                    func(b []byte) []byte { return b[:len(b)-1] },
		"half a header":                   func(b []byte) []byte { return b[:11] },
		"nothing":                         func([]byte) []byte { return nil },
		"a name compressed to itself":     func(b []byte) []byte { b[firstRecord+1] = firstRecord; return b },
		"a name compressed forwards":      func(b []byte) []byte { b[firstRecord+1] = firstRecord + 12; return b },
		"a name compressed to the header": func(b []byte) []byte { b[firstRecord+1] = 4; return b },
		"a label of an unknown kind":      func(b []byte) []byte { b[firstRecord] = 0x80; return b },
		"a record longer than its data":   func(b []byte) []byte { b[firstRecord+11] = 5; return b },
		"a record shorter than its data":  func(b []byte) []byte { b[firstRecord+11] = 3; return b },
		"an address of three bytes":       func(b []byte) []byte { b[len(b)-5] = 3; return b[:len(b)-1] },
	} {
		if a, err := answer.Read(change(bytes.Clone(good)), name(t, "a.x."), dns.TypeA, nil); err == nil {
			t.Errorf("%s: got %+v, want an error", n, a)
		}
	}
	if _, err := answer.Read(good, name(t, "a.x."), dns.TypeA, nil); err != nil {
		t.Errorf("the good answer: %v", err)
	}
	upper := bytes.Clone(good)
	upper[13] = 'A'
	if _, err := answer.Read(upper, name(t, "a.x."), dns.TypeA, nil); err != nil {
		t.Errorf("a question in upper case: %v", err)
	}
	for n, opts := range map[string][]dns.RR{
		"two OPTs":           {&dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}, &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}},
		"an OPT with a name": {&dns.OPT{Hdr: dns.RR_Header{Name: "a.x.", Rrtype: dns.TypeOPT}}},
	} {
		m := message(t, dns.TypeA, 0, "a.x. 100 IN A 192.0.2.1")
		m.Extra = opts
		if _, err := answer.Read(pack(t, m), name(t, "a.x."), dns.TypeA, nil); !errors.Is(err, answer.ErrMalformed) {
			t.Errorf("%s: got %v, want %v", n, err, answer.ErrMalformed)
		}
	}
}

// What is taken out or written anew must leave the records as they were.
func TestReadKeepsTheRecords(t *testing.T) {
	t.Parallel()
	opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT, Ttl: 0x8000}}
	first := message(t, dns.TypeA, 0, "a.x. 100 IN A 192.0.2.1", "/", "x. 50 IN NS ns.x.", "/", "ns.x. 60 IN A 192.0.2.2", "ns.x. 61 IN AAAA 2001:db8::1")
	last := first.Copy()
	first.Extra = slices.Insert(first.Extra, 0, dns.RR(opt))
	last.Extra = append(last.Extra, opt)
	into := pack(t, message(t, dns.TypeA, 0, "a.x. 100 IN A 192.0.2.1", "0.x. 0 IN A 192.0.2.1"))
	// The second owner is compressed to the lower byte of the first TTL, 0: the root, as long as the TTL is left alone.
	second := len(into) - 18
	into = append(into[:second], append([]byte{0xC0, 12 + 5 + 4 + 2 + 4}, into[second+4:]...)...)
	for n, wire := range map[string][]byte{
		"an OPT that is the last record":       pack(t, last),
		"an OPT before other records":          pack(t, first),
		"a type with names of unknown form":    pack(t, message(t, dns.TypeRP, 0, "a.x. 9 IN RP b.a.x. c.a.x.", "a.x. 9 IN NAPTR 1 2 \"s\" \"x\" \"\" d.a.x.")),
		"an unknown type":                      pack(t, message(t, 4711, 0, "a.x. 9 IN TYPE4711 \\# 3 C00C01")),
		"bytes after the last record":          append(pack(t, message(t, dns.TypeA, 0, "a.x. 100 IN A 192.0.2.1")), 1, 2, 3),
		"signatures, proofs and service names": pack(t, message(t, dns.TypeHTTPS, 0, "a.x. 9 IN HTTPS 1 . alpn=h2", "a.x. 9 IN RRSIG HTTPS 8 2 9 20300101000000 20200101000000 1 x. AAAA", "/", "x. 9 IN NSEC y. A RRSIG")),
		"a name compressed into a TTL":         into,
	} {
		in := new(dns.Msg)
		if err := in.Unpack(bytes.Clone(wire)); err != nil {
			t.Errorf("%s: the test's own message: %v", n, err)
			continue
		}
		a, err := answer.Read(wire, name(t, "a.x."), in.Question[0].Qtype, nil)
		if err != nil {
			t.Errorf("%s: %v", n, err)
			continue
		}
		same(t, n, in, a)
	}
}

// same compares a message with what was read of it, and shows that its TTLs are where they should be.
func same(t *testing.T, what string, in *dns.Msg, a answer.Answer) {
	t.Helper()
	wire := bytes.Clone(a.Wire)
	header := a.Header(false)
	copy(wire, header[:])
	if again, err := answer.Read(wire, lower(wire[12:12+nameSize(wire)]), binary.BigEndian.Uint16(wire[12+nameSize(wire):]), nil); err != nil || len(again.Wire) != len(wire) {
		t.Errorf("%s: what was read cannot be read again: %v", what, err)
	}
	for _, off := range a.TTLs {
		binary.BigEndian.PutUint32(wire[off:], 123)
	}
	out := new(dns.Msg)
	if err := out.Unpack(wire); err != nil {
		t.Errorf("%s: got %x, which does not unpack: %v", what, wire, err)
		return
	}
	if got, want := texts(out), texts(in); !slices.Equal(got, want) {
		t.Errorf("%s:\ngot  %q\nwant %q", what, got, want)
	}
}

// nameSize is the length of the question's name, 0 when it does not end.
func nameSize(msg []byte) int {
	end := 12
	for end < len(msg) && msg[end] != 0 {
		end += 1 + int(msg[end])
	}
	if end+3 > len(msg) {
		return 0
	}
	return end + 1 - 12
}

func lower(name []byte) []byte {
	name = bytes.Clone(name)
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			name[i] = c + 'a' - 'A'
		}
	}
	return name
}

// texts are the records without OPT, with a TTL of 123.
func texts(m *dns.Msg) []string {
	var all []string
	for i, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if rr.Header().Rrtype != dns.TypeOPT {
				rr.Header().Ttl = 123
				rr.Header().Rdlength = 0
				all = append(all, strings.Repeat("/", i)+rr.String())
			}
		}
	}
	return all
}

// FuzzRead: nothing makes it panic, and what it reads is, for a client, the records of the message without OPT, however
// their TTLs are changed.
func FuzzRead(f *testing.F) {
	f.Add(pack(f, message(f, dns.TypeA, 0, "a.x. 100 IN CNAME b.x.", "b.x. 100 IN A 192.0.2.1", "/", soa, "/", "ns.x. 4 IN AAAA 2001:db8::1")))
	f.Add(pack(f, message(f, dns.TypeRP, 0, "a.x. 9 IN RP b.a.x. c.a.x.")))
	f.Add(pack(f, message(f, dns.TypeHTTPS, 0, "a.x. 9 IN HTTPS 1 . alpn=h2", "a.x. 9 IN RRSIG HTTPS 8 2 9 20300101000000 20200101000000 1 x. AAAA")))
	withOPT := message(f, dns.TypeMX, 0, "a.x. 9 IN MX 5 mx.a.x.", "/", "/", "mx.a.x. 9 IN SRV 1 2 3 b.x.")
	withOPT.SetEdns0(1232, true)
	slices.Reverse(withOPT.Extra)
	f.Add(pack(f, withOPT))
	f.Fuzz(func(t *testing.T, wire []byte) {
		size := nameSize(wire)
		if size == 0 {
			return
		}
		question, qtype := lower(wire[12:12+size]), binary.BigEndian.Uint16(wire[12+size:])
		before := bytes.Clone(wire)
		a, err := answer.Read(wire, question, qtype, nil)
		if !bytes.Equal(wire, before) {
			t.Errorf("the message was changed")
		}
		in := new(dns.Msg)
		if err != nil || in.Unpack(bytes.Clone(wire)) != nil {
			return
		}
		l := limits(nil)
		if life := a.Lifetime(&l); life < 0 || life > 24*time.Hour {
			t.Errorf("got lifetime %v, want it within the limits", life)
		}
		if a.RCode != in.Rcode {
			t.Errorf("got rcode %d, want %d", a.RCode, in.Rcode)
		}
		same(t, "fuzzed", in, a)
	})
}

func BenchmarkRead(b *testing.B) {
	m := message(b, dns.TypeA, 0, "a.x. 100 IN CNAME b.x.", "b.x. 100 IN A 192.0.2.1", "b.x. 100 IN A 192.0.2.2")
	m.SetEdns0(1232, false)
	wire, question := pack(b, m), name(b, "a.x.")
	b.ReportAllocs()
	for b.Loop() {
		var room [16]uint16
		if _, err := answer.Read(wire, question, dns.TypeA, room[:]); err != nil {
			b.Fatal(err)
		}
	}
}
