// Package gate lets clients' connections in: so many in all and so many of one client, and when there are too many,
// the one that has been idle longest goes. It knows nothing of what is said on them.
package gate

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Limits are those of one Gate; all must be set.
type Limits struct {
	Total     int           // connections in all
	PerClient int           // of one address
	Loopback  int           // of one loopback address: proxies of many clients are there
	Idle      time.Duration // how long a connection may be idle while there are few
	Handshake time.Duration // for a TLS handshake
}

// Stats are counts since the start, but for Open.
type Stats struct {
	Open       uint64 // now
	Accepted   uint64
	Refused    uint64 // because there were too many that were all busy
	Evicted    uint64 // to make room for another one
	Handshakes uint64 // that failed
	Accepts    uint64 // that failed, such as for want of descriptors
	Panics     uint64
}

// Gate is the connections of all stream listeners of one server. All methods are safe for concurrent use.
type Gate struct {
	limits Limits
	log    *slog.Logger
	start  time.Time

	handshakes chan struct{} // one for each handshake that computes
	stopping   chan struct{}
	serving    sync.WaitGroup

	accepted, refused, evicted, failedHandshakes, failedAccepts, panics atomic.Uint64

	open atomic.Int64 // connections that occupy a place

	mu      sync.Mutex // guards the following
	clients map[netip.Addr]map[*Conn]struct{}
}

// New makes a Gate. It starts nothing.
func New(limits Limits, log *slog.Logger) *Gate {
	return &Gate{
		limits: limits, log: log, start: time.Now(),
		handshakes: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), // the other cores answer
		stopping:   make(chan struct{}),
		clients:    map[netip.Addr]map[*Conn]struct{}{},
	}
}

// Accept accepts from l until Stop, and serves each connection on a goroutine of its own; when serve returns or panics
// it is closed. Faults of accepting are waited out.
func (g *Gate) Accept(l net.Listener, serve func(*Conn)) {
	const shortest, longest = 5 * time.Millisecond, time.Second
	wait := shortest
	for {
		conn, err := l.Accept()
		if g.Stopping() {
			if err == nil {
				_ = conn.Close()
			}
			return
		}
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			g.failedAccepts.Add(1)
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
				g.makeRoom()
			}
			g.pause(wait)
			wait = min(2*wait, longest)
			continue
		}
		wait = shortest
		g.serve(conn, serve)
	}
}

func (g *Gate) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-g.stopping:
	case <-timer.C:
	}
}

func (g *Gate) serve(conn net.Conn, serve func(*Conn)) {
	c := &Conn{Conn: conn, gate: g, client: clientOf(conn), closed: make(chan struct{})}
	c.Touch()
	if !g.admit(c) {
		g.refused.Add(1)
		_ = conn.Close()
		return
	}
	g.accepted.Add(1)
	go func() {
		defer g.serving.Done()
		defer g.leave(c)
		defer func() {
			if fault := recover(); fault != nil {
				g.panics.Add(1)
				g.log.Error("serving a connection panicked", "fault", fault, "stack", stack())
			}
		}()
		serve(c)
	}()
}

func stack() string {
	b := make([]byte, 8<<10)
	return string(b[:runtime.Stack(b, false)])
}

// admit finds a place for c, and reports whether there is one. Then c counts as served: nothing is added once Wait waits.
func (g *Gate) admit(c *Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.Stopping() {
		return false
	}
	if own := g.clients[c.client]; len(own) >= g.perClient(c.client) {
		victim := idlest(own)
		if victim.Busy() {
			return false
		}
		g.evict(victim)
	} else if g.open.Load() >= int64(g.limits.Total) {
		victim, of := g.victim()
		if victim.Busy() && of <= len(own)+1 {
			return false // nobody has more than this client would have
		}
		g.evict(victim)
	}
	own := g.clients[c.client]
	if own == nil {
		own = map[*Conn]struct{}{}
		g.clients[c.client] = own
	}
	own[c] = struct{}{}
	g.open.Add(1)
	g.serving.Add(1)
	return true
}

