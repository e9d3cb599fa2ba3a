package webapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/breakdown"
	log "dnsfleet/internal/querylog/sqlite"
	"dnsfleet/internal/store/sqlite"
	"dnsfleet/internal/webapi"
)

// questions are the paths under /api/queries/ that answer in JSON.
var questions = []string{"summary", "latency", "time-series", "upstream-stats", "top-domains", "top-clients", "recent"}

// odd are texts that mean something to a database, a browser or a spreadsheet, and here are names.
var odd = []string{
	`' OR 1=1 --`, `"; DROP TABLE events; --`, `x') UNION SELECT 1 --`, `%`, `_`, `\`, `{d:String}`, `?1`, `$1`, "nul\x00byte",
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `=HYPERLINK("http://evil.test")`, `+1`, `-1`, `@SUM(1)`, "a\"b,c\nd",
}

// asked are the events of the tests: 40 queries of two instances in the last half hour.
func asked() (events map[string][]fleet.QueryEvent) {
	events = map[string][]fleet.QueryEvent{}
	now := time.Now().UTC()
	at := now.Add(-30 * time.Minute)
	if midnight := now.Truncate(24 * time.Hour); at.Before(midnight) { // a batch is of one day
		at = midnight
	}
	for i := range 40 {
		id := []string{"home-1", "cabin"}[i%2]
		e := fleet.QueryEvent{
			Time: at.Add(time.Duration(i) * time.Millisecond), Client: netip.MustParseAddr("2001:db8::1"), ClientName: odd[i%len(odd)], Protocol: "udp",
			QName: "www.example.com.", QType: 28, QClass: 1, Outcome: fleet.Cached, Duration: time.Duration(i+1) * time.Millisecond,
		}
		switch i % 4 {
		case 0:
			e.QName, e.Outcome, e.List, e.RCode = "ads.example.", fleet.Blocked, odd[i%len(odd)], 3
		case 1:
			e.QName, e.QType, e.Outcome, e.Upstream = "ex.org.", 1, fleet.Upstream, "udp://192.0.2.1:53"
		}
		events[id] = append(events[id], e)
	}
	return events
}

// withLog makes a site answer from a real log with what was asked. logs says where instances log to.
func withLog(t *testing.T, store *sqlite.Store, logs map[string]string) func(*webapi.Options) {
	t.Helper()
	l, err := log.Open(t.Context(), log.Options{Path: filepath.Join(t.TempDir(), "queries.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for id, events := range asked() {
		if err := l.Write(t.Context(), querylog.Batch{InstanceID: id, BootID: "b1", Seq: 1, Events: events}); err != nil {
			t.Fatal(err)
		}
	}
	return answering(breakdown.Options{Reader: l, LogID: func() string { return "sqlite:home-1" }}, store, logs)
}

// withoutLog makes a site answer from reports.
func withoutLog(store *sqlite.Store) func(*webapi.Options) {
	return answering(breakdown.Options{}, store, map[string]string{"home-1": "off", "cabin": "off"})
}

func answering(o breakdown.Options, store *sqlite.Store, logs map[string]string) func(*webapi.Options) {
	o.Slices, o.Retention, o.History = store.Slices, 7*24*time.Hour, 24*time.Hour
	o.Members = func() (list []breakdown.Member) {
		for id, queryLog := range logs {
			list = append(list, breakdown.Member{ID: id, DNS: true, QueryLog: queryLog})
		}
		return list
	}
	return func(w *webapi.Options) { w.Queries = breakdown.New(o) }
}

var allLogged = map[string]string{"home-1": "sqlite:home-1", "cabin": "sqlite:home-1"}

func TestQuestionsAboutQueries(t *testing.T) {
	store := openStore(t)
	s := newSite(t, store, withLog(t, store, allLogged))
	ask := func(path string) map[string]any {
		t.Helper()
		return into[map[string]any](t, s.get("/api/queries/"+path).want(t, http.StatusOK))
	}
	for name, c := range map[string]struct{ path, want string }{
		"summary":                  {"summary", `40 map[blocked:10 cached:20 upstream:10]`},
		"of one instance":          {"summary?instance=cabin", `20 map[cached:10 upstream:10]`},
		"of both":                  {"summary?instance=cabin&instance=home-1", `40 map[blocked:10 cached:20 upstream:10]`},
		"of both as a list":        {"summary?instance=cabin,home-1", `40 map[blocked:10 cached:20 upstream:10]`},
		"of one nobody knows":      {"summary?instance=nobody", `0 map[]`},
		"of a domain":              {"summary?domain=Example.COM.", `20 map[cached:20]`},
		"of the root":              {"summary?domain=.", `40 map[blocked:10 cached:20 upstream:10]`},
		"of a client, written out": {"summary?client=2001:0DB8:0:0::1", `40 map[blocked:10 cached:20 upstream:10]`},
		"of two outcomes":          {"summary?outcome=blocked&outcome=cached", `30 map[blocked:10 cached:20]`},
		"of a list of outcomes":    {"summary?outcome=blocked,cached", `30 map[blocked:10 cached:20]`},
		"of a type":                {"summary?qtype=a", `10 map[upstream:10]`},
		"of a type by number":      {"summary?qtype=TYPE28", `30 map[blocked:10 cached:20]`},
		"of an upstream":           {"summary?upstream=udp://192.0.2.1:53", `10 map[upstream:10]`},
		"of a week":                {"summary?window=7d", `40 map[blocked:10 cached:20 upstream:10]`},
		"of a time":                {"summary?from=" + url.QueryEscape(time.Now().Add(-24*time.Hour).Format(time.RFC3339)), `40 map[blocked:10 cached:20 upstream:10]`},
		"of a time long ago":       {"summary?from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z", `0 map[]`},
	} {
		t.Run(name, func(t *testing.T) {
			got := ask(c.path)
			if fmt.Sprint(got["total"], " ", got["outcomes"]) != c.want {
				t.Errorf("got %v %v, want %s", got["total"], got["outcomes"], c.want)
			}
			if got["enabled"] != true || got["source"] != "sqlite" {
				t.Errorf("got enabled %v, source %v", got["enabled"], got["source"])
			}
		})
	}
	for _, path := range questions[:6] {
		got := ask(path + "?group_by=instance")
		if groups, _ := got["groups"].([]any); len(groups) != map[bool]int{true: 1, false: 2}[path == "upstream-stats"] {
			t.Errorf("%s: got groups %v", path, got["groups"])
		}
		if got := ask(path); got["groups"] != nil {
			t.Errorf("%s: got groups that nobody asked for: %v", path, got["groups"])
		}
		if got, is := ask(path + "?group_by=instance&instance=nobody")["groups"].([]any); !is || len(got) != 0 {
			t.Errorf("%s: got groups %v of nobody, want []", path, got)
		}
	}
	latency := ask("latency")
	if p95, _ := latency["p95_ms"].(float64); latency["count"] != 40.0 || latency["avg_ms"] != 20.5 || p95 < 36 || p95 > 40 {
		t.Errorf("latency: got %v", latency)
	}
	series := ask("time-series")
	if points, _ := series["points"].([]any); len(points) != 60 || series["step_seconds"] != 60.0 {
		t.Errorf("series: got %d points of %v s, want an hour in minutes", len(points), series["step_seconds"])
	}
	if got := ask("time-series?window=7d"); got["step_seconds"] != 3600.0 {
		t.Errorf("series of a week: got steps of %v s", got["step_seconds"])
	}
	if got := ask("time-series?window=1d&step=30m"); got["step_seconds"] != 1800.0 {
		t.Errorf("series in half hours: got steps of %v s", got["step_seconds"])
	}
	if got := fmt.Sprint(ask("top-domains?limit=2")["items"]); got != "[map[count:20 error_bound:0 name:www.example.com] map[count:10 error_bound:0 name:ads.example]]" {
		t.Errorf("top domains: got %s", got)
	}
	if got := fmt.Sprint(ask("top-domains?outcome=blocked")["items"]); got != "[map[count:10 error_bound:0 name:ads.example]]" {
		t.Errorf("top blocked: got %s", got)
	}
	if got := fmt.Sprint(ask("upstream-stats")["upstreams"]); !strings.HasPrefix(got, "[map[address:udp://192.0.2.1:53 avg_ms:") {
		t.Errorf("upstreams: got %s", got)
	}
}

func TestRecentQueriesArePaged(t *testing.T) {
	store := openStore(t)
	s := newSite(t, store, withLog(t, store, allLogged))
	type page struct {
		Rows []fleet.QueryRow
		Next *string
	}
	seen, before := 0, time.Now().Add(time.Hour)
	for path := "/api/queries/recent?limit=7"; path != ""; {
		p := into[page](t, s.get(path).want(t, http.StatusOK))
		for _, r := range p.Rows {
			if r.TS.After(before) {
				t.Errorf("got a row of %s after one of %s", r.TS, before)
			}
			before = r.TS
			seen++
		}
		if path = ""; p.Next != nil {
			path = "/api/queries/recent?limit=7&cursor=" + url.QueryEscape(*p.Next)
		}
	}
	if seen != 40 {
		t.Errorf("got %d rows over all pages, want 40", seen)
	}
	if got := s.do(ask{path: "/api/queries/recent?cursor=1+OR+1%3D1"}).want(t, http.StatusBadRequest).sentence(t); !strings.Contains(got, "cursor") || strings.Contains(got, "invalid") {
		t.Errorf("got %q, want a sentence about the cursor", got)
	}
}

func TestWhatCannotBeAskedIsRefusedByName(t *testing.T) {
	store := openStore(t)
	s := newSite(t, store, withLog(t, store, allLogged))
	every := append([]string{"export"}, questions...)
	for name, c := range map[string]struct {
		query string
		says  string
		only  []string // paths; nil = every
	}{
		"a window of nothing":            {"window=0", "window", nil},
		"a window of no seconds":         {"window=0s", "window", nil},
		"a negative window":              {"window=-1h", "window", nil},
		"a window in words":              {"window=yesterday", "window", nil},
		"a window without a unit":        {"window=15", "window", nil},
		"a window with a foreign unit":   {"window=1y", "window", nil},
		"an empty window":                {"window=", "window", nil},
		"a window longer than any":       {"window=401d", "window", nil},
		"a window beyond numbers":        {"window=999999999999999999999d", "window", nil},
		"a window of NaN":                {"window=NaNd", "window", nil},
		"two windows":                    {"window=1h&window=2h", "window", nil},
		"a window and a begin":           {"window=1h&from=2026-01-01T00:00:00Z", "window", nil},
		"a window and an end":            {"window=1h&to=2026-01-01T00:00:00Z", "window", nil},
		"a begin that is no time":        {"from=noon", "from", nil},
		"an end that is no time":         {"to=2026-01-01", "to", nil},
		"a reversed window":              {"from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from", nil},
		"an empty span":                  {"from=2026-01-02T00:00:00Z&to=2026-01-02T00:00:00Z", "from", nil},
		"a begin in the future":          {"from=2999-01-02T00:00:00Z", "from", nil},
		"two years":                      {"from=2024-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "from", nil},
		"an outcome that is not":         {"outcome=happy", "outcome", nil},
		"an outcome in a list":           {"outcome=blocked,happy", "outcome", nil},
		"an empty outcome":               {"outcome=", "outcome", nil},
		"commas for outcomes":            {"outcome=,,", "outcome", nil},
		"a type that is not":             {"qtype=AAAAA", "qtype", nil},
		"a type beyond numbers":          {"qtype=TYPE65536", "qtype", nil},
		"SQL for a type":                 {"qtype=" + url.QueryEscape(`A' OR '1'='1`), "qtype", nil},
		"an instance with a blank":       {"instance=a+b", "instance", nil},
		"SQL for an instance":            {"instance=" + url.QueryEscape(`x' OR 1=1 --`), "instance", nil},
		"an empty instance":              {"instance=", "instance", nil},
		"an empty domain":                {"domain=", "domain", nil},
		"a domain that is no text":       {"domain=%ff%fe", "domain", nil},
		"a domain longer than any":       {"domain=" + strings.Repeat("a", 1025), "domain", nil},
		"two domains":                    {"domain=a&domain=b", "domain", nil},
		"an empty client":                {"client=", "client", nil},
		"an empty upstream":              {"upstream=", "upstream", nil},
		"a parameter that is not":        {"windw=1h", "windw", nil},
		"a parameter of another path":    {"format=csv", "format", questions},
		"a broken query string":          {"window=%", "query string", nil},
		"groups of something else":       {"group_by=client", "group_by", questions[:6]},
		"groups of rows":                 {"group_by=instance", "group_by", []string{"recent", "export"}},
		"no limit":                       {"limit=0", "limit", []string{"top-domains", "top-clients", "recent"}},
		"a negative limit":               {"limit=-1", "limit", []string{"top-domains", "top-clients", "recent"}},
		"a limit over the highest":       {"limit=1001", "limit", []string{"top-domains", "top-clients", "recent"}},
		"a limit that is no number":      {"limit=1e2", "limit", []string{"top-domains", "top-clients", "recent"}},
		"a limit where there is none":    {"limit=5", "limit", []string{"summary", "latency", "time-series", "upstream-stats", "export"}},
		"a cursor where there is none":   {"cursor=1", "cursor", []string{"summary", "top-domains", "export"}},
		"a step of seconds":              {"step=90s", "step", []string{"time-series"}},
		"a step of nothing":              {"step=0", "step", []string{"time-series"}},
		"a step that makes many points":  {"step=1m&window=7d", "step", []string{"time-series"}},
		"a step where there is none":     {"step=1m", "step", []string{"summary", "latency", "recent"}},
		"a format that is not":           {"format=xlsx", "format", []string{"export"}},
		"a cursor that nobody has given": {"cursor=" + url.QueryEscape(`1; DROP TABLE events`), "cursor", []string{"recent"}},
	} {
		t.Run(name, func(t *testing.T) {
			paths := c.only
			if paths == nil {
				paths = every
			}
			for _, path := range paths {
				got := s.do(ask{path: "/api/queries/" + path + "?" + c.query, bad: true}).want(t, http.StatusBadRequest).sentence(t)
				if !strings.Contains(got, c.says) || len(got) > 200 {
					t.Errorf("%s: got %q, want a sentence that names %q", path, got, c.says)
				}
			}
		})
	}
	for _, path := range every {
		got := s.do(ask{method: http.MethodPost, path: "/api/queries/" + path, bad: true}).want(t, http.StatusMethodNotAllowed)
		if got.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: got Allow %q", path, got.header.Get("Allow"))
		}
	}
}

