package exchange_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"dnsfleet/internal/dns/upstream/exchange"
	"dnsfleet/internal/dns/upstream/upstreamtest"
	"dnsfleet/internal/dns/upstream/wire"
)

func TestDoTBelievesOnlyTheCertificateOfTheServersName(t *testing.T) {
	ca, other := upstreamtest.NewAuthority(t), upstreamtest.NewAuthority(t)
	valid := time.Now().Add(time.Hour)
	for what, c := range map[string]struct {
		cert tls.Certificate
		name string
		want string // "" = an answer
	}{
		"the name":             {ca.Certificate(t, valid, "dns.test"), "dns.test", ""},
		"the address":          {ca.Certificate(t, valid, "127.0.0.1"), "127.0.0.1", ""},
		"another name":         {ca.Certificate(t, valid, "evil.test"), "dns.test", "certificate"},
		"another address":      {ca.Certificate(t, valid, "127.0.0.2"), "127.0.0.1", "certificate"},
		"yesterday's":          {ca.Certificate(t, time.Now().Add(-time.Hour), "dns.test"), "dns.test", "expired"},
		"of another authority": {other.Certificate(t, valid, "dns.test"), "dns.test", "unknown authority"},
	} {
		s := upstreamtest.Start(t, upstreamtest.Manner{})
		addr := s.ServeTLS(t, &tls.Config{Certificates: []tls.Certificate{c.cert}})
		dot := exchange.NewStream(target(t, addr), clientConfig(ca.Pool, c.name))
		_, err := dot.Exchange(t.Context(), query(t, "www.test."))
		dot.Close()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want an error about %q", what, err, c.want)
		}
		if heard := s.Heard.Load(); c.want != "" && heard != 0 {
			t.Errorf("%s: got %d queries told to a stranger", what, heard)
		}
	}
}

func clientConfig(pool *x509.CertPool, name string) *tls.Config {
	return &tls.Config{RootCAs: pool, ServerName: name, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
}

func TestDoTPadsQueriesSharesAConnectionAndResumesSessions(t *testing.T) {
	ca := upstreamtest.NewAuthority(t)
	var mu sync.Mutex
	var resumed []bool
	var lengths []int
	s := upstreamtest.Start(t, upstreamtest.Manner{Message: func(q []byte) []byte {
		mu.Lock()
		defer mu.Unlock()
		lengths = append(lengths, len(q))
		return upstreamtest.Right(q)
	}})
	addr := s.ServeTLS(t, &tls.Config{
		Certificates: []tls.Certificate{ca.Certificate(t, time.Now().Add(time.Hour), "dns.test")},
		VerifyConnection: func(state tls.ConnectionState) error {
			mu.Lock()
			defer mu.Unlock()
			resumed = append(resumed, state.DidResume)
			return nil
		},
	})
	config := clientConfig(ca.Pool, "dns.test")
	for range 2 {
		dot := exchange.NewStream(target(t, addr), config)
		for i := range 5 {
			if _, err := dot.Exchange(t.Context(), query(t, strings.Repeat("a", i+1)+".test.")); err != nil {
				t.Fatal(err)
			}
		}
		dot.Close()
	}
	mu.Lock()
	defer mu.Unlock()
	if len(resumed) != 2 || resumed[0] || !resumed[1] {
		t.Errorf("got handshakes %v, want two, the second resumed", resumed)
	}
	for _, n := range lengths {
		if n != 128 {
			t.Errorf("got queries of %v bytes, want 128", lengths)
			break
		}
	}
}

func TestDoHPostsOverOneConnectionAndTellsNothingOfItself(t *testing.T) {
	ca := upstreamtest.NewAuthority(t)
	s := upstreamtest.Start(t, upstreamtest.Manner{Message: func(q []byte) []byte {
		if wire.ID(q) != 0 || len(q)%128 != 0 {
			t.Errorf("got id %d and %d bytes, want 0 and a multiple of 128", wire.ID(q), len(q))
		}
		return upstreamtest.Right(q)
	}})
	var mu sync.Mutex
	from := map[string]bool{}
	addr := s.ServeHTTPS(t, &tls.Config{Certificates: []tls.Certificate{ca.Certificate(t, time.Now().Add(time.Hour), "dns.test")}}, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		from[r.RemoteAddr] = true
		mu.Unlock()
		if r.ProtoMajor != 2 || r.URL.RequestURI() != "/dns-query?a=b" || !strings.HasPrefix(r.Host, "dns.test:") {
			t.Errorf("got %s %s of %s, want HTTP/2, the path and the host", r.Proto, r.URL, r.Host)
		}
		for header := range r.Header {
			if header != "Content-Type" && header != "Accept" && header != "Content-Length" {
				t.Errorf("got header %s: %s", header, r.Header.Get(header))
			}
		}
		s.DoH(w, r)
	})
	to := target(t, addr)
	to.Host, to.Bootstrap = "dns.test", []string{"127.0.0.1"}
	doh := exchange.NewHTTPS(to, "https://dns.test:"+to.Port+"/dns-query?a=b", clientConfig(ca.Pool, "dns.test"))
	defer doh.Close()
	if _, err := doh.Exchange(t.Context(), query(t, "first.test.")); err != nil {
		t.Fatal(err)
	}
	var clients sync.WaitGroup
	for i := range 50 {
		clients.Go(func() {
			q := query(t, fmt.Sprintf("n%d.test.", i))
			answer, err := doh.Exchange(t.Context(), q)
			if err != nil || !wire.Answers(answer.Wire, q.Wire) {
				t.Errorf("got % x, %v, want the answer to this query", answer.Wire, err)
			}
		})
	}
	clients.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(from) != 1 {
		t.Errorf("got %d connections, want 1", len(from))
	}
}

