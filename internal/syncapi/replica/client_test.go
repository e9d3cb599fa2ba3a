package replica_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/syncapi"
	"dnsfleet/internal/syncapi/replica"
)

const (
	secret   = "tAbCdEfGhIjKl.0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
	pushedOK = `{"ok":true,"result":"stored","server_time":"2026-03-14T09:26:53Z","next_push_seconds":10,"slices_stored":[],"commands":[],"of_a_later_release":1}`
)

// stub is something that listens where a primary should. It answers everything with status and body.
type stub struct {
	*httptest.Server
	asked atomic.Int64

	mu     sync.Mutex // guards the following
	status int
	body   string
	header http.Header
	last   *http.Request
	sent   []byte
}

func newStub(t *testing.T, status int, body string) *stub {
	t.Helper()
	s := &stub{status: status, body: body, header: http.Header{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *stub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	sent, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last, s.sent = r, sent
	maps.Copy(w.Header(), s.header)
	w.WriteHeader(s.status)
	io.WriteString(w, s.body)
}

func (s *stub) becomes(status int, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.body = status, body
}

func newClient(t *testing.T, urls []string, change ...func(*replica.ClientOptions)) *replica.Client {
	t.Helper()
	o := replica.ClientOptions{PrimaryURLs: urls, Token: secret, InstanceID: "attic-pi", Release: "v1.4.0", Timeout: 10 * time.Second}
	for _, c := range change {
		c(&o)
	}
	c, err := replica.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// closed is the URL of a port on which nobody listens.
func closed(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	return s.URL
}

// hung is the URL of a primary that takes requests and never answers.
func hung(t *testing.T) string {
	t.Helper()
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(release); s.Close() })
	return s.URL
}

func TestClientSaysWhoItIs(t *testing.T) {
	p := newStub(t, 200, pushedOK)
	reply, err := newClient(t, []string{p.URL + "/fleet/"}).Push(t.Context(), fleet.Report{InstanceID: "attic-pi"})
	if err != nil || !reply.OK || reply.Result != fleet.Stored || reply.ServerTime.IsZero() || reply.Latency <= 0 {
		t.Fatalf("got %+v, %v", reply, err)
	}
	for name, want := range map[string]string{
		"Authorization": "Bearer " + secret, syncapi.InstanceHeader: "attic-pi", "User-Agent": "dnsfleet/v1.4.0", "Content-Type": "application/json",
	} {
		if got := p.last.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := p.last.Method + " " + p.last.URL.Path; got != "POST /fleet/sync/stats" {
		t.Errorf("asked for %s", got)
	}
	if strings.Contains(p.last.URL.String(), secret) {
		t.Errorf("the token is in the URL %s", p.last.URL)
	}
}

func TestClientFailsOver(t *testing.T) {
	const nobody, hangs = 0, -1
	for name, tc := range map[string]struct {
		status    int // of the first primary
		body      string
		elsewhere bool
	}{
		"nobody listens":       {nobody, "", true},
		"it hangs":             {hangs, "", true},
		"it is ill":            {500, `{"error":"x"}`, true},
		"it is overloaded":     {503, `{"error":"x"}`, true},
		"it has no such path":  {404, `{"error":"x"}`, true},
		"it wants a pause":     {429, `{"error":"x"}`, true},
		"it timed out":         {408, `{"error":"x"}`, true},
		"it is a login page":   {200, `<html>`, true},
		"its answer is cut":    {200, pushedOK[:40], true},
		"its answer is huge":   {200, pushedOK + strings.Repeat(" ", 2<<20), true},
		"it is not modified":   {304, "", true},
		"the report is bad":    {400, `{"error":"x"}`, false},
		"the token is unknown": {401, `{"error":"x"}`, false},
		"the id is not ours":   {403, `{"error":"x"}`, false},
		"it was forgotten":     {410, `{"error":"x"}`, false},
		"the body is too long": {413, `{"error":"x"}`, false},
		"the clock is wrong":   {400, `{"error":"x","server_time":"2026-03-14T09:26:53Z"}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			var first string
			switch tc.status {
			case nobody:
				first = closed(t)
			case hangs:
				first = hung(t)
			default:
				first = newStub(t, tc.status, tc.body).URL
			}
			second := newStub(t, 200, pushedOK)
			c := newClient(t, []string{first, second.URL}, func(o *replica.ClientOptions) { o.Timeout = 500 * time.Millisecond * slack })
			reply, err := c.Push(t.Context(), fleet.Report{})
			if tc.elsewhere && (err != nil || !reply.OK || c.Primary() != second.URL) {
				t.Errorf("got %+v, %v from %s, want the second's answer", reply, err, c.Primary())
			}
			if !tc.elsewhere && (err == nil || second.asked.Load() != 0) {
				t.Errorf("got %v and the second was asked %d times, want an error of the first alone", err, second.asked.Load())
			}
		})
	}
}

// slack stretches time-outs, because tests run beside others.
const slack = 4

func TestClientStaysWithThePrimaryThatAnswers(t *testing.T) {
	first, second := newStub(t, 503, "{}"), newStub(t, 200, pushedOK)
	log := new(bytes.Buffer)
	c := newClient(t, []string{first.URL, second.URL}, func(o *replica.ClientOptions) { o.Log = slog.New(slog.NewTextHandler(log, nil)) })
	push := func() {
		t.Helper()
		if _, err := c.Push(t.Context(), fleet.Report{}); err != nil {
			t.Fatal(err)
		}
	}
	push()
	first.becomes(200, pushedOK)
	push()
	push()
	if first.asked.Load() != 1 || second.asked.Load() != 3 {
		t.Errorf("asked the first %d times and the second %d times, want 1 and 3", first.asked.Load(), second.asked.Load())
	}
	second.becomes(503, "{}")
	push()
	if first.asked.Load() != 2 || c.Primary() != first.URL {
		t.Errorf("asked the first %d times and is with %s, want 2 and the first", first.asked.Load(), c.Primary())
	}
	if got := strings.Count(log.String(), "changed primary"); got != 2 {
		t.Errorf("logged %d changes, want 2: %s", got, log)
	}
}

func TestClientErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		status int
		body   string
		is     error
		says   string
	}{
		"unknown token":   {401, `{"error":"unknown token"}`, fleet.ErrUnknownToken, "unknown token (status 401)"},
		"another's id":    {403, `{"error":"token may not speak for this instance"}`, fleet.ErrNotYours, "token may not speak for this instance (status 403)"},
		"forgotten":       {410, `{"error":"instance was forgotten"}`, fleet.ErrForgotten, "instance was forgotten (status 410)"},
		"invalid":         {400, `{"error":"seq must be a whole number"}`, fleet.ErrInvalid, "seq must be a whole number (status 400)"},
		"unavailable":     {503, `{"error":"store unavailable"}`, fleet.ErrUnavailable, "store unavailable (status 503)"},
		"future":          {400, `{"error":"sent_at lies in the future","server_time":"2026-03-14T09:26:53Z"}`, fleet.ErrFutureReport, "server time is 2026-03-14T09:26:53Z"},
		"a page":          {502, `<html>Bad gateway</html>`, nil, "Bad Gateway (status 502)"},
		"a long sentence": {400, `{"error":"` + strings.Repeat("é", 10_000) + `"}`, fleet.ErrInvalid, "… (status 400)"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newStub(t, tc.status, tc.body)
			p.header.Set("Retry-After", "7")
			_, err := newClient(t, []string{p.URL}).Push(t.Context(), fleet.Report{})
			if err == nil || !strings.Contains(err.Error(), tc.says) || (tc.is != nil && !errors.Is(err, tc.is)) {
				t.Fatalf("error is %v, want %q that is %v", err, tc.says, tc.is)
			}
			if len(err.Error()) > 500 || strings.Contains(err.Error(), secret) {
				t.Errorf("error is %s", err)
			}
			var status *syncapi.StatusError
			if errors.As(err, &status) && (status.Status != tc.status || status.RetryAfter != 7*time.Second) {
				t.Errorf("status error is %+v, want %d and 7 s", status, tc.status)
			}
		})
	}
	t.Run("of several primaries name each", func(t *testing.T) {
		first, second := closed(t), newStub(t, 503, `{"error":"busy"}`)
		_, err := newClient(t, []string{first, second.URL}).Push(t.Context(), fleet.Report{})
		for _, want := range []string{strings.TrimPrefix(first, "http://"), strings.TrimPrefix(second.URL, "http://"), "refused", "busy"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error is %v, want it to name %s", err, want)
			}
		}
	})
}

func TestARedirectDoesNotGetTheToken(t *testing.T) {
	thief := newStub(t, 200, pushedOK)
	for _, status := range []int{301, 302, 303, 307, 308} {
		p := newStub(t, status, "")
		p.header.Set("Location", thief.URL+"/sync/stats")
		_, err := newClient(t, []string{p.URL}).Push(t.Context(), fleet.Report{})
		if err == nil || !strings.Contains(err.Error(), "redirects are not followed") {
			t.Errorf("after a %d the error is %v", status, err)
		}
	}
	if got := thief.asked.Load(); got != 0 {
		t.Errorf("the other host was asked %d times: %v", got, thief.last.Header)
	}
}

func TestAHungPrimaryFreezesNothing(t *testing.T) {
	t.Run("a request ends after its time-out", func(t *testing.T) {
		c := newClient(t, []string{hung(t)}, func(o *replica.ClientOptions) { o.Timeout = 50 * time.Millisecond })
		started := time.Now()
		if _, err := c.Push(t.Context(), fleet.Report{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v, want deadline exceeded", err)
		}
		if took := time.Since(started); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
	t.Run("one that sends its answer byte by byte as well", func(t *testing.T) {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for r.Context().Err() == nil {
				<-tick.C
				io.WriteString(w, " ")
				http.NewResponseController(w).Flush() //nolint:errcheck // until the client is gone
			}
		}))
		defer s.Close()
		c := newClient(t, []string{s.URL}, func(o *replica.ClientOptions) { o.Timeout = 100 * time.Millisecond })
		if _, err := c.Push(t.Context(), fleet.Report{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v, want deadline exceeded", err)
		}
	})
	t.Run("a deadline is shared, so that the next primary has its turn", func(t *testing.T) {
		second := newStub(t, 200, pushedOK)
		c := newClient(t, []string{hung(t), second.URL})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second*slack)
		defer cancel()
		if _, err := c.Push(ctx, fleet.Report{}); err != nil {
			t.Errorf("error is %v, want the second's answer", err)
		}
	})
	t.Run("a wait has its own time on top", func(t *testing.T) {
		p := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(300 * time.Millisecond):
			case <-r.Context().Done():
			}
			io.WriteString(w, `{"policy_hash":"h"}`)
		}))
		defer p.Close()
		c := newClient(t, []string{p.URL}, func(o *replica.ClientOptions) { o.Timeout = 100 * time.Millisecond })
		if reply, err := c.Wait(t.Context(), "old", 5*time.Second); err != nil || reply.PolicyHash != "h" {
			t.Errorf("got %+v, %v, want the hash", reply, err)
		}
	})
}

func TestLongBodiesArePacked(t *testing.T) {
	p := newStub(t, 200, pushedOK)
	c := newClient(t, []string{p.URL})
	report := fleet.Report{Slices: slicesOf(50)}
	if _, err := c.Push(t.Context(), report); err != nil {
		t.Fatal(err)
	}
	if got := p.last.Header.Get("Content-Encoding"); got != "zstd" {
		t.Fatalf("content-encoding is %q, want zstd", got)
	}
	d, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	body, err := d.DecodeAll(p.sent, nil)
	if err != nil || !bytes.Contains(body, []byte(`"slices":[{"size":"1m"`)) || len(p.sent)*4 > len(body) {
		t.Errorf("%d bytes unpack to %d, %v: %.80s", len(p.sent), len(body), err, body)
	}
	if _, err := c.Heartbeat(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := p.last.Header.Get("Content-Encoding"); got != "" || string(p.sent) != "{}" {
		t.Errorf("a heartbeat is %q as %q, want {} as it is", p.sent, got)
	}
	p.becomes(415, `{"error":"content-encoding"}`)
	if _, err := c.Push(t.Context(), report); syncapi.StatusOf(err) != 415 {
		t.Errorf("error is %v, want 415 of the plain body too", err)
	}
	if got := p.last.Header.Get("Content-Encoding"); got != "" || !bytes.HasPrefix(p.sent, []byte("{")) {
		t.Errorf("after a 415 the body is sent as %q", got)
	}
	p.becomes(200, pushedOK)
	asked := p.asked.Load()
	if _, err := c.Push(t.Context(), report); err != nil || p.asked.Load() != asked+1 || p.last.Header.Get("Content-Encoding") != "" {
		t.Errorf("the next push took %d requests as %q, %v, want one as it is", p.asked.Load()-asked, p.last.Header.Get("Content-Encoding"), err)
	}
}

func TestConnectionsAreKept(t *testing.T) {
	var made atomic.Int64
	p := &stub{status: 200, body: pushedOK}
	p.Server = httptest.NewUnstartedServer(p)
	p.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			made.Add(1)
		}
	}
	p.Start()
	defer p.Close()
	dialed := 0
	c := newClient(t, []string{p.URL}, func(o *replica.ClientOptions) {
		o.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			dialed++
			return new(net.Dialer).DialContext(ctx, network, address)
		}
	})
	for range 20 {
		if _, err := c.Push(t.Context(), fleet.Report{}); err != nil {
			t.Fatal(err)
		}
	}
	if made.Load() != 1 || dialed != 1 {
		t.Errorf("20 pushes made %d connections with %d dials, want 1", made.Load(), dialed)
	}
}

// A primary, or a proxy in front of it, closes idle connections at will; the push that finds out must not fail for it.
func TestAPushOnAConnectionThatWasClosedIsRepeated(t *testing.T) {
	var asked atomic.Int64
	p := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 2 {
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, pushedOK)
	}))
	defer p.Close()
	c := newClient(t, []string{p.URL})
	for i := range 2 {
		if _, err := c.Push(t.Context(), fleet.Report{}); err != nil {
			t.Errorf("push %d: %v", i+1, err)
		}
	}
	if got := asked.Load(); got != 3 {
		t.Errorf("the primary was asked %d times, want 3", got)
	}
}

func TestTLS(t *testing.T) {
	p := &stub{status: 200, body: pushedOK}
	p.Server = httptest.NewUnstartedServer(p)
	p.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	p.StartTLS()
	defer p.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	roots, err := replica.LoadRootCAs(file)
	if err != nil {
		t.Fatal(err)
	}
	trusting := newClient(t, []string{p.URL}, func(o *replica.ClientOptions) { o.RootCAs = roots })
	if _, err := trusting.Push(t.Context(), fleet.Report{}); err != nil {
		t.Errorf("with the primary's authority: %v", err)
	}
	var unknown x509.UnknownAuthorityError
	if _, err := newClient(t, []string{p.URL}).Push(t.Context(), fleet.Report{}); !errors.As(err, &unknown) {
		t.Errorf("without it the error is %v, want an unknown authority", err)
	}
	if p.asked.Load() != 1 {
		t.Errorf("the primary got %d requests, want the trusted one only", p.asked.Load())
	}
	if err := os.WriteFile(file, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := replica.LoadRootCAs(file); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("a file without certificates gives %v", err)
	}
	if _, err := replica.LoadRootCAs(file + ".missing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file gives %v", err)
	}
}

func TestClientRefusesOptionsThatCannotWork(t *testing.T) {
	for name, change := range map[string]func(*replica.ClientOptions){
		"no primary":               func(o *replica.ClientOptions) { o.PrimaryURLs = nil },
		"a primary without scheme": func(o *replica.ClientOptions) { o.PrimaryURLs = []string{"primary:8053"} },
		"a primary of files":       func(o *replica.ClientOptions) { o.PrimaryURLs = []string{"file:///etc"} },
		"a primary with password":  func(o *replica.ClientOptions) { o.PrimaryURLs = []string{"http://u:hidden@primary"} },
		"a primary with a query":   func(o *replica.ClientOptions) { o.PrimaryURLs = []string{"http://primary/?token=hidden"} },
		"no token":                 func(o *replica.ClientOptions) { o.Token = "" },
		"a token of two lines":     func(o *replica.ClientOptions) { o.Token = "hidden\r\nX-Other: 1" },
		"a token without end":      func(o *replica.ClientOptions) { o.Token = strings.Repeat("hidden", 100) },
		"no instance id":           func(o *replica.ClientOptions) { o.InstanceID = "" },
		"an instance id with gaps": func(o *replica.ClientOptions) { o.InstanceID = "attic pi" },
	} {
		o := replica.ClientOptions{PrimaryURLs: []string{"http://primary:8053"}, Token: secret, InstanceID: "attic-pi"}
		change(&o)
		if _, err := replica.NewClient(o); !errors.Is(err, fleet.ErrInvalid) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("with %s the error is %v, want one that is invalid and tells no secret", name, err)
		}
	}
}
