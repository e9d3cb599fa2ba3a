package upstreamtest

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// always answers every query with one message, over any transport.
func always(name string, right bool, message func(query []byte) []byte) Manner {
	return Manner{Name: name, Right: right, Message: message}
}

// changed is always with a message that was changed from one with WrongAddress.
func changed(name string, change func(*dns.Msg)) Manner {
	return always(name, false, func(q []byte) []byte { return Wrong(q, change) })
}

// adding is always with the right answer and records that have nothing to do with it.
func adding(name string, change func(*dns.Msg)) Manner {
	return always(name, true, func(q []byte) []byte { return Change(q, change) })
}

// rcode answers with nothing but an rcode.
func rcode(name string, code int) Manner {
	return always(name, false, func(q []byte) []byte {
		return Change(q, func(m *dns.Msg) { m.Rcode, m.Answer = code, nil })
	})
}

// evil is the record that no client must hear of, with the owner that the bytes are.
func evil(owner ...byte) []byte {
	return append(owner, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 6, 6, 6, 6)
}

// Messages are manners that concern what is in a message: a server has them over any transport.
func Messages() []Manner {
	chain := func(m *dns.Msg, names ...string) {
		m.Answer = nil
		for i := range len(names) - 1 {
			m.Answer = append(m.Answer, RR(names[i]+" 300 IN CNAME "+names[i+1]))
		}
	}
	return []Manner{
		always("random bytes", false, func([]byte) []byte {
			b := make([]byte, 64)
			_, _ = rand.Read(b)
			return b
		}),
		always("nothing at all in a message", false, func([]byte) []byte { return nil }),
		changed("another id", func(m *dns.Msg) { m.Id ^= 0x5555 }),
		changed("another name", func(m *dns.Msg) { m.Question[0].Name = "evil.test." }),
		changed("a longer name", func(m *dns.Msg) { m.Question[0].Name = "a." + m.Question[0].Name }),
		changed("another type", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA }),
		changed("another class", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }),
		changed("no question but an answer", func(m *dns.Msg) { m.Question = nil }),
		changed("two questions", func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }),
		changed("a query instead of a response", func(m *dns.Msg) { m.Response = false }),
		changed("opcode UPDATE", func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }),
		always("the query as it came", false, func(q []byte) []byte { return q }),
		always("a header and nothing else", false, func(q []byte) []byte {
			return []byte{q[0], q[1], 0x81, 0x80, 0, 0, 0, 0, 0, 0, 0, 0}
		}),
		rcode("REFUSED", dns.RcodeRefused),
		rcode("SERVFAIL", dns.RcodeServerFailure),
		rcode("NOTIMP", dns.RcodeNotImplemented),
		rcode("FORMERR", dns.RcodeFormatError),
		rcode("BADVERS", dns.RcodeBadVers),
		rcode("an rcode that nobody knows", 11),
		always("FORMERR without a question", false, func(q []byte) []byte {
			return []byte{q[0], q[1], 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0}
		}),
		always("FORMERR for EDNS", true, func(q []byte) []byte {
			if q[11] > 0 {
				return []byte{q[0], q[1], 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0}
			}
			return Right(q)
		}),
		changed("aliases in a circle", func(m *dns.Msg) {
			name := m.Question[0].Name
			chain(m, name, "b.test.", "c.test.", "B.test.")
			m.Answer = append(m.Answer, record("b.test.", WrongAddress))
		}),
		changed("an alias of itself", func(m *dns.Msg) { chain(m, m.Question[0].Name, strings.ToUpper(m.Question[0].Name)) }),
		changed("aliases in a circle, in no order", func(m *dns.Msg) {
			chain(m, "b.test.", "c.test.", "b.test.")
			m.Answer = append(m.Answer, RR(m.Question[0].Name+" 300 IN CNAME b.test."))
		}),
		changed("a hundred aliases", func(m *dns.Msg) {
			names := []string{m.Question[0].Name}
			for i := range 100 {
				names = append(names, fmt.Sprintf("n%d.test.", i))
			}
			chain(m, names...)
			m.Answer = append(m.Answer, record("n99.test.", WrongAddress))
		}),
		adding("an answer about another name, too", func(m *dns.Msg) { m.Answer = append(m.Answer, record("bank.test.", WrongAddress)) }),
		adding("an answer about another name first", func(m *dns.Msg) { m.Answer = append([]dns.RR{record("bank.test.", WrongAddress)}, m.Answer...) }),
		adding("an answer of another class, too", func(m *dns.Msg) {
			m.Answer = append(m.Answer, RR(m.Question[0].Name+" 300 CH A "+WrongAddress))
		}),
		adding("an answer of another type, too", func(m *dns.Msg) {
			m.Answer = append(m.Answer, RR(m.Question[0].Name+` 300 IN TXT "`+WrongAddress+`"`))
		}),
		adding("an address in the authority section", func(m *dns.Msg) { m.Ns = []dns.RR{record(m.Question[0].Name, WrongAddress)} }),
		adding("name servers for another zone", func(m *dns.Msg) {
			m.Ns = []dns.RR{RR("bank.test. 300 IN NS ns.evil.test.")}
			m.Extra = append(m.Extra, record("ns.evil.test.", WrongAddress))
		}),
		adding("addresses nobody asked for", func(m *dns.Msg) { m.Extra = append([]dns.RR{record("bank.test.", WrongAddress)}, m.Extra...) }),
		changed("two OPTs", func(m *dns.Msg) { m.SetEdns0(1232, false); m.SetEdns0(512, false) }),
		changed("an OPT as an answer", func(m *dns.Msg) { m.Answer = append(m.Answer, m.Extra...) }),
		always("an address of three bytes", false, func(q []byte) []byte {
			return raw(q, 1, 0, 0xC0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 3, 6, 6, 6)
		}),
		always("an address of five bytes", false, func(q []byte) []byte {
			return raw(q, 1, 0, 0xC0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 5, 6, 6, 6, 6, 6)
		}),
		always("data longer than the message", false, func(q []byte) []byte {
			return raw(q, 1, 0, 0xC0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0xFF, 0xFF, 6, 6, 6, 6)
		}),
		always("data shorter than it says", false, func(q []byte) []byte {
			return raw(q, 1, 0, 0xC0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 6, 6)
		}),
		always("fewer records than it says", false, func(q []byte) []byte { return raw(q, 2, 0, evil(0xC0, 12)...) }),
		always("65535 records that are not there", false, func(q []byte) []byte { return raw(q, 65535, 65535, evil(0xC0, 12)...) }),
		always("a pointer to itself", false, func(q []byte) []byte {
			at := len(raw(q, 1, 0))
			return raw(q, 1, 0, evil(0xC0|byte(at>>8), byte(at))...)
		}),
		always("a pointer forward", false, func(q []byte) []byte {
			at := len(raw(q, 1, 0)) + 16
			return append(raw(q, 1, 0, evil(0xC0|byte(at>>8), byte(at))...), 0)
		}),
		always("two pointers at each other", false, func(q []byte) []byte {
			at := len(raw(q, 1, 0))
			return raw(q, 1, 0, evil(1, 'a', 0xC0|byte(at>>8), byte(at))...)
		}),
		always("a pointer into the header", false, func(q []byte) []byte { return raw(q, 1, 0, evil(0xC0, 4)...) }),
		always("a label of a reserved kind", false, func(q []byte) []byte { return raw(q, 1, 0, evil(0x80, 1, 0)...) }),
		always("a name of more than 255 bytes", false, func(q []byte) []byte {
			label := append([]byte{63}, strings.Repeat("a", 63)...)
			var owner []byte
			for range 5 {
				owner = append(owner, label...)
			}
			return raw(q, 1, 0, evil(append(owner, 0)...)...)
		}),
		always("the end in the middle of a record", false, func(q []byte) []byte {
			m := raw(q, 1, 0, evil(0xC0, 12)...)
			return m[:len(m)-7]
		}),
		always("the question in another case", true, func(q []byte) []byte {
			return Change(q, func(m *dns.Msg) { m.Question[0].Name = strings.ToUpper(m.Question[0].Name) })
		}),
		always("something behind the last record", true, func(q []byte) []byte { return append(Right(q), evil(0)...) }),
	}
}

