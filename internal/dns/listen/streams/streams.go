// Package streams serves DNS messages with a length before each, as over TCP (RFC 7766) and TLS (RFC 7858): clients may
// send queries without waiting, and answers leave in the order in which they are ready. What a message means is not known here.
package streams

import (
	"sync"
	"sync/atomic"
	"time"

	"dnsfleet/internal/dns/listen/gate"
)

const (
	headerSize = 12      // of a message; what is shorter is none
	maxMessage = 1 << 16 // with its length before it, rounded up
	scratch    = 1536    // room for an answer; larger ones are allocated
)

// Limits are those of one Server; all must be set.
type Limits struct {
	Message   time.Duration // for one message, from its first byte
	Write     time.Duration // for a client to take 64 KiB of answers
	Drain     time.Duration // for queries under way once the client sends no more
	Pipelined int           // queries of one connection under way; then it is read no further
	Queue     int           // bytes of answers that one connection has not taken; then it is closed
	Queues    int64         // the same of all connections
}

// Handler is told of messages.
type Handler interface {
	// Handle answers a message: reply, which may be appended to out, is sent at once. If later is set the answer comes by
	// Stream.Reply, announced by Stream.Expect before. With neither, no more is read, and the connection is closed when all else is answered. raw and out are not kept.
	Handle(s *Stream, raw, out []byte, arrived time.Time) (reply []byte, later bool)
}

// Server serves connections. The zero value of the unexported fields is ready.
type Server struct {
	Gate    *gate.Gate
	Handler Handler
	Limits  Limits

	scratch  sync.Pool    // of *[]byte
	queued   atomic.Int64 // bytes in all queues
	overflow atomic.Uint64
	slow     atomic.Uint64
}

// Stats are counts since the start.
type Stats struct {
	Overflows uint64 // connections closed because too many of their answers waited
	Timeouts  uint64 // connections closed because they took their answers too slowly
}

// Stats are the counts so far. It is safe for concurrent use.
func (srv *Server) Stats() Stats {
	return Stats{Overflows: srv.overflow.Load(), Timeouts: srv.slow.Load()}
}

func (srv *Server) room() *[]byte {
	if b, ok := srv.scratch.Get().(*[]byte); ok {
		return b
	}
	return new(make([]byte, 0, scratch))
}
