package dns_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/upstream/upstreamtest"
	"dnsfleet/internal/fleet"
)

// What is to become of a hostile packet, where it is not an rcode.
const (
	whatever = -1
	silence  = -2
)

// hostilePacket is a message that no well-meaning client sends. Its first two bytes are replaced by a number.
type hostilePacket struct {
	name string
	raw  []byte
	want int // rcode, whatever or silence
}

// hostileSeed makes the same random packets in each run.
const hostileSeed = 20260107

// wellFormed are queries that others are made of.
func wellFormed(t testing.TB) [][]byte {
	t.Helper()
	rich := queryEDNS("www.test", dns.TypeA, 1232, true)
	rich.IsEdns0().Option = []dns.EDNS0{
		&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}, &dns.EDNS0_NSID{Code: dns.EDNS0NSID},
		&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(192, 0, 2, 0)},
	}
	var all [][]byte
	for _, q := range []*dns.Msg{
		rich, query("www.test", dns.TypeA), queryEDNS("denied.test", dns.TypeAAAA, 512, false), queryEDNS("nas.home.arpa", dns.TypeTXT, 65535, true),
	} {
		raw, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, raw)
	}
	return all
}

// head is a header with these counts, opcode QUERY and RD.
func head(questions, answers, authority, additional uint16) []byte {
	h := []byte{0, 0, 1, 0}
	for _, n := range []uint16{questions, answers, authority, additional} {
		h = binary.BigEndian.AppendUint16(h, n)
	}
	return h
}

var (
	nameWWW = []byte("\x03www\x04test\x00")
	inA     = []byte{0, 1, 0, 1}
)

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

// optRecord is an OPT with these options, whatever they hold.
func optRecord(options ...byte) []byte {
	return join([]byte{0, 0, 41, 4, 208, 0, 0, 0, 0}, binary.BigEndian.AppendUint16(nil, uint16(len(options))), options)
}

func option(code uint16, data ...byte) []byte {
	return join(binary.BigEndian.AppendUint16(nil, code), binary.BigEndian.AppendUint16(nil, uint16(len(data))), data)
}

func withOPT(opt []byte) []byte { return join(head(1, 0, 0, 1), nameWWW, inA, opt) }

// hostilePackets are all groups, by name.
func hostilePackets(t testing.TB) map[string][]hostilePacket {
	t.Helper()
	return map[string][]hostilePacket{
		"cut at every length": cutPackets(t), "names that lead astray": namePackets(), "broken OPTs": optPackets(), "counts that lie": countPackets(),
		"responses": responsePackets(t), "other opcodes, types and classes": kindPackets(t), "random changes": mutatedPackets(t), "noise": noisePackets(),
	}
}

func cutPackets(t testing.TB) (all []hostilePacket) {
	t.Helper()
	for _, whole := range wellFormed(t)[:2] {
		for n := range whole {
			want := dns.RcodeFormatError
			if n < 12 {
				want = silence
			}
			all = append(all, hostilePacket{fmt.Sprintf("%d of %d bytes", n, len(whole)), whole[:n], want})
		}
	}
	return all
}

