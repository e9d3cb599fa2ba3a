package httpserve_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dnsfleet/internal/httpserve"
)

func start(t *testing.T, o httpserve.Options) (s *httpserve.Server, stop func() error) {
	t.Helper()
	l, err := httpserve.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err = httpserve.New(l, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("run: got %v, want nil", err)
		}
	})
	return s, stop
}

func get(t *testing.T, client *http.Client, url string) (status int, body string, err error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	answer, err := client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(b), err
}

func client(t *testing.T, transport *http.Transport) *http.Client {
	t.Helper()
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func hello(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }

func TestATakenPortIsAnErrorBeforeServing(t *testing.T) {
	s, _ := start(t, httpserve.Options{Handler: http.HandlerFunc(hello)})
	addr := strings.TrimPrefix(s.URL(), "http://")
	if _, err := httpserve.Listen(t.Context(), addr); err == nil || !strings.Contains(err.Error(), addr) {
		t.Errorf("got %v, want an error that names %s", err, addr)
	}
}

func TestALongPollEndsWithTheServer(t *testing.T) {
	t.Parallel()
	waiting := make(chan struct{})
	s, stop := start(t, httpserve.Options{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(waiting)
		<-r.Context().Done()
		fmt.Fprint(w, "no news")
	})})
	type result struct {
		body string
		err  error
	}
	answered := make(chan result, 1)
	c := client(t, &http.Transport{})
	go func() {
		_, body, err := get(t, c, s.URL())
		answered <- result{body, err}
	}()
	<-waiting
	began := time.Now()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > 4*time.Second {
		t.Errorf("stop: took %v, want about one second", d)
	}
	if got := <-answered; got.err != nil || got.body != "no news" {
		t.Errorf("answer: got %q, %v, want what the handler says at the end", got.body, got.err)
	}
}

func TestARequestUnderWayIsFinished(t *testing.T) {
	waiting, goOn := make(chan struct{}), make(chan struct{})
	s, stop := start(t, httpserve.Options{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(waiting)
		<-goOn
		if r.Context().Err() != nil {
			http.Error(w, "cut", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, "saved")
	})})
	answered := make(chan string, 1)
	c := client(t, &http.Transport{})
	go func() {
		_, body, _ := get(t, c, s.URL())
		answered <- body
	}()
	<-waiting
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	addr := strings.TrimPrefix(s.URL(), "http://")
	for { // until it has begun to stop
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
		if err != nil {
			break
		}
		c.Close()
	}
	close(goOn)
	if got := <-answered; got != "saved" {
		t.Errorf("answer: got %q, want saved", got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestAHandlerThatNeverEndsDoesNotKeepTheServer(t *testing.T) {
	t.Parallel()
	var logged bytes.Buffer
	waiting, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	s, stop := start(t, httpserve.Options{
		Log: slog.New(slog.NewTextHandler(&logged, nil)),
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			close(waiting)
			<-release
		}),
	})
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-waiting
	began := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d < 4*time.Second || d > 15*time.Second {
		t.Errorf("stop: took %v, want about five seconds", d)
	}
	if !strings.Contains(logged.String(), "did not end in time") {
		t.Errorf("log: got %q, want it to say so", logged.String())
	}
}

func TestAPanicCostsOneRequest(t *testing.T) {
	var logged bytes.Buffer
	s, stop := start(t, httpserve.Options{
		Log: slog.New(slog.NewTextHandler(&logged, nil)),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/panic" {
				panic("boom")
			}
			hello(w, r)
		}),
	})
	c := client(t, &http.Transport{})
	if status, body, err := get(t, c, s.URL()+"/panic"); status != 500 || !strings.Contains(body, `"error"`) || strings.Contains(body, "boom") {
		t.Errorf("panic: got %d %q %v, want 500 and no detail", status, body, err)
	}
	if status, body, err := get(t, c, s.URL()+"/"); status != 200 || body != "hello" {
		t.Errorf("next: got %d %q %v, want 200", status, body, err)
	}
	if err := stop(); err != nil || !strings.Contains(logged.String(), "boom") {
		t.Errorf("log: got %q, want the panic", logged.String())
	}
}

func TestALongHeaderIsRefused(t *testing.T) {
	s, _ := start(t, httpserve.Options{Handler: http.HandlerFunc(hello)})
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("a", 100_000))
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %d, want 431", answer.StatusCode)
	}
}

func TestASlowHeaderIsCutOff(t *testing.T) {
	t.Parallel()
	s, _ := start(t, httpserve.Options{Handler: http.HandlerFunc(hello)})
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HT")
	if err := conn.SetReadDeadline(time.Now().Add(15 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("got %v, want the server to close the connection", err)
	}
}

// pair writes a certificate and key for 127.0.0.1 that has this serial number.
func pair(t *testing.T, certFile, keyFile string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	write(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded}))
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// serial is that of the certificate shown to a new connection.
func serial(t *testing.T, url string, maxVersion uint16) (int64, error) {
	t.Helper()
	conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MaxVersion: maxVersion}}).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "https://"))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
}

func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	pair(t, cert, key, 1)
	s, _ := start(t, httpserve.Options{Handler: http.HandlerFunc(hello), CertFile: cert, KeyFile: key})
	c := client(t, &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true})
	if status, body, err := get(t, c, s.URL()); status != 200 || body != "hello" {
		t.Fatalf("got %d %q %v, want hello", status, body, err)
	}
	if _, err := serial(t, s.URL(), tls.VersionTLS11); err == nil {
		t.Error("TLS 1.1: got a connection, want none")
	}

	write(t, cert, []byte("half a certificate")) // somebody is renewing it
	eventually(t, s.URL(), 1, 1500*time.Millisecond)
	pair(t, cert, key, 2)
	eventually(t, s.URL(), 2, 0)
}

// eventually waits until new connections are shown the certificate want, and holds that they are for as long as given.
func eventually(t *testing.T, url string, want int64, stay time.Duration) {
	t.Helper()
	deadline, tick := time.After(15*time.Second), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for since := (time.Time{}); ; {
		got, err := serial(t, url, 0)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case got != want && stay > 0:
			t.Fatalf("certificate: got %d, want %d all the time", got, want)
		case got == want && since.IsZero():
			since = time.Now()
		}
		if got == want && time.Since(since) >= stay {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("certificate: got %d, want %d", got, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	otherCert, otherKey := filepath.Join(dir, "other.pem"), filepath.Join(dir, "otherkey.pem")
	pair(t, cert, key, 1)
	pair(t, otherCert, otherKey, 2)
	for name, c := range map[string]struct {
		o     httpserve.Options
		named string
	}{
		"a certificate without a key":      {httpserve.Options{CertFile: cert}, "key"},
		"a key without a certificate":      {httpserve.Options{KeyFile: key}, "certificate"},
		"a file that is missing":           {httpserve.Options{CertFile: cert, KeyFile: key + "x"}, key + "x"},
		"a key of another certificate":     {httpserve.Options{CertFile: cert, KeyFile: otherKey}, otherKey},
		"a key where the certificate goes": {httpserve.Options{CertFile: key, KeyFile: key}, key},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := httpserve.Listen(t.Context(), "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if _, err := httpserve.New(l, c.o); err == nil || !strings.Contains(err.Error(), c.named) {
				t.Errorf("got %v, want an error that names %s", err, c.named)
			}
		})
	}
}
