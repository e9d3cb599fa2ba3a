// Package exchange sends a query to one upstream and waits for the answer to it: over UDP with TCP for what does not
// fit, TCP, DNS over TLS (RFC 7858) and DNS over HTTPS (RFC 8484). Every query leaves with an id of its own from the
// system's random source, over UDP also from a port of its own. What comes back and does not answer the query is passed
// over while the right answer is awaited, so often and no more.
package exchange

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"dnsfleet/internal/dns/upstream/wire"
)

// Errors of an exchange, beside those of the network.
var (
	// ErrBudget says that the query has been sent as often as it may be.
	ErrBudget = errors.New("the query was sent as often as it may be")
	// ErrWrong says that too much came that was no answer to the query.
	ErrWrong = errors.New("too many answers to something else")
	// ErrBusy says that as many queries are under way to the upstream as may be.
	ErrBusy = errors.New("too many queries under way")
	// ErrTruncated says that an answer was cut short where nothing has to be.
	ErrTruncated = errors.New("answer was truncated")
	errClosed    = errors.New("connection closed")
)

// maxWrong bounds what is passed over while one answer is awaited.
const maxWrong = 20

// Budget is how often a query may still be sent, over all upstreams and transports. It is safe for concurrent use.
type Budget struct{ left atomic.Int32 }

// NewBudget is a Budget of n.
func NewBudget(n int) *Budget {
	b := new(Budget)
	b.Set(n)
	return b
}

// Set makes it a Budget of n.
func (b *Budget) Set(n int) { b.left.Store(int32(n)) }

// Take takes one, and reports whether there was one.
func (b *Budget) Take() bool { return b.left.Add(-1) >= 0 }

// giveBack undoes a Take.
func (b *Budget) giveBack() { b.left.Add(1) }

// Query is one question on its way to an upstream.
type Query struct {
	// Wire is a message that wire.QuestionEnd takes. It is not changed; its id is the answer's, but goes to nobody else.
	Wire     []byte
	Deadline time.Time
	Budget   *Budget
}

// Exchanger is one way to one upstream. It is safe for concurrent use.
type Exchanger interface {
	// Exchange returns an answer that matches the query and is whole, with any rcode, at the latest at the deadline. Its
	// Wire is the caller's.
	Exchange(ctx context.Context, q Query) (wire.Answer, error)
	// Close gives up what is kept for later queries. What is under way comes to its end, and Exchange still works, but
	// keeps nothing any more.
	Close()
}

// Timeout reports whether an exchange ended without an answer because time was up.
func Timeout(err error) bool {
	var netErr net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &netErr) && netErr.Timeout()
}

// random hands out 16-bit numbers from the system's random source. The zero value is ready.
type random struct{ pool sync.Pool }

type drawn struct {
	bytes [256]byte
	used  int
}

func (r *random) uint16() uint16 {
	d, _ := r.pool.Get().(*drawn)
	if d == nil || d.used == len(d.bytes) {
		d = new(drawn)
		_, _ = rand.Read(d.bytes[:]) // never fails
	}
	n := uint16(d.bytes[d.used])<<8 | uint16(d.bytes[d.used+1])
	d.bytes[d.used], d.bytes[d.used+1] = 0, 0
	d.used += 2
	r.pool.Put(d)
	return n
}
