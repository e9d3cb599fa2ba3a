package dns_test

import (
	"bytes"
	"encoding/hex"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/fleet"
)

// odd makes a query one that goes by way of package message: it has an option that hardly anybody sends.
func odd(q *dns.Msg) *dns.Msg {
	if q.IsEdns0() == nil {
		q.SetEdns0(1232, false)
	}
	opt := q.IsEdns0()
	opt.Option = append(opt.Option, &dns.EDNS0_LOCAL{Code: 65001, Data: []byte("x")})
	return q
}

// eachWay runs a test for both ways that a query may take.
func eachWay(t *testing.T, test func(t *testing.T, ask func(*dns.Msg) *dns.Msg)) {
	t.Helper()
	for way, form := range map[string]func(*dns.Msg) *dns.Msg{"plain": func(q *dns.Msg) *dns.Msg { return q }, "odd": odd} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			test(t, form)
		})
	}
}

func TestAnOPTIsAnsweredByOneWhateverTheAnswer(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, form func(*dns.Msg) *dns.Msg) {
		for _, how := range []string{"udp", "tcp", "dot", "doh"} {
			e := bitOfEverything(t)
			for _, c := range askedFor {
				mark := len(e.events.all())
				reply := e.exchange(t, how, form(queryEDNS(c.name, dns.TypeA, 1232, true)))
				opt := reply.IsEdns0()
				if countOPT(reply) != 1 || opt.Version() != 0 || opt.UDPSize() != 1232 || !opt.Do() || opt.ExtendedRcode() != 0 {
					t.Errorf("%s over %s: got %v, want one OPT of version 0, size 1232, with DO", c.name, how, reply.Extra)
				}
				if got := e.lastOutcome(t, mark); got != c.outcome {
					t.Errorf("%s over %s: got %s, want %s", c.name, how, got, c.outcome)
				}
			}
			if reply := e.exchange(t, how, form(queryEDNS("www.test", dns.TypeA, 1232, false))); reply.IsEdns0().Do() {
				t.Errorf("%s without DO: got DO", how)
			}
		}
	})
}

func TestAnUnknownEDNSVersionIsBADVERS(t *testing.T) {
	t.Parallel()
	e := startEverywhere(t, policyOf(), nil)
	for _, how := range transports {
		for _, version := range []uint8{1, 2, 255} {
			q := queryEDNS("localhost", dns.TypeA, 1232, true)
			q.IsEdns0().SetVersion(version)
			reply := e.exchange(t, how, q)
			opt := reply.IsEdns0()
			if reply.Rcode != dns.RcodeBadVers || opt == nil || opt.Version() != 0 || len(reply.Answer) != 0 {
				t.Errorf("version %d over %s: got %s, %v; want BADVERS and an OPT of version 0", version, how, describe(reply), opt)
			}
		}
	}
}

const clientCookie = "0102030405060708"

func withCookie(q *dns.Msg, cookie string) *dns.Msg {
	if q.IsEdns0() == nil {
		q.SetEdns0(1232, false)
	}
	q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: cookie})
	return q
}

func cookieOf(m *dns.Msg) string { return options(m)[dns.EDNS0COOKIE] }

func TestCookiesOfRFC7873(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, form func(*dns.Msg) *dns.Msg) {
		e := bitOfEverything(t)
		for _, how := range []string{"udp", "tcp", "dot", "doh"} {
			for _, name := range []string{"www.test", "denied.test", "localhost", "new-over-" + how + ".test"} {
				first := cookieOf(e.exchange(t, how, form(withCookie(query(name, dns.TypeA), clientCookie))))
				if len(first) != 48 || !strings.HasPrefix(first, clientCookie+"01") {
					t.Errorf("%s over %s: got cookie %q, want 24 bytes: the client's 8, then version 1", name, how, first)
					continue
				}
				if again := cookieOf(e.exchange(t, how, form(withCookie(query(name, dns.TypeA), first)))); again != first {
					t.Errorf("%s over %s: a valid cookie: got %q, want it back", name, how, again)
				}
				forged := first[:40] + "00000000"
				if again := cookieOf(e.exchange(t, how, form(withCookie(query(name, dns.TypeA), forged)))); again == forged || len(again) != 48 {
					t.Errorf("%s over %s: a forged cookie: got %q, want another one", name, how, again)
				}
			}
			if got := cookieOf(e.exchange(t, how, form(queryEDNS("www.test", dns.TypeA, 1232, false)))); got != "" {
				t.Errorf("%s: a client without cookie: got %q, want none", how, got)
			}
			for _, size := range []int{1, 7, 9, 15, 41, 100} {
				reply := e.exchange(t, how, form(withCookie(query("www.test", dns.TypeA), hex.EncodeToString(make([]byte, size)))))
				if reply.Rcode != dns.RcodeFormatError || cookieOf(reply) != "" {
					t.Errorf("a cookie of %d bytes over %s: got %s, want FORMERR", size, how, describe(reply))
				}
			}
		}
		old := cookieOf(e.exchange(t, "udp", form(withCookie(query("www.test", dns.TypeA), clientCookie))))
		e.clock.advance(40 * time.Minute)
		if fresh := cookieOf(e.exchange(t, "udp", form(withCookie(query("www.test", dns.TypeA), old)))); fresh == old || len(fresh) != 48 {
			t.Errorf("a cookie of 40 minutes: got %q, want a new one", fresh)
		}
	})
}