func namePackets() (all []hostilePacket) {
	label := func(n int) []byte { return append([]byte{byte(n)}, strings.Repeat("x", n)...) }
	names := map[string][]byte{
		"a pointer to itself":                  {0xC0, 12},
		"a pointer forward":                    {0xC0, 30},
		"a pointer beyond the end":             {0xFF, 0xFF},
		"a pointer into the header":            {0xC0, 0},
		"a pointer to its own label":           {1, 'a', 0xC0, 12},
		"two pointers at each other":           {0xC0, 14, 0xC0, 12},
		"half a pointer":                       {0xC0},
		"a label that is longer than all":      {63, 'a'},
		"a label of a type that never was":     {0x80, 1, 2, 0},
		"an extended label":                    {0x41, 1, 0},
		"a name without end":                   {3, 'w', 'w', 'w'},
		"a name of more than 255 bytes":        join(label(63), label(63), label(63), label(63), label(3), []byte{0}),
		"a name of 256 bytes":                  join(label(63), label(63), label(63), label(62), []byte{0}),
		"two hundred labels":                   join([]byte(strings.Repeat("\x01a", 200)), []byte{0}),
		"a pointer to a pointer to the header": {0xC0, 14, 0xC0, 2},
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		raw := names[name]
		all = append(
			all,
			hostilePacket{name + " as the question", join(head(1, 0, 0, 0), raw, inA), dns.RcodeFormatError},
			hostilePacket{name + " as the question before an OPT", join(head(1, 0, 0, 1), raw, inA, optRecord()), dns.RcodeFormatError},
			hostilePacket{name + " as an OPT's owner", join(head(1, 0, 0, 1), nameWWW, inA, raw, optRecord()[1:]), whatever},
			hostilePacket{name + " in an answer", join(head(1, 1, 0, 0), nameWWW, inA, raw, inA, []byte{0, 0, 0, 9, 0, 4, 192, 0, 2, 1}), whatever},
			hostilePacket{name + " as an alias's target", join(head(1, 1, 0, 0), nameWWW, inA, nameWWW, []byte{0, 5, 0, 1, 0, 0, 0, 9, 0, byte(len(raw))}, raw), whatever},
		)
	}
	return all
}

func optPackets() (all []hostilePacket) {
	add := func(name string, raw []byte, want int) { all = append(all, hostilePacket{name, raw, want}) }
	whole := optRecord(option(dns.EDNS0COOKIE, 1, 2, 3, 4, 5, 6, 7, 8)...)
	for _, size := range []uint16{1, 4, 11, 13, 255, 65535} {
		lie := slices.Clone(whole)
		binary.BigEndian.PutUint16(lie[9:], size)
		add(fmt.Sprintf("an OPT of %d bytes that has 12", size), withOPT(lie), dns.RcodeFormatError)
	}
	for _, size := range []uint16{9, 12, 255, 65535} {
		lie := slices.Clone(whole)
		binary.BigEndian.PutUint16(lie[13:], size)
		add(fmt.Sprintf("an option of %d bytes that has 8", size), withOPT(lie), dns.RcodeFormatError)
	}
	for n := range 48 {
		want := dns.RcodeFormatError
		if n == 8 || n >= 16 && n <= 40 {
			want = whatever
		}
		add(fmt.Sprintf("a cookie of %d bytes", n), withOPT(optRecord(option(dns.EDNS0COOKIE, make([]byte, n)...)...)), want)
	}
	for version := 1; version < 256; version += 17 {
		future := optRecord()
		future[6] = byte(version)
		add(fmt.Sprintf("EDNS version %d", version), withOPT(future), dns.RcodeBadVers)
	}
	for name, raw := range map[string][]byte{
		"two OPTs":                join(head(1, 0, 0, 2), nameWWW, inA, optRecord(), optRecord()),
		"an OPT with a name":      withOPT(join(nameWWW, optRecord()[1:])),
		"two cookies":             withOPT(optRecord(join(option(10, 1, 2, 3, 4, 5, 6, 7, 8), option(10, 1, 2, 3, 4, 5, 6, 7, 8))...)),
		"a subnet of no family":   withOPT(optRecord(option(dns.EDNS0SUBNET, 0, 9, 24, 0, 1, 2, 3)...)),
		"a subnet of one byte":    withOPT(optRecord(option(dns.EDNS0SUBNET, 0)...)),
		"a subnet of 33 bits":     withOPT(optRecord(option(dns.EDNS0SUBNET, 0, 1, 33, 0, 1, 2, 3, 4, 5)...)),
		"a keepalive of one byte": withOPT(optRecord(option(dns.EDNS0TCPKEEPALIVE, 1)...)),
		"an expiry of three":      withOPT(optRecord(option(dns.EDNS0EXPIRE, 1, 2, 3)...)),
	} {
		want := dns.RcodeFormatError
		if strings.Contains(name, "subnet of 33") { // tolerated by who does not use it
			want = whatever
		}
		add(name, raw, want)
	}
	add("an OPT as an answer", join(head(1, 1, 0, 0), nameWWW, inA, optRecord()), whatever)
	add("an OPT as an authority", join(head(1, 0, 1, 0), nameWWW, inA, optRecord()), whatever)
	add("an extended rcode", withOPT([]byte{0, 0, 41, 4, 208, 255, 0, 0, 0, 0, 0}), whatever)
	add("all flags", withOPT([]byte{0, 0, 41, 4, 208, 0, 0, 255, 255, 0, 0}), whatever)
	add("a size of nothing", withOPT([]byte{0, 0, 41, 0, 0, 0, 0, 0, 0, 0, 0}), whatever)
	add("a hundred options that nobody knows", withOPT(optRecord(slices.Repeat(option(65001, 1), 100)...)), whatever)
	add("an extended error in a query", withOPT(optRecord(option(dns.EDNS0EDE, 0, 15, 'x')...)), whatever)
	add("a padding of 1000 bytes", withOPT(optRecord(option(dns.EDNS0PADDING, make([]byte, 1000)...)...)), whatever)
	return all
}

