// Package loop exchanges datagrams without a goroutine, a timer or a system call of its own for each: a few threads own
// the sockets, hand what comes to whom it is for, and look every few milliseconds for those whose time is up. Each query
// leaves from a socket of its own, connected from a port that the kernel draws from its random generator, and gives the
// port back when it is answered. Where the kernel has io_uring and allows it, one call does the work of many.
//
// Only Linux has it; elsewhere nothing can be started.
package loop

import (
	"errors"
	"net/netip"
	"time"
)

// ErrClosed says that the loop ended before the answer came.
var ErrClosed = errors.New("resolver is shutting down")

// Tick is how late what happens at a time may happen.
const Tick = 10 * time.Millisecond

// MaxDatagram is what is read of a datagram; the rest is cut off.
const MaxDatagram = 4096

// Handler waits for the answer to one query. It is called by one thread, which others wait for: it must not block.
type Handler interface {
	// Receive is handed what came from whom the query was sent to, and returns whether that ends the exchange. If it
	// does, clean says that nothing more can be under way. msg may be changed, but not kept.
	Receive(msg []byte) (over, clean bool)
	// Slow is called once, if nothing has ended the exchange at Query.Slow.
	Slow()
	// Fail ends the exchange: with os.ErrDeadlineExceeded, ErrClosed or what the network says.
	Fail(err error)
}

// Query is a datagram that is answered by one.
type Query struct {
	To netip.AddrPort // without a zone
	// Wire must not change before the exchange has ended. Its first two bytes, the id, are not those of the query before
	// from the same socket, so that no late answer to that one is taken for an answer to this one.
	Wire     []byte
	Slow     time.Time // zero = never
	Deadline time.Time
	Handler  Handler
}

// Options are what a Loop is made of.
type Options struct {
	// Limit bounds the queries under way and the sockets; never more than a quarter of the files that the process may
	// open. 0 = DefaultLimit
	Limit int
	// Burst is called by each thread after it has called several Handlers in a row. It must not block. nil = nothing
	Burst func()
	// OneByOne makes a system call for everything, as is done where there is no io_uring.
	OneByOne bool
}

// DefaultLimit is the usual Options.Limit.
const DefaultLimit = 8192
