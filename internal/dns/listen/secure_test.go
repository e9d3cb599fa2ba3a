package listen_test

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"dnsfleet/internal/dns/listen"
)

func serveDoT(t *testing.T, h listen.Handler, limits listen.Limits) (*authority, *served) {
	t.Helper()
	a := newAuthority(t)
	return a, serve(t, listen.Options{DoT: []string{"127.0.0.1:0"}, Certificate: a.certificate, Limits: limits}, h)
}

func TestTLSIsOfferedAsRFC7858Says(t *testing.T) {
	a, s := serveDoT(t, handle(func(m *listen.Message, out []byte) []byte {
		if m.Protocol != listen.DoT || m.Protocol.String() != "dot" || !m.Client.IsLoopback() || m.Lane != 0 {
			return nil
		}
		return echo(m, out)
	}), listen.Limits{})
	for _, c := range []struct {
		name     string
		config   *tls.Config
		protocol string
		ok       bool
	}{
		{"a client that offers dot", a.client("dot"), "dot", true},
		{"a client that offers dot and more", a.client("h2", "dot"), "dot", true},
		{"a client that offers nothing", a.client(), "", true},
		{"a client that wants HTTP only", a.client("h2", "http/1.1"), "", false},
		{"TLS 1.2", &tls.Config{RootCAs: a.roots, ServerName: "127.0.0.1", MaxVersion: tls.VersionTLS12}, "", true},
		{"TLS 1.1", &tls.Config{RootCAs: a.roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := tls.Client(dial(t, "tcp", s.DoTAddrs()[0]), c.config)
			if err := conn.HandshakeContext(t.Context()); (err == nil) != c.ok {
				t.Fatalf("handshake: got %v, want success %v", err, c.ok)
			}
			if !c.ok {
				return
			}
			if got := conn.ConnectionState().NegotiatedProtocol; got != c.protocol {
				t.Errorf("protocol: got %q, want %q", got, c.protocol)
			}
			wantAnswer(t, conn, 1)
		})
	}
	eventually(t, "two handshakes have failed", func() bool { return s.Stats().HandshakesFailed == 2 })
}

func TestSessionsAreResumedAndCertificatesRenewed(t *testing.T) {
	a, s := serveDoT(t, handle(echo), listen.Limits{})
	config := a.client("dot")
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	open := func(config *tls.Config) tls.ConnectionState {
		conn := tls.Client(dial(t, "tcp", s.DoTAddrs()[0]), config)
		wantAnswer(t, conn, 1)
		return conn.ConnectionState()
	}
	if open(config).DidResume || !open(config).DidResume {
		t.Error("the second connection: got a full handshake, want the session resumed")
	}
	a.issue(2)
	if got := open(a.client("dot")).PeerCertificates[0].SerialNumber.Int64(); got != 2 {
		t.Errorf("after a renewal: got certificate %d, want 2", got)
	}
}

func TestStalledHandshakesKeepNobodyWaiting(t *testing.T) {
	leavesNothing(t)
	a, s := serveDoT(t, handle(echo), listen.Limits{Message: time.Second})
	hello := clientHello(t)
	var stalled []net.Conn
	for i := range 200 { // more than cores by far
		conn := dial(t, "tcp", s.DoTAddrs()[0])
		send(t, conn, hello[:[]int{0, 1, 100, len(hello)}[i%4]])
		stalled = append(stalled, conn)
	}
	start := time.Now()
	wantAnswer(t, tls.Client(dial(t, "tcp", s.DoTAddrs()[0]), a.client("dot")), 1)
	if took := time.Since(start); took > soon {
		t.Errorf("got an answer after %v, want it at once", took)
	}
	for _, conn := range stalled {
		wantClosed(t, conn)
	}
}

// clientHello is what a client sends first.
func clientHello(t *testing.T) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer far.Close()
	go func() {
		_ = tls.Client(near, &tls.Config{ServerName: "127.0.0.1"}).HandshakeContext(t.Context())
	}()
	hello := make([]byte, 1<<14)
	n, err := far.Read(hello)
	if err != nil {
		t.Fatal(err)
	}
	return hello[:n]
}