func countPackets() (all []hostilePacket) {
	for _, questions := range []uint16{0, 2, 3, 255, 65535} {
		all = append(
			all,
			hostilePacket{fmt.Sprintf("%d questions, none there", questions), head(questions, 0, 0, 0), dns.RcodeFormatError},
			hostilePacket{fmt.Sprintf("%d questions, one there", questions), join(head(questions, 0, 0, 0), nameWWW, inA), dns.RcodeFormatError},
			hostilePacket{fmt.Sprintf("%d questions, two there", questions), join(head(questions, 0, 0, 0), nameWWW, inA, nameWWW, inA), dns.RcodeFormatError},
			hostilePacket{fmt.Sprintf("%d questions and an OPT", questions), join(head(questions, 0, 0, 1), nameWWW, inA, optRecord()), dns.RcodeFormatError},
		)
	}
	for section := range 3 {
		for _, n := range []uint16{1, 2, 255, 65535} {
			counts := [3]uint16{}
			counts[section] = n
			all = append(
				all,
				hostilePacket{fmt.Sprintf("%d records in section %d, none there", n, section), join(head(1, counts[0], counts[1], counts[2]), nameWWW, inA), whatever},
				hostilePacket{fmt.Sprintf("%d records in section %d, half a one", n, section), join(head(1, counts[0], counts[1], counts[2]), nameWWW, inA, []byte{0xC0, 12, 0, 1, 0, 1, 0}), dns.RcodeFormatError},
			)
		}
	}
	all = append(
		all,
		hostilePacket{"bytes after the end", join(head(1, 0, 0, 0), nameWWW, inA, make([]byte, 300)), whatever},
		hostilePacket{"three hundred records", join(head(1, 0, 0, 300), nameWWW, inA, slices.Repeat([]byte{0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0}, 300)), whatever},
	)
	return all
}

func responsePackets(t testing.TB) (all []hostilePacket) {
	t.Helper()
	for _, whole := range wellFormed(t) {
		for opcode := range 16 {
			for rcode := 0; rcode < 16; rcode += 5 {
				raw := slices.Clone(whole)
				raw[2], raw[3] = raw[2]&0x87|0x80|byte(opcode)<<3, byte(rcode)
				all = append(all, hostilePacket{fmt.Sprintf("a response with opcode %d and rcode %d", opcode, rcode), raw, silence})
			}
		}
	}
	return all
}

