package streams

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"dnsfleet/internal/dns/listen/gate"
)

const (
	smallBuffer = 1 << 10 // what an idle connection holds for reading
	highWater   = 64 << 10
)

// Serve reads messages from conn, which is c or TLS over it, until the client goes, breaks a rule or is idle for too long, or
// the gate stops. Queries under way then are still answered.
func (srv *Server) Serve(c *gate.Conn, conn net.Conn) {
	s := &Stream{Conn: c, server: srv, transport: conn, changed: make(chan struct{}, 1)}
	if s.read() {
		s.drain()
	}
	s.end()
}

// read reports whether what is under way is to be answered.
func (s *Stream) read() bool {
	in := inbox{buffer: make([]byte, smallBuffer)}
	for {
		if !s.wait(&in) {
			return true
		}
		n, err := s.transport.Read(in.free())
		arrived := time.Now()
		if n > 0 {
			in.add(n, arrived)
			if more, answer := s.handle(&in, arrived); !more {
				return answer
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return in.length == 0
		case errors.Is(err, os.ErrDeadlineExceeded) && s.server.Gate.Stopping():
			return true
		case errors.Is(err, os.ErrDeadlineExceeded) && in.length == 0:
			if !s.pending() && time.Since(s.LastUse()) >= s.server.Gate.Idle() {
				return false
			}
		default:
			return false
		}
	}
}

// wait sets the time for what is to be read next: a byte now and then does not keep a connection. It reports false at
// the end.
func (s *Stream) wait(in *inbox) bool {
	deadline := in.since.Add(s.server.Limits.Message)
	if in.length == 0 {
		deadline = s.LastUse().Add(s.server.Gate.Idle())
		if now := time.Now(); deadline.Before(now) { // answers are under way
			deadline = now.Add(s.server.Gate.Idle())
		}
	}
	return s.transport.SetReadDeadline(deadline) == nil && !s.server.Gate.Stopping()
}

// handle takes all whole messages out of the buffer. It reports whether to read on, and if not, whether what is under way is to
// be answered before the connection is closed.
func (s *Stream) handle(in *inbox, arrived time.Time) (more, answer bool) {
	out := s.server.room()
	defer s.server.scratch.Put(out)
	for {
		raw, ok := in.next()
		if !ok {
			return false, s.flush()
		}
		if raw == nil {
			break
		}
		s.Touch()
		reply, later := s.server.Handler.Handle(s, raw, (*out)[:0], arrived)
		if !later && (len(reply) == 0 || !s.enqueue(reply, false)) {
			return false, s.flush()
		}
		if !s.holdBack() {
			return false, false
		}
	}
	in.compact(arrived)
	return s.flush(), false
}

// holdBack makes a client wait that sends faster than it reads, or than it is answered. It reports false once the
// connection is closed.
func (s *Stream) holdBack() bool {
	for s.waiting() > highWater || s.UnderWay() >= s.server.Limits.Pipelined {
		if !s.flush() {
			return false
		}
		if s.waiting() <= highWater && s.UnderWay() < s.server.Limits.Pipelined {
			break
		}
		select {
		case <-s.changed:
		case <-s.Closed():
			return false
		}
	}
	return true
}

// drain waits until all is answered and sent, or the time for that is over.
func (s *Stream) drain() {
	timer := time.NewTimer(s.server.Limits.Drain)
	defer timer.Stop()
	for s.pending() {
		select {
		case <-s.changed:
		case <-s.Closed():
			return
		case <-timer.C:
			return
		}
	}
}

// inbox is what was read and not handled yet.
type inbox struct {
	buffer     []byte
	start, end int       // of what was read, in the buffer
	length     int       // end-start
	since      time.Time // when the first byte of it came
}

// free is where to read to. It grows with what comes, not with what a client announces.
func (in *inbox) free() []byte {
	if in.end == len(in.buffer) {
		larger := make([]byte, min(2*len(in.buffer), 2*maxMessage))
		copy(larger, in.buffer[:in.end])
		in.buffer = larger
	}
	return in.buffer[in.end:]
}

func (in *inbox) add(n int, arrived time.Time) {
	if in.length == 0 {
		in.since = arrived
	}
	in.end += n
	in.length += n
}

// next is the next whole message, nil if there is none. It reports false for what is no message.
func (in *inbox) next() (raw []byte, ok bool) {
	if in.length < 2 {
		return nil, true
	}
	size := int(binary.BigEndian.Uint16(in.buffer[in.start:]))
	if size < headerSize {
		return nil, false
	}
	if in.length >= 5 && in.buffer[in.start+4]&0x80 != 0 {
		return nil, false // a response
	}
	if in.length < 2+size {
		return nil, true
	}
	raw = in.buffer[in.start+2 : in.start+2+size : in.start+2+size]
	in.start += 2 + size
	in.length -= 2 + size
	return raw, true
}

// compact moves what is left to the front, and gives a large buffer back.
func (in *inbox) compact(arrived time.Time) {
	if in.start == 0 {
		return
	}
	buffer := in.buffer
	if len(buffer) > 4*smallBuffer && in.length <= smallBuffer {
		buffer = make([]byte, 2*smallBuffer)
	}
	copy(buffer, in.buffer[in.start:in.end])
	in.buffer, in.start, in.end, in.since = buffer, 0, in.length, arrived
}
