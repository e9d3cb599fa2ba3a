package replica

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/klauspost/compress/zstd"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/syncapi"
)

const (
	connectTimeout = 5 * time.Second
	idleTimeout    = 90 * time.Second
	maxHeader      = 64 << 10
	maxEventPosts  = 2                 // at once: new events, and those from the spool
	maxConns       = 4 + maxEventPosts // to one primary: a wait, a push, a pull, events, and one to spare
)

// newTransport speaks HTTP/1.1 only: there a request that hangs takes its own connection with it and no other.
func newTransport(o ClientOptions) *http.Transport {
	dial := o.DialContext
	if dial == nil {
		dial = (&net.Dialer{Timeout: connectTimeout}).DialContext
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, connectTimeout)
			defer cancel()
			return dial(ctx, network, address)
		},
		Protocols:              protocols,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
		TLSHandshakeTimeout:    connectTimeout,
		MaxIdleConnsPerHost:    maxConns,
		MaxConnsPerHost:        maxConns,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true, // replies are small, and a bound on them should mean what it says
	}
}

func newZstdEncoder() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(syncapi.MaxBody))
	if err != nil {
		panic(err) // cannot be: the options are constants within their bounds
	}
	return e
}

// LoadRootCAs is the system's certificate authorities and those of a PEM file.
func LoadRootCAs(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read certificate authorities: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%w: %s holds no PEM certificate", fleet.ErrInvalid, file)
	}
	return pool, nil
}