func kindPackets(t testing.TB) (all []hostilePacket) {
	t.Helper()
	for opcode := 1; opcode < 16; opcode++ {
		for _, questions := range []uint16{0, 1, 2, 65535} {
			raw := join(head(questions, 0, 0, 0), nameWWW, inA)
			raw[2] |= byte(opcode) << 3
			all = append(all, hostilePacket{fmt.Sprintf("opcode %d with %d questions", opcode, questions), raw, dns.RcodeNotImplemented})
		}
	}
	update := new(dns.Msg).SetUpdate("test.")
	update.Insert([]dns.RR{mustRR("www.test. 300 IN A 6.6.6.6")})
	for name, m := range map[string]*dns.Msg{"UPDATE": update, "NOTIFY": new(dns.Msg).SetNotify("test.")} {
		all = append(all, hostilePacket{name, packed(t, m), dns.RcodeNotImplemented})
	}
	for _, kind := range []struct {
		qtype, class uint16
		want         int
	}{
		{dns.TypeAXFR, dns.ClassINET, dns.RcodeRefused},
		{dns.TypeIXFR, dns.ClassINET, dns.RcodeRefused},
		{dns.TypeNone, dns.ClassINET, dns.RcodeFormatError},
		{dns.TypeOPT, dns.ClassINET, dns.RcodeFormatError},
		{dns.TypeANY, dns.ClassINET, dns.RcodeSuccess},
		{dns.TypeMAILA, dns.ClassINET, whatever},
		{dns.TypeMAILB, dns.ClassINET, whatever},
		{dns.TypeTKEY, dns.ClassINET, whatever},
		{dns.TypeTSIG, dns.ClassINET, whatever},
		{dns.TypeReserved, dns.ClassINET, whatever},
		{dns.TypeA, dns.ClassCHAOS, dns.RcodeRefused},
		{dns.TypeA, dns.ClassHESIOD, dns.RcodeRefused},
		{dns.TypeA, dns.ClassNONE, dns.RcodeRefused},
		{dns.TypeA, dns.ClassANY, dns.RcodeRefused},
		{dns.TypeA, 0, dns.RcodeRefused},
	} {
		q := query("www.test", kind.qtype)
		q.Question[0].Qclass = kind.class
		all = append(all, hostilePacket{fmt.Sprintf("type %d of class %d", kind.qtype, kind.class), packed(t, q), kind.want})
	}
	return all
}

