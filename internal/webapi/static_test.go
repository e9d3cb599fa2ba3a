package webapi_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/webapi"
)

var html = map[string]string{"Accept": "text/html,*/*"}

func TestTheDashboardAndItsFiles(t *testing.T) {
	s := newSite(t, openStore(t), nil)
	for name, c := range map[string]struct {
		path        string
		header      map[string]string
		status      int
		kind, cache string
	}{
		"the page":                    {"/", html, 200, "text/html; charset=utf-8", "no-cache"},
		"the page by its name":        {"/index.html", html, 200, "text/html; charset=utf-8", "no-cache"},
		"an address of the dashboard": {"/instances/cabin", html, 200, "text/html; charset=utf-8", "no-cache"},
		"the same, by a program":      {"/instances/cabin", nil, 404, "application/json", "no-store"},
		"a script":                    {"/assets/index-abc.js", nil, 200, "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"},
		"a font":                      {"/assets/font-abc.woff2", nil, 200, "font/woff2", "public, max-age=31536000, immutable"},
		"a file beside the page":      {"/robots.txt", nil, 200, "text/plain; charset=utf-8", "no-cache"},
		"a script that is not there":  {"/assets/index-old.js", html, 404, "application/json", "no-store"},
		"a folder":                    {"/assets/", nil, 404, "application/json", "no-store"},
		"an API path that is not":     {"/api/nothing", html, 404, "application/json", "no-store"},
		"the sync API":                {"/sync/config", html, 404, "application/json", "no-store"},
		"a way out":                   {"/..%2f..%2fetc%2fpasswd", nil, 404, "application/json", "no-store"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.do(ask{path: c.path, header: c.header, bad: true})
			if a.status != c.status || a.header.Get("Content-Type") != c.kind || a.header.Get("Cache-Control") != c.cache {
				t.Errorf("got %d, %q, %q; want %d, %q, %q", a.status, a.header.Get("Content-Type"), a.header.Get("Cache-Control"), c.status, c.kind, c.cache)
			}
			if csp := a.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'self'") || !strings.Contains(csp, "frame-ancestors 'none'") ||
				!strings.Contains(csp, "base-uri 'none'") || !strings.Contains(csp, "form-action 'self'") || strings.Contains(csp, "unsafe") {
				t.Errorf("got Content-Security-Policy %q", csp)
			}
			if a.header.Get("X-Content-Type-Options") != "nosniff" || a.header.Get("Referrer-Policy") != "no-referrer" {
				t.Errorf("got headers %v", a.header)
			}
		})
	}
	js := s.do(ask{path: "/assets/index-abc.js", header: map[string]string{"Accept-Encoding": "gzip"}})
	if js.header.Get("Content-Encoding") != "gzip" || len(js.body) > 500 {
		t.Errorf("got a script of %d bytes, %q", len(js.body), js.header.Get("Content-Encoding"))
	}
	s.do(ask{path: "/", header: map[string]string{"If-None-Match": s.get("/").header.Get("ETag")}}).want(t, http.StatusNotModified)
}

func TestABuildWithoutDashboardSaysSo(t *testing.T) {
	s := newSite(t, openStore(t), func(o *webapi.Options) { o.Static = nil })
	if got := s.do(ask{path: "/", header: html}).want(t, http.StatusNotFound).sentence(t); !strings.Contains(got, "dashboard") {
		t.Errorf("got %q", got)
	}
}

func TestMethodsThatAPathDoesNotHave(t *testing.T) {
	s := newSite(t, openStore(t), nil)
	for path, want := range map[string]string{
		"/api/instances/stats":         "GET, HEAD",
		"/api/instances/x":             "DELETE, GET, HEAD",
		"/api/policy":                  "GET, PUT, HEAD",
		"/api/policy/validate":         "POST",
		"/api/sync/tokens":             "GET, POST, HEAD",
		"/api/sync/tokens/x":           "DELETE",
		"/api/auth/login":              "POST",
		"/healthz":                     "GET, HEAD",
		"/login":                       "GET, POST, HEAD",
		"/assets/index-abc.js":         "GET, HEAD",
		"/api/instances/stats/history": "GET, HEAD",
	} {
		a := s.do(ask{method: http.MethodPatch, path: path, bad: true})
		if a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != want {
			t.Errorf("%s: got %d, Allow %q; want 405, %q", path, a.status, a.header.Get("Allow"), want)
			continue
		}
		a.sentence(t)
	}
}

