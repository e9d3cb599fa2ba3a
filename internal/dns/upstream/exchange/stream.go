package exchange

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"dnsfleet/internal/dns/upstream/wire"
)

const (
	// maxConns bounds the connections to one upstream.
	maxConns = 4
	// crowded is how many queries share a connection before another one is opened.
	crowded = 64
	// maxPending bounds the queries that wait on one connection.
	maxPending = 1024
	// idleTime is how long a connection without queries is kept (RFC 7766, section 6.2.3).
	idleTime = 10 * time.Second
)

// Stream is DNS over TCP (RFC 7766), or over TLS (RFC 7858). Connections are kept, queries share them, and answers come
// in any order. A query that a connection of before takes down with it is sent once more over a new one.
type Stream struct {
	route *route
	tls   *tls.Config // nil = plain TCP
	ids   random
	idle  time.Duration

	mu     sync.Mutex // guards the following
	conns  []*conn
	closed bool
}

// NewStream makes a Stream to the target, over TLS with the config, which tells the name to verify, or over plain TCP
// if it is nil. It opens nothing.
func NewStream(t Target, config *tls.Config) *Stream {
	return &Stream{route: newRoute(t), tls: config, idle: idleTime}
}

// SetIdle changes how long a connection without queries is kept, before the first Exchange.
func (s *Stream) SetIdle(d time.Duration) { s.idle = d }

// Exchange see Exchanger.
func (s *Stream) Exchange(ctx context.Context, q Query) (wire.Answer, error) {
	again := false
	for {
		c, err := s.pick() //nolint:contextcheck // a connection outlives the query that it is opened for
		if err != nil {
			return wire.Answer{}, err
		}
		answer, err := c.ask(ctx, q)
		switch {
		case errors.Is(err, errFull): // pick finds room elsewhere, or none
		case errors.Is(err, errStale) && !again:
			again = true
		default:
			return answer, err
		}
	}
}

// Close see Exchanger.
func (s *Stream) Close() {
	s.mu.Lock()
	s.closed = true
	conns := append([]*conn(nil), s.conns...)
	s.mu.Unlock()
	for _, c := range conns {
		c.retire()
	}
}

// pick returns the connection that has least to do, or a new one, which is not dialed yet.
func (s *Stream) pick() (*conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var best *conn
	least := maxPending
	for _, c := range s.conns {
		if n := c.load(); n < least {
			best, least = c, n
		}
	}
	if best != nil && (least < crowded || len(s.conns) >= maxConns) {
		return best, nil
	}
	if len(s.conns) >= maxConns {
		return nil, ErrBusy
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	c := &conn{stream: s, ready: make(chan struct{}), cancel: cancel, pending: map[uint16]*waiter{}, retired: s.closed}
	if !s.closed {
		s.conns = append(s.conns, c)
	}
	go c.run(ctx)
	return c, nil
}

func (s *Stream) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, other := range s.conns {
		if other == c {
			s.conns = append(s.conns[:i], s.conns[i+1:]...)
			return
		}
	}
}

// dial opens a connection, and shakes hands.
func (s *Stream) dial(ctx context.Context) (net.Conn, error) {
	raw, err := s.route.connect(ctx, "tcp")
	if err != nil || s.tls == nil {
		return raw, err
	}
	secure := tls.Client(raw, s.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("tls handshake: %w", err)
	}
	return secure, nil
}