func TestFiltersAreData(t *testing.T) {
	store := openStore(t)
	s := newSite(t, store, withLog(t, store, allLogged))
	total := func(query string) float64 {
		t.Helper()
		a := s.get("/api/queries/summary?"+query).want(t, http.StatusOK)
		n, _ := into[map[string]any](t, a)["total"].(float64)
		return n
	}
	for i, text := range odd {
		for _, filter := range []string{"domain", "upstream", "client"} {
			want := 0.0
			if filter == "client" { // they are names of clients, too
				want = map[bool]float64{true: 3, false: 2}[i < 40%len(odd)]
			}
			if got := total(url.Values{filter: {text}}.Encode()); got != want {
				t.Errorf("%s=%q: got %v, want %v", filter, text, got, want)
			}
			for _, path := range append([]string{"export"}, questions[1:]...) {
				s.get("/api/queries/"+path+"?"+url.Values{filter: {text}}.Encode()).want(t, http.StatusOK)
			}
		}
		for _, filter := range []string{"instance", "qtype", "outcome", "group_by", "window", "from", "cursor", "limit", "step", "format"} {
			for _, path := range append([]string{"export"}, questions...) {
				a := s.do(ask{path: "/api/queries/" + path + "?" + url.Values{filter: {text}}.Encode(), bad: true})
				if filter == "instance" && fleet.ValidID(text) || filter == "limit" && text == "+1" && a.status == http.StatusOK {
					continue
				}
				a.want(t, http.StatusBadRequest).sentence(t)
			}
		}
	}
	if got := total(""); got != 40 {
		t.Errorf("got %v queries in the end, want all 40", got)
	}
	a := s.get("/api/queries/recent")
	if a.header.Get("Content-Type") != "application/json" || a.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("got %v, want JSON that no browser takes for a page", a.header)
	}
	clients := map[string]bool{}
	for _, r := range into[struct{ Rows []fleet.QueryRow }](t, a).Rows {
		clients[r.ClientName] = true
	}
	for _, text := range odd {
		if !clients[text] {
			t.Errorf("client %q did not come back as it is: got %v", text, clients)
		}
	}
}

