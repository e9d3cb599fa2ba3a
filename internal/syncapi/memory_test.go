package syncapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/syncapi"
	"dnsfleet/internal/webapi/apitest"
)

// storeTime is what memory's clock shows, within MaxFuture of the golden push.
var storeTime = time.Date(2026, 3, 14, 9, 26, 55, 0, time.UTC)

const golden = "testdata/push-v1.json"

// memory is a Store of maps. Its fields may be set before it is used, and through do while it is.
type memory struct {
	mu      sync.Mutex
	tokens  []fleet.Token
	policy  *fleet.PolicyDoc
	saved   []fleet.Report
	savedBy []string
	answer  fleet.Saved   // to SaveReport; Time is storeTime where it is zero
	fault   error         // of SaveReport and Policy
	panics  bool          // in SaveReport
	hold    chan struct{} // SaveReport waits for it
	reads   int           // of the policy
	deaf    bool          // Policy waits until its context ends
}

func (m *memory) do(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

func (m *memory) Now(context.Context) (time.Time, error) { return storeTime, nil }

func (m *memory) Authorize(_ context.Context, secret, instanceID string) (fleet.Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.tokens {
		switch {
		case !t.Matches(secret):
			continue
		case t.Revoked():
			return fleet.Token{}, fleet.ErrRevokedToken
		case !t.Any && !t.Binds(instanceID):
			return fleet.Token{}, fleet.ErrNotYours
		}
		return t, nil
	}
	return fleet.Token{}, fleet.ErrUnknownToken
}

func (m *memory) SaveReport(ctx context.Context, r fleet.Report, role fleet.Role, tokenID string) (fleet.Saved, error) {
	if m.hold != nil {
		select {
		case <-m.hold:
		case <-ctx.Done():
			return fleet.Saved{}, ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.panics:
		panic("no such luck")
	case m.fault != nil:
		return fleet.Saved{}, m.fault
	case r.SentAt.After(storeTime.Add(fleet.MaxFuture)):
		return fleet.Saved{}, fleet.ErrFutureReport
	}
	m.saved = append(m.saved, r)
	m.savedBy = append(m.savedBy, string(role)+" "+tokenID)
	answer := m.answer
	if answer.Time.IsZero() {
		answer.Time = storeTime
	}
	if answer.Result == "" {
		answer.Result = fleet.Stored
	}
	return answer, nil
}

func (m *memory) Policy(ctx context.Context) (fleet.PolicyDoc, error) {
	if m.deaf {
		<-ctx.Done()
		return fleet.PolicyDoc{}, ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	switch {
	case m.fault != nil:
		return fleet.PolicyDoc{}, m.fault
	case m.policy == nil:
		return fleet.PolicyDoc{}, fleet.ErrNotFound
	}
	return *m.policy, nil
}

func (m *memory) put(p fleet.Policy) fleet.PolicyDoc {
	m.mu.Lock()
	defer m.mu.Unlock()
	revision := int64(1)
	if m.policy != nil {
		revision = m.policy.Revision + 1
	}
	doc := fleet.NewPolicyDoc(p, revision, storeTime)
	m.policy = &doc
	return doc
}

func (m *memory) reports() []fleet.Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]fleet.Report{}, m.saved...)
}

// primary is a server on real HTTP with the token of attic-pi, and all that it logged.
type primary struct {
	*httptest.Server
	sync   *syncapi.Server
	store  *memory
	secret string
	token  fleet.Token
	log    *logBuffer
}

type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func newPrimary(t *testing.T, options ...func(*syncapi.ServerOptions)) *primary {
	t.Helper()
	token, secret := fleet.NewToken("attic", []string{"attic-pi"}, false, storeTime)
	p := &primary{store: &memory{tokens: []fleet.Token{token}}, secret: secret, token: token, log: new(logBuffer)}
	o := syncapi.ServerOptions{Store: p.store, Log: slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for _, option := range options {
		option(&o)
	}
	p.sync = syncapi.NewServer(o)
	p.Server = httptest.NewServer(apitest.Accepted(t, p.sync.Handler()))
	t.Cleanup(p.Close)
	return p
}

// run has the server's Run beside it until the test ends.
func (p *primary) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.sync.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
}

// request is one of attic-pi with its token; change may make it another.
func (p *primary) request(t *testing.T, method, path string, body []byte, change ...func(*http.Request)) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, p.URL+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+p.secret)
	r.Header.Set(syncapi.InstanceHeader, "attic-pi")
	for _, c := range change {
		c(r)
	}
	return r
}

type response struct {
	status int
	header http.Header
	body   string
}

func (p *primary) do(t *testing.T, r *http.Request) response {
	t.Helper()
	res, err := p.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{res.StatusCode, res.Header, string(body)}
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func without(names ...string) func(*http.Request) {
	return func(r *http.Request) {
		for _, name := range names {
			r.Header.Del(name)
		}
	}
}

// sentence is the error that a refusal names; a body in another shape fails the test.
func (r response) sentence(t *testing.T) string {
	t.Helper()
	var said struct{ Error string }
	if err := json.Unmarshal([]byte(r.body), &said); err != nil || said.Error == "" || strings.Contains(said.Error, "\n") {
		t.Errorf("refusal %d has the body %q, want {\"error\": one sentence}", r.status, r.body)
	}
	return said.Error
}

func decode[T any](t *testing.T, r response) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(r.body), &v); err != nil {
		t.Fatalf("answer %d is %q: %v", r.status, r.body, err)
	}
	return v
}

func readGolden(tb testing.TB) []byte {
	tb.Helper()
	body, err := os.ReadFile(golden)
	if err != nil {
		tb.Fatal(err)
	}
	return body
}

// edited is the golden push with one edit to its tree.
func edited(tb testing.TB, edit func(push map[string]any)) []byte {
	tb.Helper()
	var tree map[string]any
	if err := json.Unmarshal(readGolden(tb), &tree); err != nil {
		tb.Fatal(err)
	}
	edit(tree)
	body, err := json.Marshal(tree)
	if err != nil {
		tb.Fatal(err)
	}
	return body
}

// with is the golden push with one value, at a path of keys and indexes, replaced.
func with(tb testing.TB, value any, path ...any) []byte {
	tb.Helper()
	return edited(tb, func(push map[string]any) {
		var at any = push
		for _, step := range path[:len(path)-1] {
			switch key := step.(type) {
			case string:
				at = at.(map[string]any)[key]
			case int:
				at = at.([]any)[key]
			}
		}
		at.(map[string]any)[path[len(path)-1].(string)] = value
	})
}
