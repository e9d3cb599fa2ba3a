package doh

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"dnsfleet/internal/dns/listen/gate"
)

const (
	requestTimeout = 5 * time.Second  // for all of a request
	answerTimeout  = 10 * time.Second // for its answer to be taken
	idleTimeout    = time.Minute      // a handshake costs more than a place that others get when they need it
	maxHeader      = 16 << 10
	maxStreams     = 128
	window         = 64 << 10 // of a stream's body; a longer query is none
)

// Protocols are those that TLS is to offer, by preference.
func Protocols() []string { return []string{"h2", "http/1.1"} }

// Server speaks HTTP on connections that others accept.
type Server struct {
	http     http.Server
	incoming *listener
}

// connKey is where a request's context has its *gate.Conn.
type connKey struct{}

func connOf(ctx context.Context) (*gate.Conn, bool) {
	c, ok := ctx.Value(connKey{}).(*gate.Conn)
	return c, ok
}

// NewServer makes a Server of queries that ask answers. It starts nothing.
func NewServer(ask Ask, log *slog.Logger) *Server {
	s := &Server{incoming: &listener{conns: make(chan net.Conn), closed: make(chan struct{})}}
	s.http = http.Server{
		Handler: handler{ask}, ReadHeaderTimeout: requestTimeout, ReadTimeout: requestTimeout, WriteTimeout: answerTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerStream: window, MaxReceiveBufferPerConnection: 4 * window,
			WriteByteTimeout: requestTimeout,
		},
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			if secure, ok := conn.(*tls.Conn); ok {
				return context.WithValue(ctx, connKey{}, secure.NetConn())
			}
			return ctx
		},
	}
	return s
}

// Serve serves until Shutdown.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.incoming); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// ServeConn serves conn, TLS over c, until it is closed.
func (s *Server) ServeConn(c *gate.Conn, conn *tls.Conn) {
	c.StopsItself() // a read that fails would end the requests under way
	select {
	case s.incoming.conns <- conn:
		<-c.Closed()
	case <-s.incoming.closed:
	}
}

// Shutdown lets requests under way finish until ctx ends, and closes all connections.
func (s *Server) Shutdown(ctx context.Context) {
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close()
	}
}

// listener hands over connections.
type listener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// Accept waits for a connection.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends accepting.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr is no address.
func (l *listener) Addr() net.Addr { return &net.TCPAddr{} }
