package packet_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/message"
	"dnsfleet/internal/dns/packet"
)

func pack(t testing.TB, change func(*dns.Msg)) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion("WWW.Exa_mple-1.test.", dns.TypeA)
	change(m)
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func option(o ...dns.EDNS0) func(*dns.Msg) {
	return func(m *dns.Msg) {
		m.SetEdns0(1400, true)
		m.IsEdns0().Option = o
	}
}

func TestOnlyPlainQueriesAreRead(t *testing.T) {
	for _, c := range []struct {
		name string
		raw  []byte
		want bool
	}{
		{"a query", pack(t, func(*dns.Msg) {}), true},
		{"one with OPT", pack(t, func(m *dns.Msg) { m.SetEdns0(4096, true) }), true},
		{"one with a cookie", pack(t, option(&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"})), true},
		{"one that is padded", pack(t, option(&dns.EDNS0_PADDING{Padding: make([]byte, 100)})), true},
		{"about the root", pack(t, func(m *dns.Msg) { m.Question[0].Name = "." }), true},
		{"a short cookie", pack(t, option(&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "01"})), false},
		{"two cookies", pack(t, option(&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"})), false},
		{"an option of another kind", pack(t, option(&dns.EDNS0_LOCAL{Code: 65001, Data: []byte{1}})), false},
		{"EDNS version 1", pack(t, func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(1) }), false},
		{"two OPTs", pack(t, func(m *dns.Msg) { m.SetEdns0(1232, false); m.SetEdns0(1232, false) }), false},
		{"a response", pack(t, func(m *dns.Msg) { m.Response = true }), false},
		{"a NOTIFY", pack(t, func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), false},
		{"class CHAOS", pack(t, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), false},
		{"type ANY", pack(t, func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeANY }), false},
		{"a transfer", pack(t, func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }), false},
		{"a name with a space", pack(t, func(m *dns.Msg) { m.Question[0].Name = `a\032b.test.` }), false},
		{"bytes behind the question", append(pack(t, func(*dns.Msg) {}), 0), false},
		{"a question that is cut", pack(t, func(*dns.Msg) {})[:20], false},
		{"nothing", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := new(packet.Query).Read(c.raw); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// What Read takes, package message accepts and understands the same by; what is appended for it is a reply to it.
func FuzzReadAgreesWithMessage(f *testing.F) {
	f.Add(pack(f, func(*dns.Msg) {}))
	f.Add(pack(f, func(m *dns.Msg) { m.SetEdns0(700, true); m.CheckingDisabled = true }))
	f.Add(pack(f, option(&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}, &dns.EDNS0_PADDING{Padding: make([]byte, 9)})))
	f.Add(pack(f, option(&dns.EDNS0_NSID{Code: dns.EDNS0NSID}, &dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE})))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var q packet.Query
		if !q.Read(raw) {
			return
		}
		m, err := message.Parse(raw)
		if err != nil {
			t.Fatalf("message refuses what packet reads: %v", err)
		}
		got := fmt.Sprint(q.ID, string(q.AppendText(nil)), q.Type, q.RD, q.AD, q.CD, q.DO, q.EDNS)
		want := fmt.Sprint(m.Msg.Id, m.Name, m.Question.Qtype, m.Msg.RecursionDesired, m.AD(), m.CD(), m.DO(), m.OPT != nil)
		if got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
		name := make([]byte, 256)
		end, err := dns.PackDomainName(m.Name, name, 0, nil, false)
		if err != nil || !bytes.Equal(name[:end], q.Name) {
			t.Fatalf("name: got % x, want % x (%v)", q.Name, name[:end], err)
		}
		x := packet.Extra{EDE: true, Code: 15, Text: [2]string{"blocked by ", "x"}, Cookie: q.Cookie, Padding: q.Padding}
		reply := q.AppendHead([]byte("before"), dns.RcodeNameError)
		reply = q.Finish(reply, len("before"), &x)[len("before"):]
		back := new(dns.Msg)
		if err := back.Unpack(reply); err != nil {
			t.Fatalf("reply: %v", err)
		}
		if !back.Response || back.Id != m.Msg.Id || back.Question[0] != m.Question || back.Rcode != dns.RcodeNameError ||
			!back.RecursionAvailable || (back.IsEdns0() != nil) != q.EDNS {
			t.Fatalf("got reply %v to %v", back, m.Msg)
		}
		if q.Padding && len(reply)%468 != 0 {
			t.Fatalf("got %d bytes, want a multiple of 468", len(reply))
		}
	})
}

// A Cursor sees the records that miekg/dns sees, and ends where it does not.
func FuzzCursor(f *testing.F) {
	m := new(dns.Msg).SetQuestion("www.example.", dns.TypeA)
	for _, text := range []string{"www.example. 60 IN CNAME x.Example.", "x.example. 30 IN A 192.0.2.1", "x.example. 30 IN AAAA 2001:db8::1"} {
		rr, err := dns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	m.SetEdns0(1232, false)
	m.Compress = true
	wire, _ := m.Pack()
	f.Add(wire)
	f.Fuzz(func(t *testing.T, raw []byte) {
		back := new(dns.Msg)
		whole := back.Unpack(raw) == nil
		cursor := packet.RecordsOf(raw)
		var seen []packet.Record
		for {
			r, ok := cursor.Next()
			if !ok {
				break
			}
			if r.End > len(raw) || r.Data > r.End || r.Start >= r.Data {
				t.Fatalf("got %+v in %d bytes", r, len(raw))
			}
			if name, ok := packet.AppendName(nil, raw, r.Data); ok && len(name) > 255 {
				t.Fatalf("got a name of %d bytes", len(name))
			}
			seen = append(seen, r)
		}
		if !whole || len(raw) < 12 {
			return
		}
		all := append(append(append([]dns.RR(nil), back.Answer...), back.Ns...), back.Extra...)
		if len(all) != len(seen) {
			return // miekg/dns forgives counts that promise more than there is
		}
		for i, rr := range all {
			if rr.Header().Rrtype != seen[i].Type {
				t.Fatalf("record %d: got type %d, want %d", i, seen[i].Type, rr.Header().Rrtype)
			}
			if alias, is := rr.(*dns.CNAME); is && seen[i].Data < seen[i].End { // miekg/dns forgives one without data
				name, ok := packet.AppendName(nil, raw, seen[i].Data)
				text, _, err := dns.UnpackDomainName(name, 0)
				if !ok || err != nil || text != dns.CanonicalName(alias.Target) {
					t.Fatalf("alias: got %q (%v, %v), want %q", text, ok, err, alias.Target)
				}
			}
		}
		cut := packet.CutOPT(bytes.Clone(raw))
		if n := len(back.Extra); n > 0 && back.Extra[n-1].Header().Rrtype == dns.TypeOPT {
			without := new(dns.Msg)
			if err := without.Unpack(cut); err != nil || len(without.Extra) != n-1 {
				t.Fatalf("without OPT: got %d more (%v), want %d", len(without.Extra), err, n-1)
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	raw := pack(b, option(&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}))
	var q packet.Query
	b.ReportAllocs()
	for b.Loop() {
		if !q.Read(raw) {
			b.Fatal("not read")
		}
	}
}