func packed(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	raw, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func mutatedPackets(t testing.TB) (all []hostilePacket) {
	t.Helper()
	random := rand.New(rand.NewPCG(hostileSeed, 1))
	templates := wellFormed(t)
	for i := range 500 {
		raw := slices.Clone(templates[i%len(templates)])
		for range 1 + random.IntN(4) {
			switch at := 2 + random.IntN(len(raw)-2); random.IntN(5) {
			case 0:
				raw[at] ^= 1 << random.IntN(8)
			case 1:
				raw[at] = byte(random.Uint32())
			case 2:
				raw = slices.Insert(raw, at, byte(random.Uint32()))
			case 3:
				raw = slices.Delete(raw, at, at+1)
			case 4:
				raw[at] = []byte{0, 1, 63, 64, 0xC0, 0xFF}[random.IntN(6)]
			}
			if len(raw) < 8 {
				break
			}
		}
		all = append(all, hostilePacket{fmt.Sprintf("change %d", i), raw, whatever})
	}
	return all
}

func noisePackets() (all []hostilePacket) {
	random := rand.New(rand.NewPCG(hostileSeed, 2))
	for i := range 200 {
		raw := make([]byte, random.IntN(200)+1)
		for j := range raw {
			raw[j] = byte(random.Uint32())
		}
		all = append(all, hostilePacket{fmt.Sprintf("noise %d", i), raw, whatever})
	}
	for _, n := range []int{1, 12, 512, 4096, 60000} {
		all = append(all, hostilePacket{fmt.Sprintf("%d zeros", n), make([]byte, n), whatever})
	}
	return all
}

// sentinel is the id of the good query that follows each packet. The packets have lower ones.
const sentinel = 0xFFFF

// hostileClient sends packets by one transport and holds the answers to what is allowed.
type hostileClient struct {
	*everywhere
	how    string
	good   []byte
	conn   net.Conn       // of udp, tcp and dot; nil = to be opened
	sent   map[uint16]int // bytes of each packet, by number
	number uint16
	floor  int // answers up to here are no amplification
	buffer []byte
}

func newHostileClient(t *testing.T, e *everywhere, how string) *hostileClient {
	t.Helper()
	good := query("localhost", dns.TypeA)
	good.Id = sentinel
	c := &hostileClient{everywhere: e, how: how, good: packed(t, good), sent: map[uint16]int{}, buffer: make([]byte, dns.MaxMsgSize)}
	if how != "udp" {
		c.floor = 512 // nobody can make these answer somebody else
	}
	t.Cleanup(c.hangUp)
	return c
}

func (c *hostileClient) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// numbered puts the next number in front of a packet.
func (c *hostileClient) numbered(raw []byte) []byte {
	c.number++
	raw = slices.Clone(raw)
	if len(raw) >= 2 {
		binary.BigEndian.PutUint16(raw, c.number)
		c.sent[c.number] = len(raw)
	}
	return raw
}

// send sends a packet and returns its answer if that came before the good query's, which must come unless the packet
// ended the connection.
func (c *hostileClient) send(t *testing.T, p hostilePacket) (reply []byte) {
	t.Helper()
	raw := c.numbered(p.raw)
	if strings.HasPrefix(c.how, "doh") {
		if reply = c.raw(t, c.how, raw); reply != nil {
			c.check(t, p, reply)
		}
		return reply
	}
	if c.conn == nil {
		c.conn = c.dial(t, c.how)
	}
	_ = c.conn.SetDeadline(time.Now().Add(10 * time.Second))
	if c.how == "udp" {
		_, _ = c.conn.Write(raw)
		if _, err := c.conn.Write(c.good); err != nil {
			t.Fatalf("%s: write: %v", p.name, err)
		}
	} else {
		frame := binary.BigEndian.AppendUint16(nil, uint16(len(raw)))
		frame = append(frame, raw...)
		frame = append(binary.BigEndian.AppendUint16(frame, uint16(len(c.good))), c.good...)
		_, _ = c.conn.Write(frame) // whoever sent a response is hung up on, perhaps before this has ended
	}
	for {
		answer, err := c.read()
		if err != nil {
			if c.how == "udp" {
				t.Fatalf("%s, % x: the good query after it: %v", p.name, raw, err)
			}
			c.hangUp()
			return reply
		}
		switch binary.BigEndian.Uint16(answer) {
		case sentinel:
			return reply
		case c.number:
			reply = answer
		}
		c.check(t, p, answer)
	}
}

func (c *hostileClient) read() ([]byte, error) {
	if c.how != "udp" {
		return upstreamtest.ReadFrame(c.conn)
	}
	n, err := c.conn.Read(c.buffer)
	return slices.Clone(c.buffer[:n]), err
}

// check holds any answer to what is allowed.
func (c *hostileClient) check(t *testing.T, p hostilePacket, answer []byte) {
	t.Helper()
	size := c.sent[binary.BigEndian.Uint16(answer)]
	if len(answer) > max(10*size, c.floor) {
		t.Errorf("%s: got %d bytes for %d, want no more than 10 times as many", p.name, len(answer), size)
	}
	if len(answer) < 12 || answer[2]&0x80 == 0 {
		t.Errorf("%s: got % x, want a response", p.name, answer)
	}
}

func TestHostilePacketsOnEveryTransport(t *testing.T) {
	up := serveUpstream(t, zoneHandler(t, "www.test. 300 IN A 192.0.2.1"))
	policy := policyOf(up.url())
	policy.Deny = []string{"denied.test"}
	policy.Records = []fleet.PolicyRecord{{Name: "nas.home.arpa", Type: "A", Value: "192.168.1.10"}}
	groups := hostilePackets(t)
	for _, how := range []string{"udp", "tcp", "dot", "doh"} {
		t.Run(how, func(t *testing.T) {
			e := startEverywhere(t, policy, nil)
			c := newHostileClient(t, e, how)
			c.send(t, hostilePacket{"to warm up", c.good, whatever})
			before := measure()
			total := 0
			for _, group := range slices.Sorted(maps.Keys(groups)) {
				for _, p := range groups[group] {
					total++
					reply := c.send(t, p)
					got := silence
					if reply != nil {
						m := new(dns.Msg)
						if err := m.Unpack(reply); err != nil {
							t.Errorf("%s, %s: got an answer that cannot be read: %v", group, p.name, err)
							continue
						}
						got = m.Rcode
					}
					if p.want != whatever && got != p.want {
						t.Errorf("%s, %s, % x: got rcode %d, want %d (%d is none; seed %d)", group, p.name, p.raw, got, p.want, silence, hostileSeed)
					}
				}
				e.answersWell(t, how, group)
			}
			if total < 500 {
				t.Errorf("got %d packets, want 500 or more", total)
			}
			c.hangUp()
			e.http2.CloseIdleConnections()
			measuredBy(t, before)
		})
	}
}

// answersWell asks for something good on a connection of its own.
func (e *everywhere) answersWell(t *testing.T, how, after string) {
	t.Helper()
	for name, want := range map[string]string{"localhost": "localhost. 3600 IN A 127.0.0.1", "nas.home.arpa": "nas.home.arpa. 300 IN A 192.168.1.10", "denied.test": ""} {
		if reply := e.exchange(t, how, query(name, dns.TypeA)); answers(reply) != want {
			t.Errorf("%s over %s after %s: got %s, want [%s]", name, how, after, describe(reply), want)
		}
	}
}

// footprint is what a process takes.
type footprint struct {
	goroutines int
	heap       uint64
}

func measure() footprint {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return footprint{runtime.NumGoroutine(), m.HeapAlloc + m.StackInuse}
}

// measuredBy fails if much more is taken than before.
func measuredBy(t *testing.T, before footprint) {
	t.Helper()
	eventually(t, "no goroutine more than before", func() bool { return runtime.NumGoroutine() <= before.goroutines+2 })
	if after := measure(); after.heap > before.heap+20<<20 {
		t.Errorf("memory: got %d KiB more, want less than 20 MiB", (after.heap-before.heap)>>10)
	}
}

func TestHostileStreams(t *testing.T) {
	up := serveUpstream(t, zoneHandler(t, "www.test. 300 IN A 192.0.2.1"))
	policy := policyOf(up.url())
	policy.Deny = []string{"denied.test"}
	policy.Records = []fleet.PolicyRecord{{Name: "nas.home.arpa", Type: "A", Value: "192.168.1.10"}}
	good := packed(t, query("localhost", dns.TypeA))
	frame := binary.BigEndian.AppendUint16(nil, uint16(len(good)))
	frame = append(frame, good...)
	cut := func(at ...int) (parts [][]byte) {
		from := 0
		for _, to := range append(at, len(frame)) {
			parts = append(parts, frame[from:to])
			from = to
		}
		return parts
	}
	var byByte [][]byte
	for i := range frame {
		byByte = append(byByte, frame[i:i+1])
	}
	type stream struct {
		name    string
		parts   [][]byte
		answers int
	}
	streams := []stream{
		{"a message of no bytes", [][]byte{{0, 0}}, 0},
		{"a message of one byte", [][]byte{{0, 1, 7}}, 0},
		{"a message of 65,535 bytes that never come", [][]byte{{0xFF, 0xFF, 1, 2, 3}}, 0},
		{"a length that is one too many", [][]byte{join([]byte{0, byte(len(good) + 1)}, good)}, 0},
		{"a length that is one too few", [][]byte{join([]byte{0, byte(len(good) - 1)}, good)}, 1}, // FORMERR, and a rest
		{"65,535 zeros", [][]byte{join([]byte{0xFF, 0xFF}, make([]byte, 65535))}, 1},
		{"half a length", [][]byte{{0}}, 0},
		{"nothing", nil, 0},
		{"good, then a lie", [][]byte{join(frame, []byte{0xFF, 0xFF, 1})}, 1},
		{"good, then nothing more than a byte", [][]byte{join(frame, []byte{0})}, 1},
		{"good, twice at once", [][]byte{join(frame, frame)}, 2},
		{"good, a hundred times at once", [][]byte{slices.Repeat(frame, 100)}, 100},
		{"a byte at a time", byByte, 1},
		{"a client of HTTP", [][]byte{[]byte("GET /dns-query?dns=AAAB HTTP/1.1\r\nHost: x\r\n\r\n")}, 0},
		{"a client of TLS", [][]byte{{0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3}}, 0},
	}
	for at := 1; at < len(frame); at += 5 {
		streams = append(streams, stream{fmt.Sprintf("a pause after %d bytes", at), cut(at), 1})
	}
	for _, how := range []string{"tcp", "dot"} {
		t.Run(how, func(t *testing.T) {
			e := startEverywhere(t, policy, nil)
			e.answersWell(t, how, "the start")
			before := measure()
			for _, s := range streams {
				if got := e.play(t, how, s.parts); got != s.answers {
					t.Errorf("%s: got %d answers, want %d", s.name, got, s.answers)
				}
			}
			e.answersWell(t, how, "hostile streams")
			measuredBy(t, before)
		})
	}
}

// play writes the parts, says that no more will come, and counts the answers.
func (e *everywhere) play(t *testing.T, how string, parts [][]byte) (got int) {
	t.Helper()
	conn := e.dial(t, how)
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(8 * time.Second))
	for _, part := range parts {
		_, _ = conn.Write(part)
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	for {
		answer, err := upstreamtest.ReadFrame(conn)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection is still open")
			}
			return got
		}
		if len(answer) < 12 || answer[2]&0x80 == 0 {
			t.Errorf("got % x, want a response", answer)
		}
		got++
	}
}

