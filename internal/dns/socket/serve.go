package socket

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

const (
	// grace is how long queries under way may take once the server ends.
	grace = 2 * time.Second
	// maxQuery is the largest query over UDP.
	maxQuery = 4096
	// pauseAfterError keeps a socket that only fails from taking a core.
	pauseAfterError = 10 * time.Millisecond
)

// Handler takes one message; client is unmapped and has no zone. If wait is nil, reply is what to send, nil for nothing.
// Otherwise wait returns the reply; it is called exactly once, on a goroutine of its own. The Handler keeps nothing of
// raw, and bounds how many waits there are.
type Handler func(raw []byte, client netip.Addr, protocol string) (reply []byte, wait func(context.Context) []byte)

// session is one call of Serve.
type session struct {
	handler Handler
	base    context.Context //nolint:containedctx // of all queries of the session: it outlives ctx by the grace
	queries sync.WaitGroup  // under way
	conns   connections
}

// Serve reads until ctx ends, then lets queries under way finish within two seconds and closes the sockets. It serves
// once.
func (s *Server) Serve(ctx context.Context, handler Handler) error {
	base, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	ses := &session{handler: handler, base: base}
	g, ctx := errgroup.WithContext(ctx)
	for _, ep := range s.endpoints {
		for _, conn := range ep.udp {
			g.Go(func() error { return ses.readUDP(ctx, conn) })
		}
		g.Go(func() error { return ses.acceptTCP(ctx, ep.tcp) })
	}
	g.Go(func() error {
		<-ctx.Done()
		s.stopReading()
		ses.conns.stopReading()
		return nil
	})
	err := g.Wait()
	finished := make(chan struct{})
	go func() {
		ses.queries.Wait()
		close(finished)
	}()
	select {
	case <-finished:
	case <-time.After(grace):
		abort()
		ses.conns.closeAll() // whoever does not take an answer cannot keep us
		<-finished
	}
	return errors.Join(err, s.Close())
}

// stopReading wakes the readers; the UDP sockets stay open for the last answers.
func (s *Server) stopReading() {
	for _, ep := range s.endpoints {
		_ = ep.tcp.Close()
		for _, conn := range ep.udp {
			_ = conn.SetReadDeadline(time.Now())
		}
	}
}

func (ses *session) readUDP(ctx context.Context, conn *net.UDPConn) error {
	buffer := make([]byte, maxQuery)
	for ctx.Err() == nil {
		n, from, err := dns.ReadFromSessionUDP(conn, buffer)
		if err != nil {
			pause(ctx)
			continue
		}
		reply, wait := ses.handler(buffer[:n], addrOf(from.RemoteAddr()), "udp")
		if wait == nil {
			writeUDP(conn, from, reply)
			continue
		}
		ses.queries.Go(func() { writeUDP(conn, from, wait(ses.base)) })
	}
	return nil
}

func writeUDP(conn *net.UDPConn, to *dns.SessionUDP, reply []byte) {
	if len(reply) > 0 {
		_, _ = dns.WriteToSessionUDP(conn, reply, to) // a client that is gone asks again elsewhere
	}
}

func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(pauseAfterError):
	}
}

func addrOf(a net.Addr) netip.Addr {
	var addr netip.Addr
	switch a := a.(type) {
	case *net.UDPAddr:
		addr = a.AddrPort().Addr()
	case *net.TCPAddr:
		addr = a.AddrPort().Addr()
	}
	return addr.Unmap().WithZone("")
}
