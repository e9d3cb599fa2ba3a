// Package dns is the engine: sockets, then acceptance, local records, rules, cache, upstreams, one straight way, and
// one answer, one event and one write for each query.
//
// A query is resolved in this order:
//  1. a client that asks more than the policy allows is not answered, or told to come over TCP;
//  2. a client outside Options.AllowClients is refused;
//  3. what is no query that is served gets FORMERR, NOTIMP, BADVERS or REFUSED;
//  4. without a policy the answer is SERVFAIL with EDE 14;
//  5. local records and special-use names answer;
//  6. rules block or rewrite, unless blocking is paused;
//  7. ANY is answered with next to nothing (RFC 8482);
//  8. the cache answers;
//  9. an upstream answers, once for all who ask the same at the same time; if none does, an expired answer is served;
//  10. rules block what an answer leads to or holds: targets of aliases, and addresses; and a public name that leads to a
//     private address is blocked.
//
// Most queries are answered, or sent on, as the bytes that came (fast.go, forward.go); whatever is out of the ordinary goes
// by way of package message (handle.go, resolve.go). Both mean the same.
package dns

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"dnsfleet/internal/dns/cache"
	"dnsfleet/internal/dns/cache/shared"
	"dnsfleet/internal/dns/cookie"
	"dnsfleet/internal/dns/flight"
	"dnsfleet/internal/dns/listen"
	"dnsfleet/internal/dns/lists"
	"dnsfleet/internal/dns/refresh"
	"dnsfleet/internal/dns/upstream"
	"dnsfleet/internal/fleet"
)

// Recorder takes one event for each query, right before its answer is written. It must not block. A lane above 0 is used by
// one reader at a time, lane 0 by all others. The event and what its name lies in are only lent until Record returns.
type Recorder interface {
	Record(lane int, e *fleet.QueryEvent)
}

// ExchangeObserver is told of every exchange with an upstream. It must not block.
type ExchangeObserver interface {
	ObserveExchange(address string, d time.Duration, failed bool)
}

// UpstreamState is how one upstream is; a row of GET /upstreams.
type UpstreamState = upstream.State

// defaultInFlight bounds how many queries wait for upstreams at once. Each costs about 16 KiB.
const defaultInFlight = 4096

// Options are what an Engine is made of. The zero value of each is usable.
type Options struct {
	// Listen are host:port addresses for UDP and TCP; a host may be empty. None, or "off", serves no DNS.
	Listen []string
	// AllowClients are who is answered; none means DefaultAllowClients.
	AllowClients []netip.Prefix
	// DoT and DoH are host:port addresses for DNS over TLS and HTTPS, which need a Certificate. None, or "off", serves none.
	DoT, DoH []string
	// Certificate is asked for each handshake.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// DataDir is where the last good copies of lists, and of the cache, are kept (in directories of their own); "" keeps none.
	DataDir string
	// SharedCache is the cache that instances share; nil = none. The Engine runs it.
	SharedCache *shared.Cache
	// DialContext reaches upstreams and list sources by name. nil lets the system resolve names.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	// Recorder takes every query's event; nil = nobody.
	Recorder Recorder
	// UpstreamCAs are whom DoT and DoH upstreams are verified by; nil = the system's.
	UpstreamCAs *x509.CertPool
	// Exchanges is told of upstream exchanges; nil = nobody.
	Exchanges ExchangeObserver
	// MaxInFlight bounds the queries that wait for upstreams; what comes on top is dropped. 0 = 4096.
	MaxInFlight int
	// Log is never told of single queries above debug. nil = discard.
	Log *slog.Logger
	// Now is the clock of TTLs, pauses and events. nil = time.Now.
	Now func() time.Time
}

// Engine answers DNS by the policy that was applied last. All methods are safe for concurrent use.
type Engine struct {
	opts  Options
	lists *lists.Manager
	cache *cache.Cache
	pause pauseState

	upstreams *upstream.Pool

	ownClock bool         // Options.Now is not the machine's
	waiting  atomic.Int64 // queries that wait for an upstream
	flights  *flight.Group[*flown]
	outbox   outbox
	replies  sync.Pool // of *replying
	sweeps   refresh.History
	cookies  *cookie.Jar
	loading  sync.WaitGroup // of the snapshot

	lanes    []*lane // by their number; the first is none. Set by Bind
	lanePool sync.Pool

	generations atomic.Uint64
	state       atomic.Pointer[state] // nil before the first policy

	mu     sync.Mutex     // guards the following, and orders changes of state
	server *listen.Server // nil = nothing is bound
}

// New makes an Engine. It starts nothing and binds nothing.
func New(o Options) (*Engine, error) {
	for what, list := range map[string]*[]string{"": &o.Listen, "DoT ": &o.DoT, "DoH ": &o.DoH} {
		addresses, err := listenAddresses(*list)
		if err != nil {
			return nil, fmt.Errorf("%w: %slisten address %w", fleet.ErrInvalid, what, err)
		}
		*list = addresses
	}
	if len(o.DoT)+len(o.DoH) > 0 && o.Certificate == nil {
		return nil, fmt.Errorf("%w: DNS over TLS and HTTPS need a certificate", fleet.ErrInvalid)
	}
	if len(o.AllowClients) == 0 {
		o.AllowClients = DefaultAllowClients()
	}
	if o.DialContext == nil {
		o.DialContext = new(net.Dialer).DialContext
	}
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = defaultInFlight
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	ownClock := o.Now != nil
	if !ownClock {
		o.Now = time.Now
	}
	if o.Recorder == nil {
		o.Recorder = noRecorder{}
	}
	e := &Engine{
		opts: o, cache: cache.New(o.Now), ownClock: ownClock, flights: flight.New[*flown](), cookies: cookie.New(), lanes: []*lane{nil},
	}
	asking := upstream.Options{Dial: o.DialContext, RootCAs: o.UpstreamCAs, Now: o.Now, Burst: e.outbox.flush}
	if o.Exchanges != nil {
		asking.Observer = observer{o.Exchanges, e}
	}
	e.upstreams = upstream.NewPool(asking)
	dir := ""
	if o.DataDir != "" {
		dir = filepath.Join(o.DataDir, "lists")
	}
	e.lists = lists.New(lists.Options{
		Dir: dir, Client: listClient(o.DialContext), Changed: e.rebuildRules, Log: o.Log, Now: o.Now,
	})
	return e, nil
}