func TestHealthAndReadiness(t *testing.T) {
	var reason error
	s := newSite(t, openStore(t), func(o *webapi.Options) { o.Ready = func() error { return reason } })
	if got := s.get("/healthz").want(t, http.StatusOK); strings.TrimSpace(got.body) != "ok" {
		t.Errorf("got %q", got.body)
	}
	if got := strings.TrimSpace(s.get("/readyz").want(t, http.StatusOK).body); got != `{"ready":true,"reasons":[]}` {
		t.Errorf("got %s", got)
	}
	reason = errors.Join(errNotReady, errors.New("list ads was never loaded"))
	got := into[struct{ Reasons []string }](t, s.get("/readyz").want(t, http.StatusServiceUnavailable))
	if want := []string{"store: connection refused", "list ads was never loaded"}; !slices.Equal(got.Reasons, want) {
		t.Errorf("got %q, want %q", got.Reasons, want)
	}
	reason = fmt.Errorf("start: %w", errNotReady)
	if got := into[struct{ Reasons []string }](t, s.get("/readyz").want(t, http.StatusServiceUnavailable)); !slices.Equal(got.Reasons, []string{"start: store: connection refused"}) {
		t.Errorf("got %q", got.Reasons)
	}
}

func TestMetricsAreServedAsTheyAre(t *testing.T) {
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		io.WriteString(w, "dnsfleet_up 1\n")
	})
	s := newSite(t, openStore(t), func(o *webapi.Options) { withPassword(o); o.Metrics = metrics })
	if got := s.get("/metrics").want(t, http.StatusOK).body; got != "dnsfleet_up 1\n" {
		t.Errorf("got %q", got)
	}
	none := newSite(t, openStore(t), nil)
	none.do(ask{path: "/metrics", bad: true}).want(t, http.StatusNotFound)
}

func TestAPanicIsAnAnswer(t *testing.T) {
	s := newSite(t, openStore(t), func(o *webapi.Options) {
		o.CheckPolicy = func(fleet.Policy) error { panic("secret") }
	})
	a := s.do(ask{method: http.MethodPost, path: "/api/policy/validate", body: "{}", header: map[string]string{"Accept-Encoding": "gzip"}}).want(t, http.StatusInternalServerError)
	if got := a.sentence(t); got != "internal error" {
		t.Errorf("got %q", got)
	}
	s.get("/healthz").want(t, http.StatusOK)
}

func TestTheDescriptionIsServedAndNamesWhatThereIs(t *testing.T) {
	s := newSite(t, openStore(t), func(o *webapi.Options) { o.Metrics = http.NotFoundHandler() })
	a := s.get("/api/openapi.yaml").want(t, http.StatusOK)
	file, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if a.body != string(file) || string(webapi.OpenAPI()) != string(file) {
		t.Error("what is served is not the file")
	}
	doc, err := openapi3.NewLoader().LoadFromData([]byte(a.body))
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range doc.Paths.Map() {
		if !strings.HasPrefix(path, "/api/") {
			continue
		}
		for method := range item.Operations() {
			got := s.do(ask{method: method, path: strings.ReplaceAll(path, "{id}", "x"), bad: true})
			if got.status == http.StatusMethodNotAllowed || strings.Contains(got.body, "no such API path") {
				t.Errorf("%s %s is described and not there: %d %s", method, path, got.status, got.body)
			}
		}
	}
}

func TestOptionsThatMakeNoSense(t *testing.T) {
	s := newSite(t, openStore(t), nil)
	for name, o := range map[string]webapi.Options{
		"no view":                  {Store: s.store, Open: true},
		"no store":                 {View: s.view, Open: true},
		"no password and not open": {View: s.view, Store: s.store},
	} {
		if _, err := webapi.New(o); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}
