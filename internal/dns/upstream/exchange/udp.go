package exchange

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"dnsfleet/internal/dns/upstream/datagram"
	"dnsfleet/internal/dns/upstream/loop"
	"dnsfleet/internal/dns/upstream/wire"
)

const (
	// maxDatagram is more than anybody is asked for; what fills it may have been cut and is asked for over TCP.
	maxDatagram = loop.MaxDatagram
	// maxSockets bounds the datagram sockets of one upstream.
	maxSockets = 4096
)

// UDP is DNS over UDP, and over TCP for answers that are cut short or when somebody is guessing ids.
type UDP struct {
	route   *route
	sockets datagram.Sockets
	open    atomic.Int32
	ids     random
	buffers sync.Pool
	tcp     *Stream
	loop    *loop.Loop // nil = none
}

type buffer struct {
	out [wire.UDPSize]byte
	in  [maxDatagram]byte
}

// NewUDP makes a UDP to the target, whose Start uses the loop, unless it is nil. It opens nothing.
func NewUDP(t Target, l *loop.Loop) *UDP {
	u := &UDP{route: newRoute(t), tcp: NewStream(t, nil), loop: l}
	u.buffers.New = func() any { return new(buffer) }
	return u
}

// Close see Exchanger.
func (u *UDP) Close() {
	u.sockets.Close()
	u.tcp.Close()
}

// Exchange see Exchanger. A truncated answer costs the Budget a second query.
func (u *UDP) Exchange(ctx context.Context, q Query) (wire.Answer, error) {
	a, err := u.ask(ctx, q)
	return u.Finish(ctx, q, a, err)
}

// Settled reports whether what a datagram brought is the outcome of an exchange, and Finish has nothing to do.
func Settled(a wire.Answer, err error) bool {
	if err != nil {
		return !errors.Is(err, ErrWrong)
	}
	return !a.Truncated
}

// Finish makes what a datagram brought the outcome of the exchange, over TCP if need be.
func (u *UDP) Finish(ctx context.Context, q Query, a wire.Answer, err error) (wire.Answer, error) {
	if Settled(a, err) {
		return a, err
	}
	why := cmp.Or(err, ErrTruncated)
	if a, err = u.tcp.Exchange(ctx, q); err != nil {
		return wire.Answer{}, fmt.Errorf("%w, and over tcp: %w", why, err)
	}
	return a, nil
}

// ask waits for the right answer until the deadline; others, which anybody can send, are passed over.
func (u *UDP) ask(ctx context.Context, q Query) (wire.Answer, error) {
	if len(q.Wire) > wire.UDPSize {
		return wire.Answer{}, wire.ErrMalformed
	}
	addr, attempt, err := u.route.udp(ctx)
	if err != nil {
		return wire.Answer{}, err
	}
	if !q.Budget.Take() {
		return wire.Answer{}, ErrBudget
	}
	if u.open.Add(1) > maxSockets {
		u.open.Add(-1)
		return wire.Answer{}, ErrBusy
	}
	defer u.open.Add(-1)
	s, err := u.sockets.Connect(addr)
	if err != nil {
		return wire.Answer{}, err
	}
	clean := false
	defer func() { u.sockets.Release(s, clean) }()
	if err := s.SetDeadline(q.Deadline); err != nil {
		return wire.Answer{}, err
	}
	if ctx.Done() != nil {
		defer context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Now()) })()
	}
	b := u.buffers.Get().(*buffer)
	defer u.buffers.Put(b)
	out := b.out[:copy(b.out[:], q.Wire)]
	wire.SetID(out, u.ids.uint16())
	if _, err := s.Write(out); err != nil {
		u.route.failed(attempt)
		return wire.Answer{}, err
	}
	w := waiting{out: out, query: q.Wire}
	for {
		n, err := s.Read(b.in[:])
		if err != nil && !errors.Is(err, io.EOF) { // which an empty datagram looks like
			u.route.failed(attempt)
			return wire.Answer{}, err
		}
		a, over, err := w.take(b.in[:n])
		if over {
			clean = w.clean(err)
			return a, err
		}
	}
}

// waiting is a query that was sent in a datagram.
type waiting struct {
	out   []byte // as it was sent
	query []byte
	wrong int // datagrams that came and were no answer
}

// take looks at a datagram, and is over with the right answer or too many wrong ones. It changes in, but does not keep
// it.
func (w *waiting) take(in []byte) (a wire.Answer, over bool, err error) {
	defer func() {
		if p := recover(); p != nil { // a datagram costs its query at most, not the process
			a, over, err = wire.Answer{}, true, fmt.Errorf("panic: %v", p)
		}
	}()
	if !wire.Answers(in, w.out) {
		w.wrong++
		if w.wrong == maxWrong {
			return a, true, ErrWrong
		}
		return a, false, nil
	}
	wire.SetID(in, wire.ID(w.query))
	if len(in) >= maxDatagram {
		return wire.Answer{Truncated: true}, true, nil
	}
	a, err = wire.Read(bytes.Clone(in), w.query)
	return a, true, err
}

// clean reports whether, at the end, nothing more can be under way.
func (w *waiting) clean(err error) bool { return err == nil && w.wrong == 0 }
