package upstreamtest

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// RightAddress is what Right says, and WrongAddress what no client must ever hear.
const (
	RightAddress = "192.0.2.1"
	WrongAddress = "6.6.6.6"
)

// Right is the right answer to a query for any name: one A record.
func Right(query []byte) []byte { return Change(query, func(*dns.Msg) {}) }

// Wrong is Right with WrongAddress, and whatever else change makes wrong with it.
func Wrong(query []byte, change func(*dns.Msg)) []byte {
	return Change(query, func(m *dns.Msg) {
		m.Answer = []dns.RR{record(m.Question[0].Name, WrongAddress)}
		change(m)
	})
}

// Change is Right, changed.
func Change(query []byte, change func(*dns.Msg)) []byte {
	q := new(dns.Msg)
	if q.Unpack(query) != nil || len(q.Question) != 1 {
		return nil
	}
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	if q.Question[0].Qtype == dns.TypeA {
		m.Answer = []dns.RR{record(q.Question[0].Name, RightAddress)}
	}
	if q.IsEdns0() != nil {
		m.SetEdns0(1232, false)
	}
	change(m)
	packed, err := m.Pack()
	if err != nil {
		return nil
	}
	return packed
}

func record(name, address string) dns.RR { return RR(name + " 300 IN A " + address) }

// RR is a record in zone-file text.
func RR(text string) dns.RR {
	rr, err := dns.NewRR(text)
	if err != nil {
		panic(err)
	}
	return rr
}

// raw is a response to the query whose sections are the bytes given, with the counts given, and no OPT.
func raw(query []byte, answers, additional int, sections ...byte) []byte {
	end := 12
	for query[end] != 0 {
		end += int(query[end]) + 1
	}
	m := append([]byte(nil), query[:end+5]...)
	m[2], m[3] = 0x81, 0x80
	binary.BigEndian.PutUint16(m[6:], uint16(answers))
	binary.BigEndian.PutUint16(m[8:], 0)
	binary.BigEndian.PutUint16(m[10:], uint16(additional))
	return append(m, sections...)
}
