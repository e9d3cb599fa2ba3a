package webapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store/sqlite"
	"dnsfleet/internal/view"
	"dnsfleet/internal/webapi"
	"dnsfleet/internal/webapi/apitest"
)

const password = "correct horse battery staple"

// site is one primary's API on a real store, real sockets, and held to openapi.yaml.
type site struct {
	t      *testing.T
	url    string
	client *http.Client
	store  *sqlite.Store
	view   *view.View
}

// openStore makes an empty store that is closed when the test ends.
func openStore(t *testing.T) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "store.db"), StatsTTL: 15 * time.Minute, History: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// newSite serves an API on store, open unless change says otherwise.
func newSite(t *testing.T, store *sqlite.Store, change func(*webapi.Options)) *site {
	t.Helper()
	v := view.New(view.Options{Store: store, Local: local})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("view: %v", err)
		}
	})
	o := webapi.Options{View: v, Store: store, History: 24 * time.Hour, Open: true, Release: "1.2.3", Static: dashboard()}
	if change != nil {
		change(&o)
	}
	api, err := webapi.New(o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(apitest.Validator(t, api.Handler()))
	t.Cleanup(server.Close)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{
		Jar: jar, Timeout: 20 * time.Second, Transport: &http.Transport{DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(client.CloseIdleConnections)
	s := &site{t: t, url: server.URL, client: client, store: store, view: v}
	s.reload()
	return s
}

// withPassword makes a site ask for the password.
func withPassword(o *webapi.Options) {
	o.Open = false
	o.PasswordHash = hashOf(password)
}

func hashOf(password string) func(context.Context) (string, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	return func(context.Context) (string, error) { return string(hash), err }
}

func dashboard() fstest.MapFS {
	return fstest.MapFS{
		"index.html":            {Data: []byte("<!doctype html><title>dnsfleet</title>")},
		"assets/index-abc.js":   {Data: []byte(strings.Repeat("console.log('dnsfleet');\n", 200))},
		"assets/favicon-1.svg":  {Data: []byte("<svg/>")},
		"robots.txt":            {Data: []byte("User-agent: *\nDisallow: /\n")},
		"assets/font-abc.woff2": {Data: []byte("wOF2")},
	}
}

// local is the primary that answers.
func local() fleet.Instance {
	r := report("home-1", "boot-p", 1, fleet.Outcomes{fleet.Blocked: 20, fleet.Cached: 80})
	r.StartedAt = time.Unix(1_700_000_000, 0)
	return fleet.Instance{ID: r.InstanceID, Name: r.Name, DNS: true, BootID: r.BootID, Current: r.ResponseDistribution.Outcomes, Report: &r}
}

func report(id, boot string, seq uint64, counts fleet.Outcomes) fleet.Report {
	return fleet.Report{
		Protocol: fleet.Protocol, InstanceID: id, Name: "name of " + id, BootID: boot, Seq: seq, StartedAt: time.Now(), SentAt: time.Now(),
		IntervalSeconds: 10, Release: "1.2.3", PolicyUnapplied: []string{}, ResponseDistribution: fleet.Distribution{Outcomes: counts},
		Blocklist: fleet.BlocklistStats{Lists: []fleet.ListStats{}}, Upstreams: []fleet.UpstreamStats{}, Slices: []fleet.Slice{}, Acks: []fleet.Ack{},
	}
}

// push stores a report as a replica's.
func (s *site) push(r fleet.Report) {
	s.t.Helper()
	if _, err := s.store.SaveReport(s.t.Context(), r, fleet.RoleReplica, "t1"); err != nil {
		s.t.Fatal(err)
	}
	s.reload()
}

// reload makes the view show what the store has.
func (s *site) reload() {
	s.t.Helper()
	if err := s.view.Reload(s.t.Context(), fleet.Hint{}); err != nil {
		s.t.Fatal(err)
	}
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask is a request to be sent.
type ask struct {
	method, path, body string
	header             map[string]string
	bad                bool // breaks the description on purpose
}

func (s *site) do(a ask) answer {
	s.t.Helper()
	if a.method == "" {
		a.method = http.MethodGet
	}
	r, err := http.NewRequestWithContext(s.t.Context(), a.method, s.url+a.path, strings.NewReader(a.body))
	if err != nil {
		s.t.Fatal(err)
	}
	if a.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for name, value := range a.header {
		if name == "Host" {
			r.Host = value
		}
		r.Header.Set(name, value)
	}
	if a.bad {
		r = apitest.MarkBad(r)
	}
	res, err := s.client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(body)}
}

func (s *site) get(path string) answer { s.t.Helper(); return s.do(ask{path: path}) }

// want fails the test unless the answer has this status, and an error's body one sentence.
func (a answer) want(t *testing.T, status int) answer {
	t.Helper()
	if a.status != status {
		t.Fatalf("got status %d, want %d: %.500s", a.status, status, a.body)
	}
	return a
}

// sentence is the text of an error.
func (a answer) sentence(t *testing.T) string {
	t.Helper()
	var body struct{ Error string }
	if err := json.Unmarshal([]byte(a.body), &body); err != nil || body.Error == "" || strings.Contains(body.Error, "\n") {
		t.Fatalf("got %q, want one sentence as JSON", a.body)
	}
	return body.Error
}

func into[T any](t *testing.T, a answer) (v T) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader([]byte(a.body)))
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%v in %.500s", err, a.body)
	}
	return v
}

var errNotReady = errors.New("store: connection refused")
