package exchange

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"dnsfleet/internal/dns/upstream/wire"
)

// errStale says that a connection which had worked before went down before it answered.
var errStale = errors.New("connection went down")

// errFull says that others took the room on a connection between the choice of it and this query.
var errFull = errors.New("connection is full")

// bodyTime is how long a message may take whose length has come.
const bodyTime = 3 * time.Second

// conn is one connection of a Stream: one goroutine dials and reads, those who ask write.
type conn struct {
	stream *Stream
	ready  chan struct{} // closed when net is set, or the connection has failed
	cancel context.CancelFunc

	writing sync.Mutex // held while a query is written
	net     net.Conn   // set once, before ready is closed

	mu      sync.Mutex // guards the following
	pending map[uint16]*waiter
	frames  int  // messages that came
	retired bool // takes no more queries, and closes after the last
	err     error
}

type waiter struct {
	frame  []byte // the query as it is sent, behind its length
	id     uint16 // that the caller's query has
	result chan result
}

func (w *waiter) query() []byte { return w.frame[2:] }

type result struct {
	answer wire.Answer
	err    error
}

// load is how many wait, or too many if the connection takes no more.
func (c *conn) load() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.retired || c.err != nil {
		return maxPending
	}
	return len(c.pending)
}

// ask sends a query and waits for the answer to it.
func (c *conn) ask(ctx context.Context, q Query) (wire.Answer, error) {
	timer := time.NewTimer(time.Until(q.Deadline))
	defer timer.Stop()
	w, frames, err := c.enlist(q)
	if err != nil {
		return wire.Answer{}, err
	}
	defer c.leave(w)
	select {
	case <-c.ready:
	case <-timer.C:
		return wire.Answer{}, context.DeadlineExceeded
	case <-ctx.Done():
		return wire.Answer{}, ctx.Err()
	}
	if err := c.write(w, q); err != nil {
		return wire.Answer{}, err
	}
	select {
	case r := <-w.result:
		return r.answer, r.err
	case <-timer.C:
		c.unanswered(frames)
		return wire.Answer{}, context.DeadlineExceeded
	case <-ctx.Done():
		return wire.Answer{}, ctx.Err()
	}
}

// enlist gives the query an id that is free on this connection.
func (c *conn) enlist(q Query) (w *waiter, frames int, err error) {
	frame := make([]byte, 2, 2+len(q.Wire)+128)
	if c.stream.tls != nil {
		frame = wire.AppendPadded(frame, q.Wire)
	} else {
		frame = append(frame, q.Wire...)
	}
	binary.BigEndian.PutUint16(frame, uint16(len(frame)-2))
	w = &waiter{frame: frame, id: wire.ID(q.Wire), result: make(chan result, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, 0, c.err
	}
	if len(c.pending) >= maxPending {
		return nil, 0, errFull
	}
	id := c.stream.ids.uint16()
	for c.pending[id] != nil {
		id = c.stream.ids.uint16()
	}
	wire.SetID(w.query(), id)
	c.pending[id] = w
	return w, c.frames, nil
}

// leave ends the wait. The last one to leave a retired connection closes it.
func (c *conn) leave(w *waiter) {
	c.mu.Lock()
	if id := wire.ID(w.query()); c.pending[id] == w {
		delete(c.pending, id)
	}
	last := c.retired && len(c.pending) == 0
	c.mu.Unlock()
	if last {
		c.fail(errClosed)
	}
}

func (c *conn) write(w *waiter, q Query) error {
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if !q.Budget.Take() {
		return ErrBudget
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	_ = c.net.SetWriteDeadline(q.Deadline)
	_ = c.net.SetReadDeadline(time.Now().Add(c.stream.idle))
	if _, err := c.net.Write(w.frame); err != nil {
		c.fail(err) // half a query may be out
		return c.why()
	}
	return nil
}

// unanswered gives a connection up that has brought nothing since a query was sent that timed out.
func (c *conn) unanswered(frames int) {
	c.mu.Lock()
	silent := c.frames == frames
	c.mu.Unlock()
	if silent {
		c.retire()
	}
}

// retire lets no more queries in.
func (c *conn) retire() {
	c.mu.Lock()
	c.retired = true
	last := len(c.pending) == 0
	c.mu.Unlock()
	c.stream.forget(c)
	if last {
		c.fail(errClosed)
	}
}

// fail closes the connection and tells all who wait, once.
func (c *conn) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	if c.frames > 0 || errors.Is(err, errClosed) {
		c.err = fmt.Errorf("%w: %w", errStale, err)
	}
	for id, w := range c.pending {
		w.result <- result{err: c.err} // has room for one, and w is not found again
		delete(c.pending, id)
	}
	opened := c.net
	c.mu.Unlock()
	c.cancel()
	c.stream.forget(c)
	if opened != nil {
		_ = opened.Close()
	}
}

func (c *conn) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// run dials and reads until the connection ends.
func (c *conn) run(ctx context.Context) {
	defer c.cancel()
	opened, err := c.stream.dial(ctx)
	if err != nil {
		c.fail(err)
		close(c.ready)
		return
	}
	c.mu.Lock()
	c.net = opened
	failed := c.err != nil
	c.mu.Unlock()
	close(c.ready)
	if failed { // everybody has left meanwhile
		_ = opened.Close()
		return
	}
	c.fail(c.read())
}

// read hands out answers. Whatever is no answer to a query that waits is passed over, so many times in a row.
func (c *conn) read() error {
	reader := bufio.NewReaderSize(c.net, 2048)
	var length [2]byte
	for wrong := 0; wrong < maxWrong; {
		_ = c.net.SetReadDeadline(time.Now().Add(c.stream.idle))
		if _, err := io.ReadFull(reader, length[:]); err != nil {
			return err
		}
		size := int(binary.BigEndian.Uint16(length[:]))
		if size > reader.Buffered() {
			_ = c.net.SetReadDeadline(time.Now().Add(bodyTime))
		}
		body := make([]byte, size)
		if _, err := io.ReadFull(reader, body); err != nil {
			return err
		}
		if c.deliver(body) {
			wrong = 0
		} else {
			wrong++
		}
	}
	return ErrWrong
}

// deliver gives an answer to who waits for it.
func (c *conn) deliver(body []byte) bool {
	w := c.claim(body)
	if w == nil {
		return false
	}
	wire.SetID(body, w.id)
	a, err := wire.Read(body, w.query())
	if err == nil && a.Truncated {
		err = ErrTruncated
	}
	w.result <- result{a, err} // has room for one, and w is not found again
	return true
}

// claim takes who waits for the answer off the list; nil = nobody.
func (c *conn) claim(body []byte) *waiter {
	if len(body) < wire.Size {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.pending[wire.ID(body)]
	if w == nil || !wire.Answers(body, w.query()) {
		return nil
	}
	delete(c.pending, wire.ID(body))
	c.frames++
	return w
}
