package listen

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"time"

	"dnsfleet/internal/dns/listen/gate"
	"dnsfleet/internal/dns/listen/streams"
)

// Options are what to listen on. Addresses are host:port; a host of 0.0.0.0 is IPv4 only, none or :: is both families.
type Options struct {
	UDPAndTCP, DoT, DoH []string
	// Certificate is asked at each handshake, so that a renewed one is used at once. DoT and DoH need it.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Limits      Limits
	// Portable reads UDP as systems other than Linux do.
	Portable bool
	// Log is told of nothing that clients can cause at will, above debug. nil = discard.
	Log *slog.Logger
}

// Limits bound what clients of TCP, DoT and DoH take, all together. 0 is the default.
type Limits struct {
	// Connections in all: 2048, but never more than a quarter of the descriptors that the process may have.
	Connections int
	// PerClient is connections of one address: 64. A loopback address, where proxies are, has half of all.
	PerClient int
	// Idle is how long a connection of TCP or DoT may be idle: 10 s, and less when connections run short.
	Idle time.Duration
	// Message is how long one message may take from its first byte, and a TLS handshake: 5 s.
	Message time.Duration
	// Write is how long a client may take for 64 KiB of answers: 5 s.
	Write time.Duration
}

const (
	defaultConnections = 2048
	defaultPerClient   = 64
	defaultIdle        = 10 * time.Second
	defaultMessage     = 5 * time.Second
	defaultWrite       = 5 * time.Second

	maxPipelined = 128       // queries of one connection under way
	maxQueue     = 512 << 10 // bytes of answers that one connection has not taken
	maxQueues    = 64 << 20  // the same of all
)

func (o *Options) complete() error {
	if len(o.DoT)+len(o.DoH) > 0 && o.Certificate == nil {
		return errors.New("listen for dns over tls or https: no certificate is given")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	l := &o.Limits
	l.Connections = positive(l.Connections, defaultConnections)
	if files := maxFiles(); files > 0 {
		l.Connections = max(1, min(l.Connections, files/4))
	}
	l.PerClient = min(positive(l.PerClient, defaultPerClient), l.Connections)
	l.Idle = positive(l.Idle, defaultIdle)
	l.Message = positive(l.Message, defaultMessage)
	l.Write = positive(l.Write, defaultWrite)
	return nil
}

func positive[T int | time.Duration](value, standard T) T {
	if value > 0 {
		return value
	}
	return standard
}

func (l Limits) gate() gate.Limits {
	return gate.Limits{
		Total: l.Connections, PerClient: l.PerClient, Loopback: max(l.PerClient, l.Connections/2), Idle: l.Idle, Handshake: l.Message,
	}
}

func (l Limits) streams() streams.Limits {
	return streams.Limits{
		Message: l.Message, Write: l.Write, Drain: l.Idle, Pipelined: maxPipelined, Queue: maxQueue, Queues: maxQueues,
	}
}
