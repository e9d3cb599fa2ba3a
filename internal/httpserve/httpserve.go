// Package httpserve runs an HTTP server that strangers may talk to: everything has a time-out and a bound, TLS
// certificates are read again when their files change, and it ends within five seconds.
package httpserve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"dnsfleet/internal/httpjson"
)

// The bounds on one connection. A handler that answers more slowly on purpose moves its own write deadline with
// http.ResponseController.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 30 * time.Second
	writeTimeout  = 60 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 16 << 10
)

// The end of a server: requests under way have drainTime before their context ends, and shutdownTime before their
// connection is closed.
const (
	drainTime    = time.Second
	shutdownTime = 5 * time.Second
)

// Options are what a server is made with.
type Options struct {
	Handler http.Handler
	// CertFile and KeyFile make it HTTPS (and HTTP/2), TLS 1.2 at least; both or neither.
	CertFile, KeyFile string
	// Log may be nil.
	Log *slog.Logger
}

// Server serves HTTP on one listener.
type Server struct {
	listener net.Listener
	tls      bool // the server's own TLSConfig says nothing: net/http sets one when it serves
	server   *http.Server
	log      *slog.Logger
}

// Listen binds addr, so that a taken port is an error before anything is served.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for HTTP: %w", err)
	}
	return l, nil
}

// New is a server on a listener, which Run will close. It reads the certificate, so that a bad one is an error here.
func New(l net.Listener, o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{listener: l, log: o.Log, server: &http.Server{
		Handler:           recovered(o.Handler, o.Log),
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader,
		// What strangers send wrong, such as plain HTTP to a TLS port, is not this program's trouble.
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}}
	switch {
	case o.CertFile == "" && o.KeyFile == "":
	case o.CertFile == "" || o.KeyFile == "":
		return nil, fmt.Errorf("serve HTTPS on %s: a certificate needs its key file, and a key its certificate", l.Addr())
	default:
		c, err := NewCertificate(o.CertFile, o.KeyFile, o.Log)
		if err != nil {
			return nil, fmt.Errorf("serve HTTPS on %s: %w", l.Addr(), err)
		}
		s.tls = true
		s.server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.Get}
	}
	return s, nil
}

// URL is where the server answers, without a final slash.
func (s *Server) URL() string {
	scheme := "http"
	if s.tls {
		scheme = "https"
	}
	return scheme + "://" + s.listener.Addr().String()
}

// Run serves until ctx ends, then returns nil within about five seconds: idle connections are closed at once, the
// contexts of requests that are still under way end after one second (so that long polls answer), and after five their
// connections are closed. It returns an error if the listener fails.
func (s *Server) Run(ctx context.Context) error {
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	s.server.BaseContext = func(net.Listener) context.Context { return base }
	failed := make(chan error, 1)
	go func() { failed <- s.serve() }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve HTTP on %s: %w", s.listener.Addr(), err)
	case <-ctx.Done():
	}
	s.stop(context.WithoutCancel(ctx), cut)
	<-failed
	return nil
}

func (s *Server) serve() error {
	if s.tls {
		return s.server.ServeTLS(s.listener, "", "")
	}
	return s.server.Serve(s.listener)
}

func (s *Server) stop(ctx context.Context, cut context.CancelFunc) {
	defer time.AfterFunc(drainTime, cut).Stop()
	ctx, cancel := context.WithTimeout(ctx, shutdownTime)
	defer cancel()
	err := s.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		s.log.WarnContext(ctx, "requests did not end in time, their connections are closed", "addr", s.listener.Addr().String())
		err = s.server.Close()
	}
	if err != nil {
		s.log.WarnContext(ctx, "stop HTTP server failed", "addr", s.listener.Addr().String(), "err", err)
	}
}

// recovered answers 500 where a handler panics, and logs it: one request must not cost the instance.
func recovered(next http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler { //nolint:errorlint // the value itself is what net/http documents
				panic(p)
			}
			log.ErrorContext(ctx, "handler panicked", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			httpjson.Error(w, http.StatusInternalServerError, "internal error")
		}()
		next.ServeHTTP(w, r)
	})
}
