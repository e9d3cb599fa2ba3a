// Package dns is the engine: sockets, then acceptance, local records, rules, cache, upstreams, one straight way, and
// one answer, one event and one write for each query.
//
// A query is resolved in this order:
//  1. a client outside Options.AllowClients is refused;
//  2. what is no query that is served gets FORMERR, NOTIMP, BADVERS or REFUSED;
//  3. without a policy the answer is SERVFAIL with EDE 14;
//  4. local records and special-use names answer;
//  5. rules block or rewrite, unless blocking is paused;
//  6. the cache answers;
//  7. an upstream answers, once for all who ask the same at the same time; if none does, an expired answer is served;
//  8. rules block what an answer leads to or holds: targets of aliases, and addresses.
package dns

import (
	"context"
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
	"dnsfleet/internal/dns/lists"
	"dnsfleet/internal/dns/socket"
	"dnsfleet/internal/dns/upstream"
	"dnsfleet/internal/fleet"
)

// Recorder takes one event for each query, right before its answer is written. It must not block.
type Recorder interface {
	RecordQuery(e fleet.QueryEvent)
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
	// DataDir is where the last good copies of lists are kept (in a directory of its own); "" keeps none.
	DataDir string
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

	inFlight chan struct{} // one for each query that waits for an upstream
	flights  flights

	state atomic.Pointer[state] // nil before the first policy

	mu     sync.Mutex     // guards the following, and orders changes of state
	server *socket.Server // nil = nothing is bound
}

// New makes an Engine. It starts nothing and binds nothing.
func New(o Options) (*Engine, error) {
	listen := make([]string, 0, len(o.Listen))
	for _, address := range o.Listen {
		address = strings.TrimSpace(address)
		if address == "" || address == "off" {
			continue
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			return nil, fmt.Errorf("%w: listen address %q is not host:port, :port or off", fleet.ErrInvalid, address)
		}
		listen = append(listen, address)
	}
	o.Listen = listen
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
	if o.Now == nil {
		o.Now = time.Now
	}
	e := &Engine{
		opts: o, cache: cache.New(o.Now), inFlight: make(chan struct{}, o.MaxInFlight),
		upstreams: upstream.NewPool(upstream.Options{Dial: o.DialContext, Observer: o.Exchanges, RootCAs: o.UpstreamCAs, Now: o.Now}),
	}
	dir := ""
	if o.DataDir != "" {
		dir = filepath.Join(o.DataDir, "lists")
	}
	e.lists = lists.New(lists.Options{
		Dir: dir, Client: listClient(o.DialContext), Changed: e.rebuildRules, Log: o.Log, Now: o.Now,
	})
	return e, nil
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
	server, err := socket.Bind(ctx, e.opts.Listen)
	if err != nil {
		return err
	}
	e.server = server
	return nil
}

// Addrs are the bound addresses as host:port, each for UDP and TCP, in the order of Options.Listen; empty before Bind.
func (e *Engine) Addrs() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.addrs()
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
	if server == nil && len(e.opts.Listen) > 0 {
		return errors.New("serve dns: not bound")
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return e.lists.Run(ctx) })
	g.Go(func() error { return e.upstreams.Run(ctx) })
	if server != nil {
		g.Go(func() error { return server.Serve(ctx, e.handle) })
	}
	err := g.Wait()
	e.flights.wait()
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