func TestAnswersArePaddedWhereNobodyCanLookInsideAndOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, form func(*dns.Msg) *dns.Msg) {
		up := serveUpstream(t, zoneHandler(t, append(manyRecords(60), "www.test. 300 IN A 192.0.2.1")...))
		policy := policyOf(up.url())
		policy.Deny = []string{"denied.test"}
		e := startEverywhere(t, policy, nil)
		for _, how := range transports {
			for _, name := range []string{"www.test", "www.test", "denied.test", "localhost", "many.test", "many.test", "nope.test", "new-over-" + how[:3] + ".test"} {
				asked := form(withCookie(query(name, dns.TypeA), clientCookie))
				asked.IsEdns0().Option = append(asked.IsEdns0().Option, &dns.EDNS0_PADDING{Padding: make([]byte, 33)})
				reply, size := e.sized(t, how, asked)
				_, padded := options(reply)[dns.EDNS0PADDING]
				secret := how != "udp" && how != "tcp"
				if padded != secret || secret && size%468 != 0 {
					t.Errorf("%s over %s, padded query: got %d bytes, padding %v; want padding %v, to multiples of 468", name, how, size, padded, secret)
				}
				reply, _ = e.sized(t, how, form(queryEDNS(name, dns.TypeA, 1232, false)))
				if _, padded := options(reply)[dns.EDNS0PADDING]; padded {
					t.Errorf("%s over %s: got padding that nobody asked for", name, how)
				}
			}
		}
	})
}

func TestAnErrorSaysWhy(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, form func(*dns.Msg) *dns.Msg) {
		ask := func(b *bench, name string) *dns.Msg {
			t.Helper()
			return b.ask(t, "udp", form(queryEDNS(name, dns.TypeA, 1232, false)))
		}
		expect := func(b *bench, what, name string, rcode, ede int) {
			t.Helper()
			if reply := ask(b, name); reply.Rcode != rcode || edeOf(reply) != ede {
				t.Errorf("%s: got %s, want %s with EDE %d", what, describe(reply), dns.RcodeToString[rcode], ede)
			}
		}
		none := startWithout(t, nil)
		expect(none, "without a policy", "www.test", dns.RcodeServerFailure, 14)

		zone := zoneHandler(t, "www.test. 60 IN A 192.0.2.1", "inside.test. 60 IN A 10.1.1.1")
		up := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
			if strings.HasPrefix(q.Question[0].Name, "silly") {
				_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeRefused))
				return
			}
			if strings.HasPrefix(q.Question[0].Name, "broken") {
				_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure))
				return
			}
			zone(w, q)
		})
		p := policyOf(up.url())
		p.Deny = []string{"denied.test"}
		b := start(t, p, nil)
		expect(b, "good", "www.test", dns.RcodeSuccess, -1)
		expect(b, "good, cached", "www.test", dns.RcodeSuccess, -1)
		expect(b, "does not exist", "nope.test", dns.RcodeNameError, -1)
		expect(b, "blocked", "denied.test", dns.RcodeNameError, 15)
		expect(b, "rebinding", "inside.test", dns.RcodeNameError, 15)
		expect(b, "no usable answer", "silly.test", dns.RcodeServerFailure, 23)
		expect(b, "no usable answer a moment ago", "silly.test", dns.RcodeServerFailure, 13)
		expect(b, "SERVFAIL of the upstream", "broken.test", dns.RcodeServerFailure, -1)
		expect(b, "SERVFAIL a moment ago", "broken.test", dns.RcodeServerFailure, 13)
		b.clock.advance(65 * time.Second)
		up.stop()
		expect(b, "stale", "www.test", dns.RcodeSuccess, 3)
		expect(b, "stale that does not exist", "nope.test", dns.RcodeNameError, 19)
		expect(b, "nobody there", "other.test", dns.RcodeServerFailure, 23)
		expect(b, "nobody there a moment ago", "other.test", dns.RcodeServerFailure, 13)
	})
}

