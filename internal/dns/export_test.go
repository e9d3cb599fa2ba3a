package dns

import (
	"context"
	"net/netip"
	"time"

	"dnsfleet/internal/dns/listen"
)

// Fast is what becomes of a message on the fast way alone, Slow on the other alone. Neither may need an upstream: see
// Crowd.
func (e *Engine) Fast(raw []byte, client netip.Addr, protocol listen.Protocol) (reply []byte, done bool) {
	l := newLane(sharedLane)
	reply, done = e.fast(l, &listen.Message{Raw: raw, Client: client, Protocol: protocol, Arrived: time.Now()}, nil)
	e.record(l)
	return reply, done
}

// Slow see Fast.
func (e *Engine) Slow(raw []byte, client netip.Addr, protocol listen.Protocol) []byte {
	return e.slow(newLane(sharedLane), &listen.Message{Raw: raw, Client: client, Protocol: protocol, Arrived: time.Now()})
}

// Crowd takes all places for queries that wait, so that those that would have to are dropped.
func (e *Engine) Crowd() { e.waiting.Add(int64(e.opts.MaxInFlight)) }

// Reader answers messages as the reader of a socket does.
type Reader struct {
	engine *Engine
	lane   *lane
}

// NewReader makes a Reader with a lane of its own.
func (e *Engine) NewReader() *Reader { return &Reader{e, newLane(99)} }

// Handle answers a message into out.
func (r *Reader) Handle(m *listen.Message, out []byte) []byte { return r.engine.handle(r.lane, m, out) }

// BatchDone ends a batch.
func (r *Reader) BatchDone() { r.engine.record(r.lane) }

// Sweep sweeps the cache once.
func (e *Engine) Sweep(ctx context.Context) { e.sweep(ctx) }