// Datagrams are manners over UDP; over TCP the server hangs unless it says otherwise.
func Datagrams() []Manner {
	packet := func(name string, right bool, answer func(q []byte, to Sender)) Manner {
		return Manner{Name: name, Right: right, Packet: answer, Stream: hang}
	}
	truncated := func(q []byte, to Sender) { to.Reply(Wrong(q, func(m *dns.Msg) { m.Truncated = true })) }
	return []Manner{
		packet("silence", false, func([]byte, Sender) {}),
		packet("an answer after its time", false, func(q []byte, to Sender) {
			Wait(to.Done, 2*time.Second)
			to.Reply(Wrong(q, func(*dns.Msg) {}))
		}),
		packet("another port answers", false, func(q []byte, to Sender) { to.OtherPort(Wrong(q, func(*dns.Msg) {})) }),
		packet("another host answers", false, func(q []byte, to Sender) { to.OtherHost(Wrong(q, func(*dns.Msg) {})) }),
		packet("another port answers first", true, func(q []byte, to Sender) {
			to.OtherPort(Wrong(q, func(*dns.Msg) {}))
			to.Reply(Right(q))
		}),
		packet("wrong answers before the right one", true, func(q []byte, to Sender) {
			to.Reply(nil)
			to.Reply(Wrong(q, func(m *dns.Msg) { m.Id++ }))
			to.Reply(Wrong(q, func(m *dns.Msg) { m.Question[0].Name = "evil.test." }))
			to.Reply(Right(q))
		}),
		packet("the right answer three times", true, func(q []byte, to Sender) {
			for range 3 {
				to.Reply(Right(q))
			}
		}),
		packet("another answer after the right one", true, func(q []byte, to Sender) {
			to.Reply(Right(q))
			to.Reply(Wrong(q, func(*dns.Msg) {}))
		}),
		packet("a hundred guesses, and silence over TCP", false, flood),
		{Name: "a hundred guesses, and sense over TCP", Right: true, Packet: flood},
		{Name: "too long for UDP", Right: true, Packet: truncated},
		{Name: "too long, cut in the middle", Right: true, Packet: func(q []byte, to Sender) {
			m := Wrong(q, func(m *dns.Msg) { m.Truncated = true })
			to.Reply(m[:len(m)-20])
		}},
		packet("too long, and TCP hangs", false, truncated),
		{Name: "too long, and TCP closes", Packet: truncated, Stream: func(net.Conn, func([]byte)) {}},
		{Name: "too long, and over TCP again", Packet: truncated, Stream: frames(func(q []byte) []byte {
			return Wrong(q, func(m *dns.Msg) { m.Truncated = true })
		})},
		{Name: "5000 bytes over UDP", Right: true, Packet: func(q []byte, to Sender) {
			to.Reply(append(Wrong(q, func(*dns.Msg) {}), make([]byte, 5000)...))
		}},
	}
}