// A name of 255 bytes, of 127 labels, and of bytes that no host name has, are names like any other.
func TestUnusualNamesAreForwardedAsTheyAre(t *testing.T) {
	t.Parallel()
	long := strings.Repeat(strings.Repeat("l", 61)+".", 4)[:248] + "test."
	up := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}, Txt: []string{"ok"}}}
		_ = w.WriteMsg(m)
	})
	e := startEverywhere(t, policyOf(up.url()), nil)
	for _, name := range []string{long, strings.Repeat("a.", 125) + "tt.", `a\000b.test.`, `dot\.dot.test.`, `\255\254.test.`, `sp\ ace.test.`, "_dmarc.example.", "xn--nxasmq6b.example."} {
		for _, how := range []string{"udp", "tcp", "dot", "doh"} {
			for _, when := range []string{"first", "again"} {
				reply := e.exchange(t, how, query(name, dns.TypeTXT))
				if reply.Rcode != dns.RcodeSuccess || len(reply.Answer) != 1 || reply.Question[0].Name != name {
					t.Errorf("%q over %s, %s: got %s, want its answer", name, how, when, describe(reply))
				}
			}
		}
	}
	if got := int(up.asked.Load()); got != 8 {
		t.Errorf("the upstream was asked %d times, want once for each name", got)
	}
}

// One rule says on every transport what is a query.
func TestOneAcceptanceRuleForAllTransports(t *testing.T) {
	t.Parallel()
	e := startEverywhere(t, policyOf(), nil)
	good := packed(t, queryEDNS("localhost", dns.TypeA, 1232, false))
	for _, how := range transports {
		for _, c := range []struct {
			name   string
			change func(raw []byte)
			want   string
		}{
			{"a response", func(raw []byte) { raw[2] |= 0x80 }, "no answer"},
			{"opcode STATUS", func(raw []byte) { raw[2] |= 2 << 3 }, "NOTIMP"},
			{"opcode NOTIFY", func(raw []byte) { raw[2] |= 4 << 3 }, "NOTIMP"},
			{"opcode UPDATE", func(raw []byte) { raw[2] |= 5 << 3 }, "NOTIMP"},
			{"no question", func(raw []byte) { raw[5] = 0 }, "FORMERR"},
			{"two questions", func(raw []byte) { raw[5] = 2 }, "FORMERR"},
			{"65,535 questions", func(raw []byte) { raw[4], raw[5] = 255, 255 }, "FORMERR"},
			{"an OPT too few", func(raw []byte) { raw[11] = 2 }, "FORMERR"},
			{"a query", func([]byte) {}, "NOERROR"},
		} {
			raw := append([]byte(nil), good...)
			c.change(raw)
			got := "no answer"
			if reply := e.rawUnlessResponse(t, how, raw); reply != nil {
				m := new(dns.Msg)
				if err := m.Unpack(reply); err != nil {
					t.Fatal(err)
				}
				got = dns.RcodeToString[m.Rcode]
			}
			if got != c.want {
				t.Errorf("%s over %s: got %s, want %s", c.name, how, got, c.want)
			}
		}
	}
	if got := e.events.outcomes(); got[fleet.Invalid] != 7*len(transports) {
		t.Errorf("outcomes: got %v, want %d invalid", got, 7*len(transports))
	}
}

// rawUnlessResponse does not wait for an answer to a response over UDP: it asks something else behind it.
func (e *everywhere) rawUnlessResponse(t *testing.T, how string, raw []byte) []byte {
	t.Helper()
	if how != "udp" || raw[2]&0x80 == 0 {
		return e.raw(t, how, raw)
	}
	conn, err := net.Dial("udp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	behind := query("localhost", dns.TypeA)
	behind.Id = 4711
	_, _ = conn.Write(raw)
	_, _ = conn.Write(packed(t, behind))
	buffer := make([]byte, 512)
	n, err := conn.Read(buffer)
	if err != nil {
		t.Fatalf("the query behind a response: %v", err)
	}
	if bytes.Equal(buffer[:2], []byte{4711 >> 8, 4711 & 0xFF}) {
		return nil
	}
	return buffer[:n]
}