func TestQueriesOfInstancesThatLogElsewhere(t *testing.T) {
	store := openStore(t)
	s := newSite(t, store, withLog(t, store, map[string]string{"home-1": "sqlite:home-1", "cabin": "sqlite:home-2"}))
	r := report("cabin", "b1", 1, fleet.Outcomes{fleet.Cached: 5})
	r.Slices = []fleet.Slice{slice(fleet.Minute, time.Now().UTC().Truncate(time.Minute).Add(-10*time.Minute), "b1", 5, 0)}
	s.push(r)
	got := into[map[string]any](t, s.get("/api/queries/summary?group_by=instance").want(t, http.StatusOK))
	if got["source"] != "reports" || got["total"] != 5.0 || got["enabled"] != true {
		t.Errorf("got %v, want what both report", got)
	}
	got = into[map[string]any](t, s.get("/api/queries/summary?domain=example.com").want(t, http.StatusOK))
	if got["source"] != "sqlite" || fmt.Sprint(got["missing"]) != "[map[instance_id:cabin reason:logs to sqlite:home-2]]" {
		t.Errorf("got %v, want what the log has, and who is missing", got)
	}
}

func TestQuestionsWithoutAQueryLog(t *testing.T) {
	store := openStore(t)
	s := newSite(t, store, withoutLog(store))
	r := report("cabin", "b1", 1, fleet.Outcomes{fleet.Cached: 5})
	r.Slices = []fleet.Slice{slice(fleet.Minute, time.Now().UTC().Truncate(time.Minute).Add(-10*time.Minute), "b1", 5, 0)}
	s.push(r)
	for _, path := range questions {
		got := into[map[string]any](t, s.get("/api/queries/"+path).want(t, http.StatusOK))
		if got["enabled"] != false || got["source"] != "reports" {
			t.Errorf("%s: got %v", path, got)
		}
	}
	if got := into[map[string]any](t, s.get("/api/queries/summary")); got["total"] != 5.0 {
		t.Errorf("got %v, want the 5 queries that were reported", got)
	}
	for _, path := range questions[:6] {
		got := s.get("/api/queries/"+path+"?domain=example.com").want(t, http.StatusConflict).sentence(t)
		if !strings.Contains(got, "domain") || !strings.Contains(got, "query log is off") {
			t.Errorf("%s: got %q", path, got)
		}
	}
	got := s.get("/api/queries/recent?domain=example.com").want(t, http.StatusOK)
	if !strings.Contains(got.body, `"rows":[]`) || !strings.Contains(got.body, "the query log is off") {
		t.Errorf("recent: got %s", got.body)
	}
	export := s.get("/api/queries/export?format=csv").want(t, http.StatusOK)
	if export.header.Get("X-Dnsfleet-Enabled") != "false" || !strings.Contains(export.header.Get("X-Dnsfleet-Missing"), "the query log is off") ||
		export.body != "ts,instance_id,client_ip,client_name,protocol,qname,qtype,outcome,rcode,duration_ms,upstream_address,list\n" {
		t.Errorf("export: got %v\n%s", export.header, export.body)
	}
}

