package dns_test

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	engine "dnsfleet/internal/dns"
	"dnsfleet/internal/dns/upstream/upstreamtest"
	"dnsfleet/internal/fleet"
)

// transports are all ways in which a query may come. doh is HTTP/2 with POST, and the other two say how they differ.
var transports = []string{"udp", "tcp", "dot", "doh", "doh with GET", "doh with HTTP/1.1"}

// everywhere is a bench that serves DNS over TLS and HTTPS, too.
type everywhere struct {
	*bench
	authority   *upstreamtest.Authority
	certificate atomic.Pointer[tls.Certificate] // that is shown at the next handshake
	http1       *http.Client
	http2       *http.Client
}

// startEverywhere serves the policy until the test ends.
func startEverywhere(t testing.TB, policy fleet.Policy, change func(*engine.Options)) *everywhere {
	t.Helper()
	e := &everywhere{authority: upstreamtest.NewAuthority(t)}
	e.renew(t)
	e.bench = start(t, policy, func(o *engine.Options) {
		o.DoT, o.DoH = []string{"127.0.0.1:0"}, []string{"127.0.0.1:0"}
		o.Certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return e.certificate.Load(), nil }
		if change != nil {
			change(o)
		}
	})
	e.http1, e.http2 = e.client(t, 1), e.client(t, 2)
	return e
}

// renew makes a new certificate the one in use.
func (e *everywhere) renew(t testing.TB) {
	t.Helper()
	e.certificate.Store(new(e.authority.Certificate(t, time.Now().Add(time.Hour), "127.0.0.1")))
}

func (e *everywhere) trusts(protocols ...string) *tls.Config {
	return &tls.Config{RootCAs: e.authority.Pool, ServerName: "127.0.0.1", NextProtos: protocols}
}

func (e *everywhere) client(t testing.TB, major int) *http.Client {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(major == 1)
	protocols.SetHTTP2(major == 2)
	transport := &http.Transport{TLSClientConfig: e.trusts(), Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// dial opens a stream for tcp or dot.
func (e *everywhere) dial(t testing.TB, how string) net.Conn {
	t.Helper()
	if how == "dot" {
		conn, err := tls.Dial("tcp", e.DoTAddrs()[0], e.trusts("dot"))
		if err != nil {
			t.Fatalf("dial dot: %v", err)
		}
		return conn
	}
	conn, err := net.Dial(how, e.addr)
	if err != nil {
		t.Fatalf("dial %s: %v", how, err)
	}
	return conn
}

// raw sends bytes and returns the answer, nil if there is none within two seconds or as long as the connection lasts.
func (e *everywhere) raw(t testing.TB, how string, query []byte) []byte {
	t.Helper()
	switch how {
	case "doh":
		return e.post(t, e.http2, query)
	case "doh with HTTP/1.1":
		return e.post(t, e.http1, query)
	case "doh with GET":
		return e.web(t, e.http2, http.MethodGet, "?dns="+base64.RawURLEncoding.EncodeToString(query), nil)
	}
	conn := e.dial(t, how)
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if how == "udp" {
		if _, err := conn.Write(query); err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, dns.MaxMsgSize)
		n, err := conn.Read(buffer)
		if err != nil {
			return nil
		}
		return buffer[:n]
	}
	if err := upstreamtest.WriteFrame(conn, query); err != nil {
		t.Fatal(err)
	}
	answer, err := upstreamtest.ReadFrame(conn)
	if err != nil {
		return nil
	}
	return answer
}

func (e *everywhere) post(t testing.TB, client *http.Client, query []byte) []byte {
	t.Helper()
	return e.web(t, client, http.MethodPost, "", bytes.NewReader(query))
}

func (e *everywhere) web(t testing.TB, client *http.Client, method, parameters string, body io.Reader) []byte {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "https://"+e.DoHAddrs()[0]+"/dns-query"+parameters, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/dns-message")
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		return nil
	}
	return answer
}

// exchange asks by the transport.
func (e *everywhere) exchange(t testing.TB, how string, q *dns.Msg) *dns.Msg {
	t.Helper()
	reply, _ := e.sized(t, how, q)
	return reply
}

// sized is exchange, and how many bytes the answer has.
func (e *everywhere) sized(t testing.TB, how string, q *dns.Msg) (*dns.Msg, int) {
	t.Helper()
	query, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	raw := e.raw(t, how, query)
	reply := new(dns.Msg)
	if err := reply.Unpack(raw); err != nil {
		t.Fatalf("%s: %s: unpack % x: %v", how, q.Question[0].String(), raw, err)
	}
	return reply, len(raw)
}

// options are those of the answer's OPT, by code.
func options(m *dns.Msg) map[uint16]string {
	found := map[uint16]string{}
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			found[o.Option()] = o.String()
		}
	}
	return found
}

// countOPT is how many OPT records a message has.
func countOPT(m *dns.Msg) int {
	n := 0
	for _, rr := range m.Extra {
		if rr.Header().Rrtype == dns.TypeOPT {
			n++
		}
	}
	return n
}
