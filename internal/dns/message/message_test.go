package message_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/message"
)

func TestParse(t *testing.T) {
	plain := func(change func(*dns.Msg)) []byte {
		m := new(dns.Msg).SetQuestion("WWW.Example.", dns.TypeA)
		change(m)
		wire, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return wire
	}
	count := func(n uint16) []byte {
		wire := plain(func(*dns.Msg) {})
		binary.BigEndian.PutUint16(wire[4:], n)
		return wire
	}
	lacking := func(at int) []byte { // a record more than there is
		wire := plain(func(*dns.Msg) {})
		wire[at]++
		return wire
	}
	const fine, ignored = -1, -2
	for _, c := range []struct {
		name  string
		raw   []byte
		rcode int
	}{
		{"a query is accepted", plain(func(*dns.Msg) {}), fine},
		{"a query with OPT is accepted", plain(func(m *dns.Msg) { m.SetEdns0(1232, true) }), fine},
		{"a response is ignored", plain(func(m *dns.Msg) { m.Response = true }), ignored},
		{"a cut header that claims to be a response is ignored", []byte{1, 2, 0x80}, ignored},
		{"less than a header is FORMERR", []byte{1, 2, 3}, dns.RcodeFormatError},
		{"nothing is FORMERR", nil, dns.RcodeFormatError},
		{"no question is FORMERR", count(0), dns.RcodeFormatError},
		{"two questions are FORMERR", count(2), dns.RcodeFormatError},
		{"65535 questions are FORMERR", count(65535), dns.RcodeFormatError},
		{"a header alone that promises a question is FORMERR", count(1)[:12], dns.RcodeFormatError},
		{"a cut question is FORMERR", count(1)[:20], dns.RcodeFormatError},
		{"a question without class is FORMERR", count(1)[:len(count(1))-2], dns.RcodeFormatError},
		{"a question whose name points into the header is FORMERR", append(count(1)[:12], 0xC0, 4, 0, 1, 0, 1), dns.RcodeFormatError},
		{"a promised answer that is not there is FORMERR", lacking(7), dns.RcodeFormatError},
		{"a promised authority that is not there is FORMERR", lacking(9), dns.RcodeFormatError},
		{"a promised OPT that is not there is FORMERR", lacking(11), dns.RcodeFormatError},
		{"an UPDATE is NOTIMP", plain(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		{"EDNS version 1 is BADVERS", plain(func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(1) }), dns.RcodeBadVers},
		{"two OPTs are FORMERR", plain(func(m *dns.Msg) { m.SetEdns0(1232, false); m.SetEdns0(1232, false) }), dns.RcodeFormatError},
		{"class CHAOS is REFUSED", plain(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), dns.RcodeRefused},
		{"class ANY is REFUSED", plain(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }), dns.RcodeRefused},
		{"AXFR is REFUSED", plain(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }), dns.RcodeRefused},
		{"IXFR is REFUSED", plain(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeIXFR }), dns.RcodeRefused},
		{"type OPT is FORMERR", plain(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeOPT }), dns.RcodeFormatError},
	} {
		t.Run(c.name, func(t *testing.T) {
			q, err := message.Parse(c.raw)
			var refusal *message.RefusalError
			got := fine
			switch {
			case errors.Is(err, message.ErrIgnore):
				got = ignored
			case errors.As(err, &refusal):
				got = refusal.RCode
			}
			if got != c.rcode {
				t.Errorf("got %d (%v), want %d", got, err, c.rcode)
			}
			if got == fine && (q.Name != "www.example." || q.Question.Name != "WWW.Example.") {
				t.Errorf("names: got %q and %q, want lower case and as it was", q.Name, q.Question.Name)
			}
		})
	}
}

// Whatever arrives, Parse does not panic, and the reply to what it understood is a response with the same id and RA, no
// larger than the client takes, with an OPT exactly when the query had one.
func FuzzParse(f *testing.F) {
	m := new(dns.Msg).SetQuestion("www.example.", dns.TypeA)
	wire, _ := m.Pack()
	f.Add(wire)
	m.SetEdns0(900, true)
	wire, _ = m.Pack()
	f.Add(wire)
	f.Add([]byte{1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xC0, 12, 0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		q, err := message.Parse(raw)
		if errors.Is(err, message.ErrIgnore) {
			return
		}
		if q.Msg == nil {
			if len(raw) >= message.HeaderSize {
				t.Fatal("a message with a header was not even read")
			}
			return
		}
		reply := q.Reply(dns.RcodeSuccess)
		if err == nil {
			for i := range 100 {
				rr, _ := dns.NewRR(fmt.Sprintf("n%d.example. 60 IN A 192.0.2.1", i))
				reply.Answer = append(reply.Answer, rr)
			}
		}
		out, packErr := q.Pack(reply, message.Extra{EDE: &message.EDE{Code: 15, Text: "why"}, Cookie: q.Cookie()}, true)
		if packErr != nil {
			if err == nil {
				t.Fatalf("pack: %v", packErr)
			}
			return
		}
		back := new(dns.Msg)
		if err := back.Unpack(out); err != nil {
			t.Fatalf("unpack: %v", err)
		}
		limit := 512
		if q.OPT != nil {
			limit = 1232
		}
		if len(out) > limit || out[0] != raw[0] || out[1] != raw[1] || !back.Response || !back.RecursionAvailable || (back.IsEdns0() != nil) != (q.OPT != nil) {
			t.Fatalf("got %d bytes, %v; want a fitting reply to % x", len(out), back, raw)
		}
	})
}
