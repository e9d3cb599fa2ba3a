package dns

import (
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"dnsfleet/internal/dns/listen"
)

// outbox gathers the answers that upstreams' answers bring about, so that those of a burst leave together.
type outbox struct {
	mu     sync.Mutex // guards the following
	outbox listen.Outbox
}

func (o *outbox) add(to *listen.Responder, reply []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.outbox.Add(to, reply)
}

func (o *outbox) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.outbox.Flush()
}

// observer passes on what is told of exchanges. A fault of whoever listens costs no answer.
type observer struct {
	ExchangeObserver
	engine *Engine
}

// ObserveExchange see ExchangeObserver.
func (o observer) ObserveExchange(address string, d time.Duration, failed bool) {
	defer func() {
		if p := recover(); p != nil {
			o.engine.opts.Log.Error("panic of who observes exchanges", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	o.ExchangeObserver.ObserveExchange(address, d, failed)
}
