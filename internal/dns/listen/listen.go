// Package listen is the listeners: UDP, TCP, DNS over TLS and DNS over HTTPS. It binds them, reads messages, and writes
// answers. What a message means is for its Handler to say; only responses are turned away here.
package listen

import (
	"net/netip"
	"sync/atomic"
	"time"

	"dnsfleet/internal/dns/listen/datagrams"
	"dnsfleet/internal/dns/listen/streams"
)

// Protocol is how a message came.
type Protocol uint8

// The protocols.
const (
	UDP Protocol = iota
	TCP
	DoT // DNS over TLS, RFC 7858
	DoH // DNS over HTTPS, RFC 8484
)

// String is udp, tcp, dot or doh.
func (p Protocol) String() string {
	switch p {
	case UDP:
		return "udp"
	case TCP:
		return "tcp"
	case DoT:
		return "dot"
	case DoH:
		return "doh"
	}
	return "unknown"
}

// Message is one message from a client. It is valid only during Handle.
type Message struct {
	Raw      []byte     // the Handler may change it, and does not keep it
	Client   netip.Addr // unmapped, no zone
	Protocol Protocol
	Lane     int       // 0 = shared by all goroutines; n ≥ 1 = this reader's own
	Arrived  time.Time // when its batch was read; it has the monotonic clock

	pending *atomic.Int64
	later   bool
	lane    *lane // of UDP, with the message's number in the batch
	number  int
	stream  *streams.Stream // of TCP and DoT
	answer  chan []byte     // of DoH
}

// Handler answers messages. Its methods are called by many goroutines at once, but those of a lane n ≥ 1 one after the
// other. A panic costs one message, or a connection.
type Handler interface {
	// Handle answers at once, or calls m.Later and returns nil. reply may be appended to out, which is empty and has room
	// for what UDP carries, and is nil for no answer: that ends a connection, once what else is under way on it is answered. Handle never blocks.
	Handle(m *Message, out []byte) (reply []byte)
	// BatchDone is called on the lane after each batch was handled and before its replies are written. A message of
	// lane 0 is a batch of its own.
	BatchDone(lane int)
}

// Later makes the Responder of an answer that comes after Handle has returned. It is called at most once, and what
// Handle returns is not sent then.
func (m *Message) Later() *Responder {
	m.later = true
	m.pending.Add(1)
	r := &Responder{pending: m.pending, lane: m.lane, stream: m.stream, answer: m.answer}
	switch {
	case m.lane != nil:
		m.lane.socket.Peer(m.number, &r.peer)
	case m.stream != nil:
		m.stream.Expect()
	}
	return r
}

// Responder takes one answer. Each must be used: the message counts as under way until then.
type Responder struct {
	sent    atomic.Bool
	pending *atomic.Int64
	lane    *lane
	peer    datagrams.Peer
	stream  *streams.Stream
	answer  chan []byte // with room for one
}

// Send hands over the answer, exactly once; nil is none. It never blocks, may be called from any goroutine, and owns
// reply from then on. After the server has ended it does nothing.
func (r *Responder) Send(reply []byte) {
	if !r.take() {
		return
	}
	if r.lane != nil && len(reply) > 0 {
		r.lane.socket.Send([]*datagrams.Peer{&r.peer}, [][]byte{reply})
	}
	r.hand(reply)
}

// take reports whether the answer is the first.
func (r *Responder) take() bool { return r.sent.CompareAndSwap(false, true) }

// hand gives the answer to where it waits for no datagram, and counts it.
func (r *Responder) hand(reply []byte) {
	switch {
	case r.stream != nil:
		r.stream.Reply(reply)
	case r.answer != nil:
		r.answer <- reply
	}
	r.pending.Add(-1)
}