func (g *Gate) perClient(client netip.Addr) int {
	if client.IsLoopback() {
		return g.limits.Loopback
	}
	return g.limits.PerClient
}

// victim is the connection that was idle longest of the client that has most, and how many that client has.
func (g *Gate) victim() (victim *Conn, of int) {
	for _, own := range g.clients {
		if len(own) < of {
			continue
		}
		if candidate := idlest(own); len(own) > of || before(candidate, victim) {
			victim, of = candidate, len(own)
		}
	}
	return victim, of
}

// idlest is nil only for no connections.
func idlest(conns map[*Conn]struct{}) *Conn {
	var found *Conn
	for c := range conns {
		if found == nil || before(c, found) {
			found = c
		}
	}
	return found
}

// before reports whether a goes rather than b: it has nothing under way, or nothing has happened on it for longer.
func before(a, b *Conn) bool {
	if a.Busy() != b.Busy() {
		return !a.Busy()
	}
	return a.lastUse.Load() < b.lastUse.Load()
}

// evict takes the place of c at once; its goroutine ends soon.
func (g *Gate) evict(c *Conn) {
	g.evicted.Add(1)
	_ = c.Close()
	g.remove(c)
}

// makeRoom gives one descriptor back, if there is an idle connection.
func (g *Gate) makeRoom() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if victim, _ := g.victim(); victim != nil && !victim.Busy() {
		g.evict(victim)
	}
}

// remove may be called more than once.
func (g *Gate) remove(c *Conn) {
	own := g.clients[c.client]
	if _, ok := own[c]; !ok {
		return
	}
	delete(own, c)
	if len(own) == 0 {
		delete(g.clients, c.client)
	}
	g.open.Add(-1)
}

func (g *Gate) leave(c *Conn) {
	_ = c.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.remove(c)
}

// Idle is how long a connection may be idle as things are: with more than half of the places taken it becomes shorter,
// down to a tenth (RFC 7766, section 6.2.3).
func (g *Gate) Idle() time.Duration {
	free := 1 - float64(g.open.Load())/float64(g.limits.Total)
	return time.Duration(float64(g.limits.Idle) * min(1, max(0.1, 2*free)))
}

// Stop ends accepting, once the listeners are closed, and wakes all that read, unless they said that they stop
// themselves: they find Stopping set.
func (g *Gate) Stop() {
	g.mu.Lock()
	if !g.Stopping() {
		close(g.stopping)
	}
	g.mu.Unlock()
	g.each(func(c *Conn) {
		if !c.stopsItself.Load() {
			_ = c.SetReadDeadline(time.Now())
		}
	})
}

// Stopping reports whether Stop was called. Whoever sets a read deadline asks afterwards, so as not to undo Stop's.
func (g *Gate) Stopping() bool {
	select {
	case <-g.stopping:
		return true
	default:
		return false
	}
}

// Wait returns when all connections are served, after Stop. When ctx ends it closes them.
func (g *Gate) Wait(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		g.serving.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		g.each(func(c *Conn) { _ = c.Close() })
		<-done
	}
}

func (g *Gate) each(do func(*Conn)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, own := range g.clients {
		for c := range own {
			do(c)
		}
	}
}

// Stats are the counts so far.
func (g *Gate) Stats() Stats {
	return Stats{
		Open: uint64(max(0, g.open.Load())), Accepted: g.accepted.Load(), Refused: g.refused.Load(), Evicted: g.evicted.Load(),
		Handshakes: g.failedHandshakes.Load(), Accepts: g.failedAccepts.Load(), Panics: g.panics.Load(),
	}
}

// Go runs f on a goroutine that Wait waits for. It is for what serves a connection, while that is open.
func (g *Gate) Go(f func()) { g.serving.Go(f) }
