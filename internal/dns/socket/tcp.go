package socket

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	idleTimeout  = 10 * time.Second // between two queries
	readTimeout  = 5 * time.Second  // for one query, from its first byte
	writeTimeout = 5 * time.Second
	maxConns     = 1024 // then the one that was idle longest goes
	maxPipelined = 64   // queries of one connection under way; then it is read no further
)

func (ses *session) acceptTCP(ctx context.Context, l *net.TCPListener) error {
	for {
		conn, err := l.AcceptTCP()
		if ctx.Err() != nil {
			if conn != nil {
				_ = conn.Close()
			}
			return nil
		}
		if err != nil { // out of descriptors, or the client is gone
			pause(ctx)
			continue
		}
		c := &connection{TCPConn: conn}
		c.touch()
		ses.conns.add(c)
		ses.queries.Go(func() {
			defer ses.conns.remove(c)
			ses.readTCP(ctx, c)
		})
	}
}

// readTCP serves one connection: answers leave in the order in which they are ready (RFC 7766).
func (ses *session) readTCP(ctx context.Context, c *connection) {
	client := addrOf(c.RemoteAddr())
	var waits sync.WaitGroup
	defer waits.Wait()
	slots := make(chan struct{}, maxPipelined)
	var buffer []byte
	for {
		raw, err := c.readMessage(ctx, buffer)
		if err != nil {
			return
		}
		buffer = raw
		c.touch()
		reply, wait := ses.handler(raw, client, "tcp")
		if wait == nil {
			if len(reply) == 0 || !c.writeMessage(reply) {
				return // what gets no answer is no client of ours
			}
			continue
		}
		slots <- struct{}{}
		c.underWay.Add(1)
		waits.Go(func() {
			if reply := wait(ses.base); len(reply) > 0 {
				c.writeMessage(reply)
			}
			c.underWay.Add(-1)
			c.touch()
			<-slots
		})
	}
}

// connection is one TCP client.
type connection struct {
	*net.TCPConn
	lastUse  atomic.Int64 // Unix nanoseconds
	underWay atomic.Int32
	writing  sync.Mutex // one message at a time
}

func (c *connection) touch() { c.lastUse.Store(time.Now().UnixNano()) }

// readMessage reads one message into the buffer, which it replaces by a larger one if it must.
func (c *connection) readMessage(ctx context.Context, buffer []byte) ([]byte, error) {
	var size [2]byte
	if err := c.readBy(ctx, size[:1], idleTimeout); err != nil {
		return nil, err
	}
	if err := c.readBy(ctx, size[1:], readTimeout); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(size[:]))
	if cap(buffer) < n {
		buffer = make([]byte, n)
	}
	buffer = buffer[:n]
	return buffer, c.readBy(ctx, buffer, readTimeout)
}

// readBy fills b within the time, in all: a byte now and then does not keep a connection.
func (c *connection) readBy(ctx context.Context, b []byte, limit time.Duration) error {
	if err := c.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // the deadline that the end set may just have been overwritten
		return err
	}
	_, err := io.ReadFull(c.TCPConn, b)
	return err
}

func (c *connection) writeMessage(reply []byte) bool {
	framed := append(binary.BigEndian.AppendUint16(make([]byte, 0, len(reply)+2), uint16(len(reply))), reply...)
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.SetWriteDeadline(time.Now().Add(writeTimeout)) != nil {
		return false
	}
	_, err := c.Write(framed)
	return err == nil
}

// connections are the open ones. The zero value is ready.
type connections struct {
	mu   sync.Mutex // guards the following
	open map[*connection]struct{}
}

// add takes a connection in. When there are too many, the one that was idle longest is closed.
func (cs *connections) add(c *connection) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.open == nil {
		cs.open = map[*connection]struct{}{}
	}
	if len(cs.open) >= maxConns {
		if idle := cs.idlest(); idle != nil {
			_ = idle.Close() // its reader ends and removes it
			delete(cs.open, idle)
		} else {
			_ = c.Close() // all are waiting for answers
		}
	}
	cs.open[c] = struct{}{}
}

func (cs *connections) idlest() *connection {
	var idlest *connection
	for c := range cs.open {
		if c.underWay.Load() == 0 && (idlest == nil || c.lastUse.Load() < idlest.lastUse.Load()) {
			idlest = c
		}
	}
	return idlest
}

func (cs *connections) remove(c *connection) {
	_ = c.Close()
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.open, c)
}

// stopReading wakes the readers of all connections.
func (cs *connections) stopReading() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.open {
		_ = c.SetReadDeadline(time.Now())
	}
}

func (cs *connections) closeAll() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.open {
		_ = c.Close()
	}
}
