package exchange

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"dnsfleet/internal/dns/upstream/wire"
)

const dnsMessage = "application/dns-message"

// HTTPS is DNS over HTTPS: POST, over HTTP/2 where the server can, with id 0 (RFC 8484, section 4.1).
type HTTPS struct {
	url    string
	client *http.Client
	kept   *http.Transport
	closed atomic.Bool
}

// NewHTTPS makes an HTTPS that posts to the URL, whose host is dialed as the target says. The config tells whom to
// trust. It opens nothing.
func NewHTTPS(t Target, url string, config *tls.Config) *HTTPS {
	r := newRoute(t)
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			return r.connect(ctx, network)
		},
		TLSClientConfig: config, TLSHandshakeTimeout: dialTimeout, ForceAttemptHTTP2: true, DisableCompression: true,
		MaxConnsPerHost: maxConns, MaxIdleConnsPerHost: maxConns, IdleConnTimeout: 30 * time.Second,
		MaxResponseHeaderBytes: 16 << 10,
		// A connection that died unnoticed must not swallow queries for minutes.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 2 * time.Second, WriteByteTimeout: 5 * time.Second},
	}
	return &HTTPS{url: url, kept: transport, client: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close see Exchanger.
func (h *HTTPS) Close() {
	h.closed.Store(true)
	h.kept.CloseIdleConnections()
}

// Exchange see Exchanger.
func (h *HTTPS) Exchange(ctx context.Context, q Query) (wire.Answer, error) {
	ctx, cancel := context.WithDeadline(ctx, q.Deadline)
	defer cancel()
	query := wire.AppendPadded(nil, q.Wire)
	wire.SetID(query, 0)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(query))
	if err != nil {
		return wire.Answer{}, err
	}
	request.Header["Content-Type"] = []string{dnsMessage}
	request.Header["Accept"] = []string{dnsMessage}
	request.Header["User-Agent"] = nil
	if !q.Budget.Take() {
		return wire.Answer{}, ErrBudget
	}
	response, err := h.client.Do(request)
	if err != nil {
		return wire.Answer{}, err
	}
	defer func() {
		_ = response.Body.Close()
		if h.closed.Load() {
			h.kept.CloseIdleConnections()
		}
	}()
	body, err := read(response)
	if err != nil {
		return wire.Answer{}, err
	}
	if !wire.Answers(body, query) {
		return wire.Answer{}, errors.New("answer to something else")
	}
	wire.SetID(body, wire.ID(q.Wire))
	a, err := wire.Read(body, query)
	if err == nil && a.Truncated {
		err = ErrTruncated
	}
	return a, err
}

// read returns the message in a response.
func read(response *http.Response) ([]byte, error) {
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answers HTTP %d", response.StatusCode)
	}
	if kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); kind != dnsMessage {
		return nil, fmt.Errorf("answers with %.40q instead of a DNS message", kind)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err == nil && len(body) == 1<<16 {
		err = wire.ErrMalformed
	}
	return body, err
}
