package exchange

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"dnsfleet/internal/dns/upstream/datagram"
	"dnsfleet/internal/dns/upstream/wire"
)

const (
	// maxDatagram is more than anybody is asked for; what fills it may have been cut and is asked for over TCP.
	maxDatagram = 4096
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
}

type buffer struct {
	out [wire.UDPSize]byte
	in  [maxDatagram]byte
}

// NewUDP makes a UDP to the target. It opens nothing.
func NewUDP(t Target) *UDP {
	u := &UDP{route: newRoute(t), tcp: NewStream(t, nil)}
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
	why := ErrTruncated
	switch {
	case err == nil && !a.Truncated:
		return a, nil
	case errors.Is(err, ErrWrong):
		why = err
	case err != nil:
		return a, err
	}
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
	for wrong := range maxWrong {
		n, err := s.Read(b.in[:])
		if err != nil && !errors.Is(err, io.EOF) { // which an empty datagram looks like
			u.route.failed(attempt)
			return wire.Answer{}, err
		}
		in := b.in[:n]
		if !wire.Answers(in, out) {
			continue
		}
		wire.SetID(in, wire.ID(q.Wire))
		if n == maxDatagram {
			return wire.Answer{Truncated: true}, nil
		}
		a, err := wire.Read(bytes.Clone(in), q.Wire)
		clean = err == nil && wrong == 0
		return a, err
	}
	return wire.Answer{}, ErrWrong
}
