package gate

import (
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Conn is a connection that was let in. Closing it never blocks, and may be done more than once.
type Conn struct {
	net.Conn
	gate   *Gate
	client netip.Addr

	lastUse  atomic.Int64 // since the gate's start
	underWay atomic.Int64

	closeOnce   sync.Once
	closed      chan struct{}
	stopsItself atomic.Bool

	// Of the goroutine that shakes hands; later nobody writes them.
	shaking, computing bool
}

func clientOf(conn net.Conn) netip.Addr {
	if addr, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return addr.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// Client is the address at the other end, unmapped, without a zone.
func (c *Conn) Client() netip.Addr { return c.client }

// Touch says that something happened, such as that a whole message came.
func (c *Conn) Touch() { c.lastUse.Store(int64(time.Since(c.gate.start))) }

// LastUse is when something happened last.
func (c *Conn) LastUse() time.Time { return c.gate.start.Add(time.Duration(c.lastUse.Load())) }

// StopsItself says that Stop is not to end reading: whoever serves c does.
func (c *Conn) StopsItself() { c.stopsItself.Store(true) }

// Begin says that a query is under way; such a connection is not idle. End ends it.
func (c *Conn) Begin() { c.underWay.Add(1) }

// End says that a query is answered.
func (c *Conn) End() {
	c.Touch()
	c.underWay.Add(-1)
}

// Busy reports whether queries are under way.
func (c *Conn) Busy() bool { return c.underWay.Load() > 0 }

// UnderWay is how many queries are.
func (c *Conn) UnderWay() int { return int(c.underWay.Load()) }

// Closed is closed with the connection.
func (c *Conn) Closed() <-chan struct{} { return c.closed }

// Close closes the connection, whoever reads or writes.
func (c *Conn) Close() error {
	err := net.ErrClosed
	c.closeOnce.Do(func() {
		err = c.Conn.Close()
		close(c.closed)
	})
	return err
}

// Handshake is TLS over c. Only so many handshakes compute at once that other work goes on; one that waits for its
// client does not keep others from computing.
func (c *Conn) Handshake(config *tls.Config) (*tls.Conn, error) {
	conn := tls.Server(c, config)
	err := c.handshake(conn)
	if err != nil {
		c.gate.failedHandshakes.Add(1)
		return nil, err
	}
	return conn, nil
}

func (c *Conn) handshake(conn *tls.Conn) error {
	if err := c.SetDeadline(time.Now().Add(c.gate.limits.Handshake)); err != nil {
		return err
	}
	if c.gate.Stopping() {
		return net.ErrClosed
	}
	c.shaking = true
	defer c.rest()
	if err := c.compute(); err != nil {
		return err
	}
	if err := conn.Handshake(); err != nil { //nolint:noctx // the deadline bounds it, and Close ends it
		return err
	}
	c.shaking = false
	return c.SetDeadline(time.Time{})
}

// Read is net.Conn's. A handshake computes between its reads.
func (c *Conn) Read(b []byte) (int, error) {
	if !c.shaking {
		return c.Conn.Read(b)
	}
	c.rest()
	n, err := c.Conn.Read(b)
	if err == nil {
		err = c.compute()
	}
	return n, err
}

func (c *Conn) compute() error {
	select {
	case c.gate.handshakes <- struct{}{}:
		c.computing = true
		return nil
	case <-c.closed:
		return net.ErrClosed
	}
}

func (c *Conn) rest() {
	if c.computing {
		c.computing = false
		<-c.gate.handshakes
	}
}