type noRecorder struct{}

// Record see Recorder.
func (noRecorder) Record(int, *fleet.QueryEvent) {}

// listenAddresses checks addresses and leaves out what listens nowhere.
func listenAddresses(list []string) ([]string, error) {
	addresses := make([]string, 0, len(list))
	for _, address := range list {
		address = strings.TrimSpace(address)
		if address == "" || address == "off" {
			continue
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			return nil, fmt.Errorf("%q is not host:port, :port or off", address)
		}
		addresses = append(addresses, address)
	}
	return addresses, nil
}

// listClient has no time-out of its own: lists bounds each fetch, and a large list over a slow line may take minutes.
func listClient(dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: dial, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second, MaxIdleConns: 4, IdleConnTimeout: 30 * time.Second,
	}}
}

// Bind binds the sockets, all or none. Port 0 takes a free port. The error names the address that cannot be had, and for
// port 53 what is likely in the way. Until Run, the kernel keeps the queries that come in.
func (e *Engine) Bind(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server != nil {
		return errors.New("bind dns: already bound")
	}
	server, err := listen.Bind(ctx, listen.Options{
		UDPAndTCP: e.opts.Listen, DoT: e.opts.DoT, DoH: e.opts.DoH, Certificate: e.opts.Certificate, Log: e.opts.Log,
	})
	if err != nil {
		return err
	}
	e.server = server
	for id := len(e.lanes); id < server.Lanes(); id++ {
		e.lanes = append(e.lanes, newLane(id))
	}
	return nil
}

// Addrs are the bound addresses as host:port, each for UDP and TCP, in the order of Options.Listen; empty before Bind.
func (e *Engine) Addrs() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.addrs()
}

// DoTAddrs and DoHAddrs are the same for DNS over TLS and over HTTPS.
func (e *Engine) DoTAddrs() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server == nil {
		return []string{}
	}
	return e.server.DoTAddrs()
}

// DoHAddrs see DoTAddrs.
func (e *Engine) DoHAddrs() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server == nil {
		return []string{}
	}
	return e.server.DoHAddrs()
}

func (e *Engine) addrs() []string {
	if e.server == nil {
		return []string{}
	}
	return e.server.Addrs()
}

// Close gives bound sockets back, for a start that ends before Run, which does so itself.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server == nil {
		return nil
	}
	return e.server.Close()
}

// Run serves what Bind has bound and keeps the lists fresh, until ctx ends. Then it reads no more, finishes the
// queries under way within two seconds and closes the sockets. With nothing to listen on it only keeps the lists.
func (e *Engine) Run(ctx context.Context) error {
	e.mu.Lock()
	server := e.server
	e.mu.Unlock()
	if server == nil && len(e.opts.Listen)+len(e.opts.DoT)+len(e.opts.DoH) > 0 {
		return errors.New("serve dns: not bound")
	}
	// Queries under way when ctx ends are finished, so upstreams end after the listeners.
	asking, stopAsking := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAsking()
	upstreams := make(chan error, 1)
	go func() { upstreams <- e.upstreams.Run(asking) }()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return e.lists.Run(ctx) })
	g.Go(func() error { return e.sweepCache(ctx) })
	g.Go(func() error { return e.keepSnapshots(ctx) })
	if e.opts.SharedCache != nil {
		g.Go(func() error { return e.opts.SharedCache.Run(ctx) })
	}
	if server != nil {
		g.Go(func() error { return server.Serve(ctx, handler{e}) })
	}
	err := g.Wait()
	stopAsking()
	err = errors.Join(err, <-upstreams)
	e.flights.Wait()
	e.upstreams.Close()
	return err
}

// Pause stops blocking for d, or until Resume when d is 0. Everything else goes on.
func (e *Engine) Pause(d time.Duration) {
	e.pause.set(e.opts.Now(), d)
	e.opts.Log.Info("blocking paused", "duration", d)
}

// Resume takes blocking up again.
func (e *Engine) Resume() {
	e.pause.clear()
	e.opts.Log.Info("blocking resumed")
}

// PausedUntil reports whether blocking is paused, and until when; the zero time means until Resume.
func (e *Engine) PausedUntil() (time.Time, bool) { return e.pause.until(e.opts.Now()) }

// ClearCache forgets every cached answer and returns how many there were.
func (e *Engine) ClearCache() int { return e.cache.Clear() }

// Reload compares every list with its source now, and returns when all are done and in force.
func (e *Engine) Reload(ctx context.Context) error { return e.lists.Reload(ctx) }

// Ready is nil when answers mean something: a policy is applied, and each of its lists is loaded or its first fetch
// has failed. The error says what is missing.
func (e *Engine) Ready() error {
	if e.state.Load() == nil {
		return errors.New("no policy is applied yet")
	}
	if pending := e.lists.Pending(); len(pending) > 0 {
		return fmt.Errorf("lists are not loaded yet: %s", strings.Join(pending, ", "))
	}
	return nil
}
