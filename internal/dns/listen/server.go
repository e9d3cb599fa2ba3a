package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"dnsfleet/internal/dns/listen/doh"
	"dnsfleet/internal/dns/listen/gate"
)

const (
	// grace is how long queries under way may take once the server ends.
	grace = 2 * time.Second
	// graceCheck is how often it is seen whether any are.
	graceCheck = 5 * time.Millisecond
)

// Server is bound listeners. The same port serves UDP and TCP.
type Server struct {
	opts          Options
	lanes         []*lane // number i+1
	tcp, dot, doh []net.Listener
	gate          *gate.Gate
	pending       atomic.Int64 // answers that lane 0 waits for
	closing       chan struct{}
	closeOnce     sync.Once
	streamStats   atomic.Pointer[sharedHandler] // nil before Serve

	mu      sync.Mutex // guards the following
	serving bool
	ended   bool
}

// Bind binds all addresses, or none if one cannot be bound. Port 0 takes a free one. The error names the address, and for
// port 53 what is likely in the way. Until Serve, the kernel keeps what comes in.
func Bind(ctx context.Context, o Options) (*Server, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	s := &Server{opts: o, gate: gate.New(o.Limits.gate(), o.Log), closing: make(chan struct{})}
	if err := s.bind(ctx); err != nil {
		return nil, errors.Join(err, s.release())
	}
	return s, nil
}

func (s *Server) bind(ctx context.Context) error {
	for _, address := range s.opts.UDPAndTCP {
		ep, err := bindPlain(ctx, address)
		if err != nil {
			return explain("dns", address, err)
		}
		s.tcp = append(s.tcp, ep.tcp)
		sockets, err := openSockets(ep.udp, s.opts.Portable)
		for _, socket := range sockets {
			s.lanes = append(s.lanes, newLane(len(s.lanes)+1, socket, s.opts.Log))
		}
		if err != nil {
			return explain("dns", address, err)
		}
	}
	for _, secure := range []struct {
		what      string
		addresses []string
		listeners *[]net.Listener
	}{
		{"dns over tls", s.opts.DoT, &s.dot},
		{"dns over https", s.opts.DoH, &s.doh},
	} {
		for _, address := range secure.addresses {
			l, err := bindTCP(ctx, address)
			if err != nil {
				return explain(secure.what, address, err)
			}
			*secure.listeners = append(*secure.listeners, l)
		}
	}
	return nil
}

// Addrs are the bound addresses for UDP and TCP, as host:port in the order of the options.
func (s *Server) Addrs() []string { return addrs(s.tcp) }

// DoTAddrs are the bound addresses for DNS over TLS.
func (s *Server) DoTAddrs() []string { return addrs(s.dot) }

// DoHAddrs are the bound addresses for DNS over HTTPS.
func (s *Server) DoHAddrs() []string { return addrs(s.doh) }

func addrs(listeners []net.Listener) []string {
	addrs := make([]string, 0, len(listeners))
	for _, l := range listeners {
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}

// Lanes is how many lanes there are: a Message's is less.
func (s *Server) Lanes() int { return len(s.lanes) + 1 }

// Close gives the sockets back. While Serve runs it only makes that end. It may be called more than once.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeOnce.Do(func() { close(s.closing) })
	if s.serving {
		return nil
	}
	s.ended = true
	return s.release()
}

func (s *Server) release() error {
	errs := []error{s.closeListeners()}
	for _, l := range s.lanes {
		errs = append(errs, l.socket.Close())
	}
	return errors.Join(errs...)
}

func (s *Server) closeListeners() error {
	var errs []error
	for _, listeners := range [][]net.Listener{s.tcp, s.dot, s.doh} {
		for _, l := range listeners {
			errs = append(errs, closed(l))
		}
	}
	return errors.Join(errs...)
}

// Serve reads until ctx ends or Close is called, then lets queries under way finish within two seconds and closes the
// sockets. It serves once.
func (s *Server) Serve(ctx context.Context, handler Handler) error {
	s.mu.Lock()
	if s.serving || s.ended {
		s.mu.Unlock()
		return errors.New("serve dns: already served or closed")
	}
	s.serving = true
	s.mu.Unlock()

	shared := newSharedHandler(s, handler)
	s.streamStats.Store(shared)
	web := doh.NewServer(shared.ask, s.opts.Log)
	g, ctx := errgroup.WithContext(ctx)
	s.start(g, handler, shared, web)
	g.Go(func() error {
		select {
		case <-ctx.Done():
		case <-s.closing:
		}
		return s.finish(ctx, web)
	})
	err := g.Wait()

	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving, s.ended = false, true
	return errors.Join(err, s.release())
}

// start makes all listeners work.
func (s *Server) start(g *errgroup.Group, handler Handler, shared *sharedHandler, web *doh.Server) {
	for _, l := range s.lanes {
		g.Go(func() error {
			l.run(handler)
			return nil
		})
	}
	accept := func(listeners []net.Listener, serve func(*gate.Conn)) {
		for _, l := range listeners {
			g.Go(func() error {
				s.gate.Accept(l, serve)
				return nil
			})
		}
	}
	accept(s.tcp, func(c *gate.Conn) { shared.tcp.Serve(c, c) })
	accept(s.dot, s.secure([]string{"dot"}, func(c *gate.Conn, conn *tls.Conn) { shared.dot.Serve(c, conn) }))
	if len(s.doh) > 0 {
		accept(s.doh, s.secure(doh.Protocols(), web.ServeConn))
		g.Go(web.Serve)
	}
}

func (s *Server) secure(protocols []string, serve func(*gate.Conn, *tls.Conn)) func(*gate.Conn) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protocols, GetCertificate: s.opts.Certificate}
	return func(c *gate.Conn) {
		if conn, err := c.Handshake(config); err == nil {
			serve(c, conn)
		}
	}
}

// finish reads no more, and waits for what is under way. The readers end by themselves.
func (s *Server) finish(ctx context.Context, web *doh.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err := s.closeListeners()
	for _, l := range s.lanes {
		l.socket.Wake()
	}
	s.gate.Stop()
	web.Shutdown(ctx)
	s.gate.Wait(ctx)
	s.await(ctx)
	return err
}

// await returns when no answer is waited for, or ctx ends.
func (s *Server) await(ctx context.Context) {
	ticker := time.NewTicker(graceCheck)
	defer ticker.Stop()
	for s.underWay() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (s *Server) underWay() int64 {
	n := s.pending.Load()
	for _, l := range s.lanes {
		n += l.pending.Load()
	}
	return n
}
