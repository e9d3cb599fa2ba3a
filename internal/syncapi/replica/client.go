package replica

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/syncapi"
)

// Bounds on what one exchange with a primary may cost.
const (
	defaultTimeout = 10 * time.Second
	maxReply       = 1 << 20
	maxPolicy      = 16 << 20
	maxSentence    = 300
	compressFrom   = 1 << 10
)

// ClientOptions are what NewClient needs. PrimaryURLs, Token and InstanceID are required.
type ClientOptions struct {
	PrimaryURLs []string // http or https; tried in this order
	Token       string
	InstanceID  string
	Release     string         // for the User-Agent
	RootCAs     *x509.CertPool // who may sign for a primary; nil = whom the system trusts
	// DialContext connects to a primary; nil = the system's way, with its resolver.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	Timeout     time.Duration // of one request to one primary; 0 = 10 s
	Log         *slog.Logger
}

// Client speaks to the first primary that answers, and stays with it for as long as it does. It is safe for concurrent
// use and shares a few connections. It follows no redirect: the token goes to the configured primaries only.
type Client struct {
	primaries []*url.URL
	current   atomic.Int64 // index of the primary that answered last
	header    http.Header
	http      *http.Client
	timeout   time.Duration
	zstd      *zstd.Encoder
	plain     atomic.Bool   // a primary refused compressed bodies
	events    chan struct{} // a slot for each post of events, so that they leave connections to all else
	log       *slog.Logger
}