func TestQuestionsThatNobodyAnswers(t *testing.T) {
	s := newSite(t, openStore(t), nil)
	for _, path := range append([]string{"export"}, questions...) {
		s.get("/api/queries/"+path).want(t, http.StatusServiceUnavailable).sentence(t)
	}
}

func TestQuestionsTakeASession(t *testing.T) {
	store := openStore(t)
	s := newSite(t, store, func(o *webapi.Options) {
		withLog(t, store, allLogged)(o)
		withPassword(o)
	})
	for _, path := range append([]string{"export"}, questions...) {
		s.get("/api/queries/"+path).want(t, http.StatusUnauthorized).sentence(t)
	}
}

func TestAQuestionIsNotAnsweredOnceTheStoreIsGone(t *testing.T) {
	store := openStore(t)
	s := newSite(t, store, withoutLog(store))
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	got := s.get("/api/queries/summary").want(t, http.StatusServiceUnavailable)
	if got.sentence(t) != "store unavailable" || got.header.Get("Retry-After") == "" {
		t.Errorf("got %q, Retry-After %q", got.body, got.header.Get("Retry-After"))
	}
}

func TestExportsAreWhole(t *testing.T) {
	store := openStore(t)
	s := newSite(t, store, withLog(t, store, allLogged))
	a := s.get("/api/queries/export").want(t, http.StatusOK)
	if a.header.Get("Content-Type") != "application/x-ndjson" || a.header.Get("X-Dnsfleet-Source") != "sqlite" || a.header.Get("X-Dnsfleet-Missing") != "[]" {
		t.Errorf("got headers %v", a.header)
	}
	if name := a.header.Get("Content-Disposition"); !strings.HasPrefix(name, `attachment; filename="dnsfleet-queries-`) || !strings.HasSuffix(name, `Z.ndjson"`) {
		t.Errorf("got Content-Disposition %q", name)
	}
	lines := strings.Split(strings.TrimSuffix(a.body, "\n"), "\n")
	if len(lines) != 40 {
		t.Fatalf("got %d lines, want 40", len(lines))
	}
	for _, line := range lines {
		var row fleet.QueryRow
		if err := json.Unmarshal([]byte(line), &row); err != nil || row.TS.IsZero() {
			t.Errorf("got line %q: %v", line, err)
		}
	}
	if a := s.get("/api/queries/export?outcome=blocked").want(t, http.StatusOK); strings.Count(a.body, "\n") != 10 {
		t.Errorf("got %d rows of what was blocked, want 10", strings.Count(a.body, "\n"))
	}
	head := s.do(ask{method: http.MethodHead, path: "/api/queries/export?format=csv"}).want(t, http.StatusOK)
	if head.body != "" || head.header.Get("Content-Type") != "text/csv; charset=utf-8" {
		t.Errorf("HEAD: got %v, %q", head.header, head.body)
	}
}
