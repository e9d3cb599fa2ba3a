package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dnsfleet/internal/control"
	"dnsfleet/internal/fleet"
	"dnsfleet/internal/webapi/apitest"
)

// engine remembers what was asked of it.
type engine struct {
	mu        sync.Mutex
	calls     []string
	reloading chan struct{} // closed when Reload may end; nil = at once
	fault     error
}

func (e *engine) call(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls = append(e.calls, fmt.Sprintf(format, args...))
}

func (e *engine) Blocklist() fleet.BlocklistStats {
	return fleet.BlocklistStats{Blocked: 3, Allow: 1, Deny: 2}
}

func (e *engine) Cache() fleet.CacheStats {
	return fleet.CacheStats{Hits: 3, Misses: 1, HitRate: new(75.0), LRU: fleet.LRUStats{Entries: 9, MaxEntries: 10, Fresh: 4, Stale: 3, Expired: 2}}
}

func (e *engine) Refresh() fleet.RefreshStats {
	return fleet.RefreshStats{LastSweepTime: new(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)), LastSweepCount: 4, BatchSize: 200, StatsWindowSec: 86400}
}

func (e *engine) Reload(ctx context.Context) error {
	e.call("reload")
	if e.reloading != nil {
		select {
		case <-e.reloading:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return e.fault
}

func (e *engine) Pause(d time.Duration) { e.call("pause %v", d) }
func (e *engine) Resume()               { e.call("resume") }
func (e *engine) ClearCache() int       { e.call("clear"); return 9 }
func (e *engine) Upstreams() any        { return []string(nil) }
func (e *engine) Ready() error          { return e.fault }

func (e *engine) Check(name string) control.Decision {
	e.call("check %s", name)
	return control.Decision{Blocked: true, Rule: "ads.example", List: "mine", Kind: "blocked"}
}

func serve(t *testing.T, o control.Options) string {
	t.Helper()
	s := httptest.NewServer(apitest.Accepted(t, control.New(o)))
	t.Cleanup(s.Close)
	return s.URL
}

func do(t *testing.T, method, url, body string, header ...string) (status int, text string, h http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(b), answer.Header
}

func TestAnswersFieldForField(t *testing.T) {
	for name, c := range map[string]struct {
		method, path, body, want string
	}{
		"sizes of the lists": {"GET", "/blocklists/stats", "", `{"blocked":3,"allow":1,"deny":2,"paused":false,"lists":[]}`},
		"cache": {"GET", "/cache/stats", "", `{"hits":3,"misses":1,"hit_rate":75,
			"lru":{"entries":9,"max_entries":10,"fresh":4,"stale":3,"expired":2},"redis_keys":0,"redis_max_keys":0}`},
		"refresh-ahead": {"GET", "/cache/refresh/stats", "", `{"last_sweep_time":"2026-03-01T12:00:00Z","last_sweep_count":4,"last_sweep_removed_count":0,
			"average_per_sweep_24h":0,"std_dev_per_sweep_24h":0,"sweeps_24h":0,"refreshed_24h":0,"removed_24h":0,"batch_size":200,"stats_window_sec":86400}`},
		"no query log":             {"GET", "/querystore/stats", "", `{"enabled":false}`},
		"no upstreams":             {"GET", "/upstreams", "", `{"upstreams":[]}`},
		"decision about a name":    {"GET", "/blocked/check?domain=Sub.Ads.Example.", "", `{"domain":"sub.ads.example","blocked":true,"rule":"ads.example","list":"mine","kind":"blocked"}`},
		"reload":                   {"POST", "/blocklists/reload", "", `{"ok":true}`},
		"pause until resumed":      {"POST", "/blocklists/pause", "", `{"ok":true,"paused":true}`},
		"resume":                   {"POST", "/blocklists/resume", "", `{"ok":true,"paused":false}`},
		"clear the cache":          {"POST", "/cache/clear", "", `{"ok":true,"cleared":9}`},
		"health":                   {"GET", "/health", "", `{"ok":true}`},
		"an empty object pauses":   {"POST", "/blocklists/pause", `{}`, `{"ok":true,"paused":true}`},
		"an object that is padded": {"POST", "/blocklists/pause", "  {}\n", `{"ok":true,"paused":true}`},
	} {
		t.Run(name, func(t *testing.T) {
			status, got, h := do(t, c.method, serve(t, control.Options{Engine: &engine{}})+c.path, c.body)
			if status != http.StatusOK || h.Get("Content-Type") != "application/json" {
				t.Errorf("got %d %s, want 200 and JSON", status, h.Get("Content-Type"))
			}
			if diff := cmp.Diff(decode(t, c.want), decode(t, got)); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}

func decode(t *testing.T, text string) (v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return v
}

func TestPause(t *testing.T) {
	for name, c := range map[string]struct {
		path, body string
		status     int
		want       string
	}{
		"seconds":                       {"", `{"seconds":90}`, 200, "pause 1m30s"},
		"minutes":                       {"", `{"duration_minutes":5}`, 200, "pause 5m0s"},
		"a duration in the query":       {"?duration=5m", "", 200, "pause 5m0s"},
		"a whole day":                   {"?duration=24h", "", 200, "pause 24h0m0s"},
		"nothing":                       {"", "", 200, "pause 0s"},
		"zero":                          {"", `{"seconds":0}`, 400, ""},
		"a negative number":             {"", `{"seconds":-5}`, 400, ""},
		"more than a day":               {"", `{"seconds":86401}`, 400, ""},
		"a number beyond all durations": {"", `{"seconds":1e300}`, 400, ""},
		"both":                          {"?duration=5m", `{"seconds":5}`, 400, ""},
		"text instead of a duration":    {"?duration=soon", "", 400, ""},
		"text instead of a number":      {"", `{"seconds":"5"}`, 400, ""},
		"an unknown field":              {"", `{"second":5}`, 400, ""},
		"no JSON":                       {"", `seconds=5`, 400, ""},
		"a long body":                   {"", `{"seconds":5` + strings.Repeat(" ", 10000) + `}`, 413, ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := &engine{}
			status, text, _ := do(t, "POST", serve(t, control.Options{Engine: e})+"/blocklists/pause"+c.path, c.body)
			if status != c.status {
				t.Errorf("status: got %d, want %d: %s", status, c.status, text)
			}
			if got := strings.Join(e.calls, ", "); got != c.want {
				t.Errorf("engine: got %q, want %q", got, c.want)
			}
			if until := strings.Contains(text, `"until"`); until != (c.status == 200 && c.want != "pause 0s") {
				t.Errorf("answer: got %s, want until only for a pause that ends by itself", text)
			}
		})
	}
}

func TestCheckValidatesTheDomain(t *testing.T) {
	for name, c := range map[string]struct {
		query  string
		status int
	}{
		"an ordinary name":        {"domain=good.example", 200},
		"an underscore":           {"domain=_dmarc.good.example", 200},
		"none":                    {"", 400},
		"an empty one":            {"domain=", 400},
		"the root":                {"domain=.", 400},
		"two":                     {"domain=a.example&domain=b.example", 400},
		"an empty label":          {"domain=a..example", 400},
		"a long label":            {"domain=" + strings.Repeat("a", 64) + ".example", 400},
		"a long name":             {"domain=" + strings.Repeat("a.", 127) + "example", 400},
		"a space":                 {"domain=a%20b.example", 400},
		"a line end":              {"domain=a%0ab.example", 400},
		"an URL":                  {"domain=https://a.example/", 400},
		"a name that is no ASCII": {"domain=b%C3%BCcher.example", 400},
		"bytes that are no text":  {"domain=%ff.example", 400},
	} {
		t.Run(name, func(t *testing.T) {
			e := &engine{}
			status, text, _ := do(t, "GET", serve(t, control.Options{Engine: e})+"/blocked/check?"+c.query, "")
			if status != c.status || (len(e.calls) == 1) != (status == 200) {
				t.Errorf("got %d and %v, want %d: %s", status, e.calls, c.status, text)
			}
		})
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("good.example")
	f.Add("..")
	f.Add("\xff\x00")
	// The engine is asked only about names that DNS can carry, in lower case and without the final dot.
	f.Fuzz(func(t *testing.T, domain string) {
		e := &engine{}
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/blocked/check", nil)
		q := r.URL.Query()
		q.Set("domain", domain)
		r.URL.RawQuery, r.Host = q.Encode(), "localhost"
		w := httptest.NewRecorder()
		control.New(control.Options{Engine: e}).ServeHTTP(w, r)
		for _, call := range e.calls {
			name := strings.TrimPrefix(call, "check ")
			if len(name) > 253 || name != strings.ToLower(name) || strings.ContainsAny(name, " \n/\\") || slices.Contains(strings.Split(name, "."), "") {
				t.Errorf("asked about %q", name)
			}
		}
		if !json.Valid(w.Body.Bytes()) {
			t.Errorf("answer is no JSON: %q", w.Body)
		}
	})
}

func TestWrongRequestsAreAnsweredInJSON(t *testing.T) {
	url := serve(t, control.Options{Engine: &engine{}})
	for name, c := range map[string]struct {
		method, path string
		status       int
		allow        string
	}{
		"an unknown path":             {"GET", "/nothing", 404, ""},
		"the root":                    {"GET", "/", 404, ""},
		"reading what must be posted": {"GET", "/cache/clear", 405, "POST"},
		"posting what is read":        {"POST", "/cache/stats", 405, "GET"},
		"a method nobody knows":       {"BREW", "/health", 405, "GET"},
	} {
		t.Run(name, func(t *testing.T) {
			status, text, h := do(t, c.method, url+c.path, "")
			var body struct{ Error string }
			if err := json.Unmarshal([]byte(text), &body); err != nil || body.Error == "" || status != c.status || h.Get("Allow") != c.allow {
				t.Errorf("got %d %q, Allow %q, want %d with a JSON error, Allow %q", status, text, h.Get("Allow"), c.status, c.allow)
			}
		})
	}
	if status, text, _ := do(t, "HEAD", url+"/health", ""); status != 200 || text != "" {
		t.Errorf("HEAD: got %d %q, want 200 and nothing", status, text)
	}
}

func TestToken(t *testing.T) {
	e := &engine{}
	url := serve(t, control.Options{Engine: e, Token: "secret"})
	for name, c := range map[string]struct {
		header []string
		status int
	}{
		"bearer":                          {[]string{"Authorization", "Bearer secret"}, 200},
		"bearer in small letters":         {[]string{"Authorization", "bearer secret"}, 200},
		"X-Auth-Token":                    {[]string{"X-Auth-Token", "secret"}, 200},
		"through a proxy":                 {[]string{"X-Auth-Token", "secret", "X-Forwarded-For", "203.0.113.9"}, 200},
		"none":                            {nil, 401},
		"a wrong one":                     {[]string{"Authorization", "Bearer secrets"}, 401},
		"an empty one":                    {[]string{"Authorization", "Bearer "}, 401},
		"another scheme":                  {[]string{"Authorization", "Basic secret"}, 401},
		"a wrong bearer, a right X-Token": {[]string{"Authorization", "Bearer no", "X-Auth-Token", "secret"}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			e.calls = nil
			status, text, h := do(t, "POST", url+"/cache/clear", "", c.header...)
			if status != c.status || (len(e.calls) > 0) != (status == 200) || (h.Get("WWW-Authenticate") != "") != (status == 401) {
				t.Errorf("got %d, calls %v, want %d: %s", status, e.calls, c.status, text)
			}
			if strings.Contains(text, "secret") {
				t.Errorf("answer tells the token: %s", text)
			}
		})
	}
	if status, _, _ := do(t, "GET", url+"/health", ""); status != 200 {
		t.Errorf("health without a token: got %d, want 200", status)
	}
}

func TestWithoutATokenOnlyThisMachineIsAnswered(t *testing.T) {
	url := serve(t, control.Options{Engine: &engine{}})
	if status, _, _ := do(t, "POST", url+"/cache/clear", "", "Origin", "https://evil.example"); status != 403 {
		t.Errorf("a page from elsewhere: got %d, want 403", status)
	}
	if status, _, _ := do(t, "GET", url+"/cache/stats", "", "X-Forwarded-For", "203.0.113.9"); status != 403 {
		t.Errorf("a forwarded request: got %d, want 403", status)
	}
}

func TestFaultsAreTold(t *testing.T) {
	url := serve(t, control.Options{Engine: &engine{fault: errors.New("list ads: connection refused")}})
	for path, want := range map[string]int{"/blocklists/reload": 502, "/health": 503} {
		method := "POST"
		if path == "/health" {
			method = "GET"
		}
		status, text, _ := do(t, method, url+path, "")
		if status != want || !strings.Contains(text, "list ads: connection refused") {
			t.Errorf("%s: got %d %s, want %d and the reason", path, status, text, want)
		}
	}
}

func TestOneReloadAtATime(t *testing.T) {
	e := &engine{reloading: make(chan struct{})}
	h := control.New(control.Options{Engine: e})
	post := func() int {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/blocklists/reload", nil)
		r.Host = "localhost"
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	first := make(chan int)
	go func() { first <- post() }()
	for started := false; !started; {
		e.mu.Lock()
		started = len(e.calls) > 0
		e.mu.Unlock()
	}
	if got := post(); got != http.StatusConflict {
		t.Errorf("second: got %d, want 409", got)
	}
	close(e.reloading)
	if got := <-first; got != http.StatusOK {
		t.Errorf("first: got %d, want 200", got)
	}
}