// Streams are manners over TCP and TLS. Over UDP the server is silent.
func Streams() []Manner {
	stream := func(name string, right bool, serve func(conn net.Conn, heard func([]byte))) Manner {
		return Manner{Name: name, Right: right, Packet: func([]byte, Sender) {}, Stream: serve}
	}
	// after reads a query and hands it on.
	after := func(then func(conn net.Conn, q []byte)) func(net.Conn, func([]byte)) {
		return func(conn net.Conn, heard func([]byte)) {
			q, err := ReadFrame(conn)
			if err != nil {
				return
			}
			heard(q)
			then(conn, q)
		}
	}
	return []Manner{
		stream("closes at once", false, func(net.Conn, func([]byte)) {}),
		stream("hangs", false, hang),
		stream("reads nothing", false, func(net.Conn, func([]byte)) { Wait(nil, 2*time.Second) }),
		stream("closes after the query", false, after(func(net.Conn, []byte) {})),
		stream("resets after the query", false, after(func(conn net.Conn, _ []byte) {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
		})),
		stream("closes after the length", false, after(func(conn net.Conn, _ []byte) { _, _ = conn.Write([]byte{0, 40}) })),
		stream("closes in the middle of the length", false, after(func(conn net.Conn, _ []byte) { _, _ = conn.Write([]byte{0}) })),
		stream("closes in the middle", false, after(func(conn net.Conn, q []byte) {
			m := Wrong(q, func(*dns.Msg) {})
			_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m[:20]...))
		})),
		stream("says length 0", false, after(func(conn net.Conn, _ []byte) {
			_, _ = conn.Write([]byte{0, 0})
			untilClosed(conn)
		})),
		stream("says less than it sends", false, after(func(conn net.Conn, q []byte) {
			m := Wrong(q, func(*dns.Msg) {})
			_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m)-9)), m...))
			untilClosed(conn)
		})),
		stream("says more than it sends", false, after(func(conn net.Conn, q []byte) {
			m := Wrong(q, func(*dns.Msg) {})
			_, _ = conn.Write(append([]byte{0xFF, 0xFF}, m...))
			untilClosed(conn)
		})),
		stream("a byte at a time", false, after(func(conn net.Conn, q []byte) {
			m := Wrong(q, func(*dns.Msg) {})
			for _, b := range append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...) {
				if _, err := conn.Write([]byte{b}); err != nil {
					return
				}
				Wait(nil, 100*time.Millisecond)
			}
		})),
		stream("a byte at a time, but fast", true, after(func(conn net.Conn, q []byte) {
			m := Right(q)
			for _, b := range append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...) {
				if _, err := conn.Write([]byte{b}); err != nil {
					return
				}
			}
			untilClosed(conn)
		})),
		stream("wrong answers without end", false, after(func(conn net.Conn, q []byte) {
			for WriteFrame(conn, Wrong(q, func(m *dns.Msg) { m.Id++ })) == nil { //nolint:revive // the writing is it
			}
		})),
		stream("wrong answers before the right one", true, after(func(conn net.Conn, q []byte) {
			_ = WriteFrame(conn, Wrong(q, func(m *dns.Msg) { m.Id++ }))
			_ = WriteFrame(conn, Wrong(q, func(m *dns.Msg) { m.Question[0].Name = "evil.test." }))
			_ = WriteFrame(conn, Right(q))
			untilClosed(conn)
		})),
		stream("another answer after the right one", true, after(func(conn net.Conn, q []byte) {
			_ = WriteFrame(conn, Right(q))
			_ = WriteFrame(conn, Wrong(q, func(*dns.Msg) {}))
			untilClosed(conn)
		})),
		stream("64 KiB", true, frames(func(q []byte) []byte { return Change(q, Fill(60000)) })),
		stream("closes after each answer", true, after(func(conn net.Conn, q []byte) { _ = WriteFrame(conn, Right(q)) })),
	}
}

// Fill adds records to a message until it has about that many bytes.
func Fill(size int) func(*dns.Msg) {
	return func(m *dns.Msg) {
		m.Compress = true
		for i := range size / 16 {
			m.Answer = append(m.Answer, record(m.Question[0].Name, fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)))
		}
	}
}

func frames(answer func(q []byte) []byte) func(net.Conn, func([]byte)) {
	return func(conn net.Conn, heard func([]byte)) {
		for {
			q, err := ReadFrame(conn)
			if err != nil {
				return
			}
			heard(q)
			if WriteFrame(conn, answer(q)) != nil {
				return
			}
		}
	}
}

func flood(q []byte, to Sender) {
	for i := range 100 {
		to.Reply(Wrong(q, func(m *dns.Msg) { m.Id += uint16(i + 1) }))
	}
}

// untilClosed returns when the other end has closed.
func untilClosed(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// hang takes queries and says nothing.
func hang(conn net.Conn, heard func([]byte)) {
	for {
		q, err := ReadFrame(conn)
		if err != nil {
			return
		}
		heard(q)
	}
}