func TestDoHTakesOnlyDNSMessages(t *testing.T) {
	ca := upstreamtest.NewAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{ca.Certificate(t, time.Now().Add(time.Hour), "127.0.0.1")}}
	s := upstreamtest.Start(t, upstreamtest.Manner{})
	honest := "https://" + s.ServeHTTPS(t, config, s.DoH)
	message := func(w http.ResponseWriter) { w.Header().Set("Content-Type", "application/dns-message") }
	for what, c := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"not found": {http.NotFound, "404"},
		"an error with a body": {func(w http.ResponseWriter, r *http.Request) {
			message(w)
			w.WriteHeader(http.StatusServiceUnavailable)
			s.DoH(w, r)
		}, "503"},
		"somewhere else": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, honest, http.StatusTemporaryRedirect)
		}, "307"},
		"a page":                {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, "text/html"},
		"a body without an end": {func(w http.ResponseWriter, _ *http.Request) { message(w); _, _ = w.Write(make([]byte, 1<<20)) }, "malformed"},
		"nothing":               {func(w http.ResponseWriter, _ *http.Request) { message(w) }, "something else"},
		"compressed beyond DNS": {func(w http.ResponseWriter, _ *http.Request) {
			message(w)
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write([]byte{31, 139})
		}, "something else"},
		"a connection that dies": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "INTERNAL_ERROR"},
	} {
		addr := s.ServeHTTPS(t, config, c.handler)
		doh := exchange.NewHTTPS(target(t, addr), "https://"+addr+"/dns-query", clientConfig(ca.Pool, "127.0.0.1"))
		_, err := doh.Exchange(t.Context(), query(t, "www.test."))
		doh.Close()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error about %q", what, err, c.want)
		}
	}
	if heard := s.Heard.Load(); heard > 1 { // by the one that answers with an error
		t.Errorf("got %d queries at the honest server, want no redirect followed", heard)
	}
}

func TestAHandshakeThatHangsEndsAtTheDeadline(t *testing.T) {
	ca := upstreamtest.NewAuthority(t)
	s := upstreamtest.Start(t, upstreamtest.Manner{Stream: func(conn net.Conn, _ func([]byte)) { _, _ = io.Copy(io.Discard, conn) }})
	dot := exchange.NewStream(target(t, s.Addr), clientConfig(ca.Pool, "127.0.0.1"))
	doh := exchange.NewHTTPS(target(t, s.Addr), "https://"+s.Addr+"/dns-query", clientConfig(ca.Pool, "127.0.0.1"))
	for name, e := range map[string]exchange.Exchanger{"dot": dot, "doh": doh} {
		q := query(t, "www.test.")
		q.Deadline = time.Now().Add(100 * time.Millisecond)
		begun := time.Now()
		_, err := e.Exchange(context.Background(), q)
		if took := time.Since(begun); !exchange.Timeout(err) || took > patient/2 {
			t.Errorf("%s: got %v after %v, want a time-out", name, err, took)
		}
		e.Close()
	}
}
