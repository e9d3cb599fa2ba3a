package streams

import (
	"encoding/binary"
	"errors"
	"math"
	"net"
	"os"
	"sync"
	"time"

	"dnsfleet/internal/dns/listen/gate"
)

const (
	chunk     = 64 << 10 // bytes of one write
	keptQueue = 4 << 10  // what a connection keeps of its queue's memory
)

// Stream is one connection, while it is served. Expect and Reply are safe for concurrent use, also after its end.
type Stream struct {
	*gate.Conn
	server    *Server
	transport net.Conn
	changed   chan struct{} // has an element when less is under way or queued than before

	mu      sync.Mutex // guards the following
	queue   []byte     // framed answers that nobody writes yet
	spare   []byte     // memory for the next queue
	held    int        // bytes of queue, and of what is being written
	writing bool       // somebody writes
	lost    bool       // the client does not read: nothing more is queued
	ended   bool
}

// Expect announces an answer by Reply.
func (s *Stream) Expect() { s.Begin() }

// Reply hands over an answer that was expected, nil for none. It never blocks and copies what it needs.
func (s *Stream) Reply(reply []byte) {
	if len(reply) > 0 {
		s.enqueue(reply, true)
	}
	s.End()
	s.notify()
}

func (s *Stream) notify() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// enqueue adds an answer, and starts somebody who writes if it is asked to and nobody does. It reports false if the connection is
// closed, perhaps because its client does not read.
func (s *Stream) enqueue(reply []byte, start bool) bool {
	if len(reply) > math.MaxUint16 {
		return false
	}
	size := 2 + len(reply)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.lost {
		return false
	}
	if total := s.server.queued.Add(int64(size)); total > s.server.Limits.Queues || s.held+size > s.server.Limits.Queue {
		s.server.queued.Add(-int64(size))
		s.server.overflow.Add(1)
		s.lost = true
		_ = s.Close()
		return false
	}
	s.held += size
	s.queue = append(binary.BigEndian.AppendUint16(s.queue, uint16(len(reply))), reply...)
	if start && !s.writing {
		s.writing = true
		s.server.Gate.Go(s.write) // the reader is still there, so the gate has not been waited for
	}
	return true
}

// flush writes what is queued, unless somebody does. It reports false once the connection is closed.
func (s *Stream) flush() bool {
	s.mu.Lock()
	mine := !s.writing && len(s.queue) > 0
	s.writing = s.writing || mine
	s.mu.Unlock()
	if mine {
		s.write()
	}
	select {
	case <-s.Closed():
		return false
	default:
		return true
	}
}

// write writes until the queue is empty. Only one goroutine does at a time.
func (s *Stream) write() {
	defer s.notify()
	for {
		s.mu.Lock()
		batch := s.queue
		if len(batch) == 0 || s.ended {
			s.writing = false
			s.mu.Unlock()
			return
		}
		s.queue, s.spare = s.spare, nil
		s.mu.Unlock()

		err := s.send(batch)

		s.mu.Lock()
		s.release(len(batch))
		if errors.Is(err, os.ErrDeadlineExceeded) && !s.lost {
			s.server.slow.Add(1)
			s.lost = true
		}
		if cap(batch) <= keptQueue {
			s.spare = batch[:0]
		}
		s.mu.Unlock()
		if err != nil {
			_ = s.Close()
			return // and still counts as writing: nobody else is to
		}
	}
}

func (s *Stream) send(batch []byte) error {
	for len(batch) > 0 {
		n := min(chunk, len(batch))
		if err := s.transport.SetWriteDeadline(time.Now().Add(s.server.Limits.Write)); err != nil {
			return err
		}
		if _, err := s.transport.Write(batch[:n]); err != nil {
			return err
		}
		batch = batch[n:]
	}
	return nil
}

// release gives n bytes back to the bounds.
func (s *Stream) release(n int) {
	n = min(n, s.held) // the end has released all
	s.held -= n
	s.server.queued.Add(-int64(n))
}

// waiting is the bytes of answers that the client has not taken.
func (s *Stream) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// pending reports whether answers are to come or to be written.
func (s *Stream) pending() bool { return s.UnderWay() > 0 || s.waiting() > 0 }

// end closes the connection for good: late answers are dropped.
func (s *Stream) end() {
	s.mu.Lock()
	s.ended = true
	s.queue, s.spare = nil, nil
	s.release(s.held)
	s.mu.Unlock()
	if s.transport != net.Conn(s.Conn) {
		select {
		case <-s.Closed():
		default:
			_ = s.transport.SetWriteDeadline(time.Now().Add(s.server.Limits.Write))
			_ = s.transport.Close() // says goodbye, which TLS clients wait for
		}
	}
	_ = s.Close()
}
