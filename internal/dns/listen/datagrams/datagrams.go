// Package datagrams reads and writes UDP datagrams, on Linux many with one system call. It knows nothing of DNS.
package datagrams

import (
	"net/netip"

	"github.com/miekg/dns"
)

const (
	// Batch is how many datagrams are read or written at once, at most.
	Batch = 64
	// MaxSize is how much of a datagram is read; the rest of a longer one is cut off.
	MaxSize = 4096
)

// Datagram is one that was read. It is valid until the next Receive.
type Datagram struct {
	Data []byte     // may be changed
	From netip.Addr // unmapped, no zone; invalid for one that nobody sent, which is to be passed over
}

// Peer is where an answer goes, and the address it leaves from. It outlives the batch it was read with.
type Peer struct {
	name                [nameSize]byte
	control             [controlSize]byte
	nameLen, controlLen uint8
	session             *dns.SessionUDP // of a portable socket
}

const (
	nameSize    = 28 // of the larger address, IPv6
	controlSize = 40 // of the larger control message, in6_pktinfo
)

// Stats counts what did not reach a client, since the socket was opened.
type Stats struct {
	Dropped uint64 // by the kernel, because they were not read in time; 0 where it does not say
	Shed    uint64 // answers for which the kernel had no room
	Errors  uint64 // answers that could not be sent for another reason
}

// Socket is one UDP socket. Receive, Reply and Peer are for one goroutine, the reader; the other methods are safe for
// concurrent use.
type Socket interface {
	// Batch is how many datagrams Receive returns at most.
	Batch() int
	// Receive waits for at least one datagram. After Wake it returns what had arrived by then, and then net.ErrClosed.
	Receive() ([]Datagram, error)
	// Reply sends replies[i] to the sender of datagram i of the last Receive, nothing where it is empty. One that cannot
	// be sent does not keep back the others.
	Reply(replies [][]byte)
	// Peer stores the sender of datagram i of the last Receive.
	Peer(i int, p *Peer)
	// Send sends replies[i], which is not empty, to peers[i], without waiting for room. After Close it does nothing.
	Send(peers []*Peer, replies [][]byte)
	// Wake ends reading; sending goes on.
	Wake()
	// Stats are the counts so far.
	Stats() Stats
	// Close gives the socket back; the reader has ended by then. It may be called more than once.
	Close() error
}