// Nobody can make others be answered much more than was asked in their name: not even by a blocked name, whose answer has
// an SOA, a list's name and a cookie.
func TestBlockedAnswersAreNoAmplification(t *testing.T) {
	policy := policyOf()
	long := strings.Repeat("a list with a long name ", 40)
	policy.Lists = []fleet.PolicyList{listOf(t, "mine", "||b^", "||c.de^")}
	policy.Lists[0].Name = long
	e := startEverywhere(t, policy, nil)
	eventually(t, "the list is loaded", func() bool { return e.Ready() == nil && e.Blocklist().Blocked == 2 })
	for _, mode := range []string{"nxdomain", "zero", "refused"} {
		policy.BlockMode = fleet.BlockMode{Mode: mode}
		e.apply(t, policy, 2)
		for _, name := range []string{"b", "a.b", "c.de"} {
			for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT} {
				for _, q := range queries(name, qtype) {
					raw := packed(t, q)
					reply, size := e.sized(t, "udp", q)
					if edeOf(reply) != 15 && q.IsEdns0() != nil {
						t.Errorf("%s %s: got %s, want EDE 15", mode, name, describe(reply))
					}
					if size > 10*len(raw) {
						t.Errorf("%s %s: got %d bytes for %d, want no more than 10 times as many", mode, name, size, len(raw))
					}
				}
			}
		}
	}
}