// NewClient is a client that has not connected yet.
func NewClient(o ClientOptions) (*Client, error) {
	c := &Client{timeout: o.Timeout, log: o.Log, events: make(chan struct{}, maxEventPosts)}
	for _, text := range o.PrimaryURLs {
		u, err := parsePrimary(text)
		if err != nil {
			return nil, err
		}
		c.primaries = append(c.primaries, u)
	}
	switch {
	case len(c.primaries) == 0:
		return nil, fmt.Errorf("%w: no primary URL", fleet.ErrInvalid)
	case !fleet.ValidID(o.InstanceID):
		return nil, fmt.Errorf("%w: instance id", fleet.ErrInvalid)
	case o.Token == "" || len(o.Token) > syncapi.MaxToken || strings.ContainsFunc(o.Token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, fmt.Errorf("%w: the sync token must be 1 to %d printable ASCII characters without spaces", fleet.ErrInvalid, syncapi.MaxToken)
	}
	if c.timeout <= 0 {
		c.timeout = defaultTimeout
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.header = http.Header{}
	c.header.Set("Authorization", "Bearer "+o.Token)
	c.header.Set(syncapi.InstanceHeader, o.InstanceID)
	c.header.Set("User-Agent", strings.TrimSuffix("dnsfleet/"+o.Release, "/"))
	c.header.Set("Accept", "application/json")
	c.zstd = newZstdEncoder()
	c.http = &http.Client{
		Transport:     newTransport(o),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

func parsePrimary(text string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(text))
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		return nil, fmt.Errorf("%w: primary URL must be http://host:port or https://host:port", fleet.ErrInvalid)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%w: primary URL of %s must have no credentials, query or fragment", fleet.ErrInvalid, u.Host)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Primary is the URL of the primary that is asked first: the one that answered last.
func (c *Client) Primary() string { return c.primaries[c.current.Load()].String() }

// call is one exchange, whichever primary it is made with.
type call struct {
	method, path string
	query        url.Values
	ifNoneMatch  string
	body         []byte        // nil = none
	kind         string        // content type of a body that goes as it is; "" = JSON, compressed where it is long
	wait         time.Duration // how much longer than usual the answer may take
	limit        int64         // of the reply
	into         any           // where the reply is decoded to; nil = left as it is
	check        func() error  // what is wrong with a reply that was decoded; nil = nothing
}

// answer is what a primary said: a 2xx, or a 304 without a body.
type answer struct {
	status  int
	body    []byte
	latency time.Duration // half of the exchange
}

// do makes the exchange with the primaries in turn, beginning with the one that answered last, until one gives an
// answer that another would not better. Its error joins those of all that were asked.
func (c *Client) do(ctx context.Context, what call) (answer, error) {
	var errs []error
	first, n := int(c.current.Load()), len(c.primaries)
	for i := range n {
		at := (first + i) % n
		a, err := c.try(ctx, c.primaries[at], what, n-i)
		if err == nil || !elsewhere(err) {
			if at != first && c.current.CompareAndSwap(int64(first), int64(at)) {
				c.log.InfoContext(ctx, "changed primary", "from", c.primaries[first].Host, "to", c.primaries[at].Host)
			}
			return a, err
		}
		errs = append(errs, fmt.Errorf("%s: %w", c.primaries[at].Host, err))
		if ctx.Err() != nil {
			break
		}
	}
	return answer{}, errors.Join(errs...)
}

// elsewhere reports whether another primary may well do better: this one is away, ill, overloaded, or no primary.
func elsewhere(err error) bool {
	status := syncapi.StatusOf(err)
	switch status {
	case http.StatusNotFound, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	case http.StatusBadRequest:
		return !errors.Is(err, fleet.ErrInvalid)
	}
	var future *syncapi.FutureError
	return !errors.As(err, &future) && (status < 400 || status >= 500)
}

// try asks one primary. Where ctx has a deadline, a primary gets only its share of what is left, so that one that hangs
// leaves time for the left others.
func (c *Client) try(ctx context.Context, primary *url.URL, what call, left int) (answer, error) {
	timeout := c.timeout + what.wait
	if deadline, bounded := ctx.Deadline(); bounded {
		timeout = min(timeout, time.Until(deadline)/time.Duration(left))
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	packed, coding := what.body, ""
	if len(what.body) >= compressFrom && what.kind == "" && !c.plain.Load() {
		packed, coding = c.zstd.EncodeAll(what.body, nil), "zstd"
	}
	a, err := c.exchange(ctx, primary, what, packed, coding)
	if syncapi.StatusOf(err) == http.StatusUnsupportedMediaType && coding != "" {
		c.plain.Store(true)
		return c.exchange(ctx, primary, what, what.body, "")
	}
	return a, err
}

func (c *Client) exchange(ctx context.Context, primary *url.URL, what call, body []byte, coding string) (answer, error) {
	u := primary.JoinPath(what.path)
	u.RawQuery = what.query.Encode()
	req, err := http.NewRequestWithContext(ctx, what.method, u.String(), bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header = c.header.Clone()
	if what.body != nil {
		req.Header.Set("Content-Type", cmp.Or(what.kind, "application/json"))
	}
	if coding != "" {
		req.Header.Set("Content-Encoding", coding)
	}
	// Nothing is sent of an empty key, but it tells net/http that the request may be repeated on a new connection where
	// the primary closed an idle one.
	req.Header["Idempotency-Key"] = []string{}
	if what.ifNoneMatch != "" {
		req.Header.Set("If-None-Match", what.ifNoneMatch)
	}
	started := time.Now()
	res, err := c.http.Do(req)
	if err != nil {
		var failed *url.Error // says again what was asked of whom
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return answer{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, what.limit+1))
	a := answer{status: res.StatusCode, body: text, latency: time.Since(started) / 2}
	switch {
	case err != nil:
		return answer{}, fmt.Errorf("read reply: %w", err)
	case int64(len(text)) > what.limit:
		return answer{}, fmt.Errorf("reply has more than %d bytes", what.limit)
	case res.StatusCode == http.StatusNotModified && what.ifNoneMatch != "":
		return a, nil
	case res.StatusCode/100 == 2:
		// Whoever answers something else with a 200 is no primary: a captive portal, or a wrong port.
		if err := json.Unmarshal(text, cmp.Or(what.into, any(new(json.RawMessage)))); err != nil {
			return answer{}, fmt.Errorf("decode reply: %w", err)
		}
		if what.check != nil {
			if err := what.check(); err != nil {
				return answer{}, err
			}
		}
		return a, nil
	}
	return answer{}, refusal(res, a)
}

// refusal is the error that an answer other than success stands for.
func refusal(res *http.Response, a answer) error {
	var said syncapi.ErrorReply
	foreign := json.Unmarshal(a.body, &said) != nil || said.Error == ""
	if foreign {
		said = syncapi.ErrorReply{Error: http.StatusText(res.StatusCode)}
	}
	if a.status == http.StatusBadRequest && !said.ServerTime.IsZero() {
		return &syncapi.FutureError{ServerTime: said.ServerTime, Latency: a.latency}
	}
	if a.status/100 == 3 {
		said.Error = "redirects are not followed with a token; the primary's URL must be the one that answers"
	}
	refused := &syncapi.StatusError{Status: a.status, Message: cut(said.Error), Foreign: foreign}
	if seconds, err := strconv.ParseUint(res.Header.Get("Retry-After"), 10, 16); err == nil {
		refused.RetryAfter = time.Duration(seconds) * time.Second
	}
	return refused
}

// cut bounds a sentence of the server's, which goes into logs.
func cut(sentence string) string {
	if len(sentence) > maxSentence {
		return strings.ToValidUTF8(sentence[:maxSentence], "") + "…"
	}
	return sentence
}
