package webapi_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
)

func TestStatsShowTheFleet(t *testing.T) {
	s := newSite(t, openStore(t), nil)
	s.push(report("cabin", "b1", 1, fleet.Outcomes{fleet.Blocked: 80, fleet.Cached: 20}))
	v := into[fleet.View](t, s.get("/api/instances/stats").want(t, http.StatusOK))
	if v.Primary == nil || *v.Primary.InstanceID != "home-1" || *v.Primary.Source != fleet.SourceLocal {
		t.Errorf("primary: got %+v, want the one that answers", v.Primary)
	}
	if len(v.Primaries) != 1 || len(v.Replicas) != 1 || *v.Replicas[0].InstanceID != "cabin" {
		t.Errorf("got %d primaries and %d replicas, want one of each", len(v.Primaries), len(v.Replicas))
	}
	if got := *v.Totals.BlockedPercent; got != 50 {
		t.Errorf("blocked: got %v %%, want 50", got)
	}
	if len(v.Errors) != 1 || v.Errors[0].Part != "queries" {
		t.Errorf("errors: got %+v, want only that there is no query log", v.Errors)
	}
}

func TestStatsTakesItsParameters(t *testing.T) {
	s := newSite(t, openStore(t), nil)
	for i := range 3 {
		s.push(report(fmt.Sprintf("r%d", i), "b1", 1, fleet.Outcomes{}))
	}
	for name, c := range map[string]struct {
		query string
		rows  int
		next  bool
	}{
		"none":                  {"", 3, false},
		"a limit":               {"?limit=2", 2, true},
		"the largest limit":     {"?limit=10000", 3, false},
		"a status":              {"?status=ok", 3, false},
		"statuses repeated":     {"?status=stale&status=never", 0, false},
		"statuses with a comma": {"?status=stale,ok", 3, false},
		"fields":                {"?fields=status,role", 3, false},
		"fields repeated":       {"?fields=status&fields=role", 3, false},
	} {
		t.Run(name, func(t *testing.T) {
			v := into[fleet.View](t, s.get("/api/instances/stats"+c.query).want(t, http.StatusOK))
			if len(v.Replicas) != c.rows || (v.Next != nil) != c.next {
				t.Errorf("got %d rows, next %v; want %d, %v", len(v.Replicas), v.Next, c.rows, c.next)
			}
		})
	}
	first := into[fleet.View](t, s.get("/api/instances/stats?limit=2"))
	second := into[fleet.View](t, s.get("/api/instances/stats?limit=2&cursor="+*first.Next))
	if len(second.Replicas) != 1 || second.Next != nil || *second.Replicas[0].InstanceID != "r2" {
		t.Errorf("second page: got %+v, want r2 and no more", second.Replicas)
	}
}

func TestStatsRefusesWhatMakesNoSense(t *testing.T) {
	s := newSite(t, openStore(t), nil)
	for name, c := range map[string]struct{ query, says string }{
		"an unknown field":          {"fields=name,secret", `"secret"`},
		"an unknown status":         {"status=ok,broken", `"broken"`},
		"a limit of nothing":        {"limit=0", "limit"},
		"a negative limit":          {"limit=-5", "limit"},
		"a limit that is no number": {"limit=many", "limit"},
		"an empty limit":            {"limit=", "limit"},
		"a limit past the largest":  {"limit=10001", "limit"},
		"a foreign cursor":          {"cursor=%21%21", "cursor"},
		"a broken query":            {"limit=%zz", "query string"},
		"markup":                    {"status=%3Cscript%3E", "script"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.do(ask{path: "/api/instances/stats?" + c.query, bad: true}).want(t, http.StatusBadRequest)
			if got := a.sentence(t); !strings.Contains(got, c.says) {
				t.Errorf("got %q, want it to name %s", got, c.says)
			}
		})
	}
}

func TestStatsAnswersNotModified(t *testing.T) {
	s := newSite(t, openStore(t), nil)
	s.push(report("cabin", "b1", 1, fleet.Outcomes{}))
	a := s.get("/api/instances/stats").want(t, http.StatusOK)
	etag := a.header.Get("ETag")
	for name, header := range map[string]string{"the tag": etag, "a list": `"x", ` + etag, "anything": "*", "the tag as a strong one": strings.TrimPrefix(etag, "W/")} {
		t.Run(name, func(t *testing.T) {
			again := s.do(ask{path: "/api/instances/stats", header: map[string]string{"If-None-Match": header}}).want(t, http.StatusNotModified)
			if again.body != "" || again.header.Get("ETag") != etag {
				t.Errorf("got body %q and ETag %s, want none and %s", again.body, again.header.Get("ETag"), etag)
			}
		})
	}
	s.push(report("cabin", "b1", 2, fleet.Outcomes{fleet.Cached: 1}))
	s.do(ask{path: "/api/instances/stats", header: map[string]string{"If-None-Match": etag}}).want(t, http.StatusOK)
}

func TestStatsIsCompressedForThoseWhoTakeIt(t *testing.T) {
	s := newSite(t, openStore(t), nil)
	for name, c := range map[string]struct {
		accept string
		zipped bool
	}{
		"who says nothing":  {"", false},
		"who takes gzip":    {"br, gzip;q=0.8", true},
		"who refuses gzip":  {"gzip;q=0", false},
		"who takes it all":  {"*", true},
		"who takes brotli":  {"br", false},
		"who writes it odd": {" GZIP ; q=1 ", true},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.do(ask{path: "/api/instances/stats", header: map[string]string{"Accept-Encoding": c.accept}}).want(t, http.StatusOK)
			if got := a.header.Get("Content-Encoding") == "gzip"; got != c.zipped {
				t.Fatalf("gzip: got %v, want %v", got, c.zipped)
			}
			if a.header.Get("Vary") != "Accept-Encoding" {
				t.Errorf("Vary: got %q", a.header.Get("Vary"))
			}
			if c.zipped {
				zip, err := gzip.NewReader(strings.NewReader(a.body))
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(zip)
				if err != nil {
					t.Fatal(err)
				}
				a.body = string(text)
			}
			into[fleet.View](t, a)
		})
	}
}

func TestHEADAnswersWithoutABody(t *testing.T) {
	s := newSite(t, openStore(t), nil)
	for _, path := range []string{"/api/instances/stats", "/api/status", "/healthz", "/readyz", "/", "/assets/index-abc.js", "/api/openapi.yaml"} {
		a := s.do(ask{method: http.MethodHead, path: path, header: map[string]string{"Accept-Encoding": "gzip"}}).want(t, http.StatusOK)
		if a.body != "" {
			t.Errorf("%s: got a body", path)
		}
	}
}

func TestABrokenStoreEmptiesNoAnswer(t *testing.T) {
	store := openStore(t)
	s := newSite(t, store, nil)
	s.push(report("cabin", "b1", 1, fleet.Outcomes{fleet.Cached: 5}))
	store.Close()
	deadline := time.Now().Add(10 * time.Second)
	for {
		v := into[fleet.View](t, s.get("/api/instances/stats").want(t, http.StatusOK))
		if len(v.Replicas) != 1 || v.Replicas[0].ResponseDistribution.Total() != 5 {
			t.Fatalf("got replicas %+v, want the one with its counts", v.Replicas)
		}
		if v.Errors[0].Part == "store" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("got errors %+v, want the store named", v.Errors)
		}
	}
	s.get("/api/instances/cabin").want(t, http.StatusOK)
	if got := into[map[string]any](t, s.get("/api/status").want(t, http.StatusOK))["status"]; got != "degraded" {
		t.Errorf("status: got %v, want degraded", got)
	}
	for _, a := range []ask{
		{path: "/api/policy"},
		{path: "/api/sync/tokens"},
		{path: "/api/instances/cabin/history"},
		{method: http.MethodDelete, path: "/api/instances/cabin"},
		{method: http.MethodPost, path: "/api/sync/tokens", body: `{"name":"new"}`},
		{method: http.MethodPut, path: "/api/policy", body: `{}`, header: map[string]string{"If-Match": `"x"`}},
	} {
		got := s.do(a).want(t, http.StatusServiceUnavailable)
		if got.header.Get("Retry-After") == "" || got.sentence(t) != "store unavailable" {
			t.Errorf("%s %s: got %q, Retry-After %q", a.method, a.path, got.body, got.header.Get("Retry-After"))
		}
	}
}

func TestOneInstanceTellsMore(t *testing.T) {
	s := newSite(t, openStore(t), nil)
	r := report("cabin", "b1", 1, fleet.Outcomes{})
	r.ControlURL = "https://cabin.example:8081"
	r.Upstreams = []fleet.UpstreamStats{{Address: "udp://192.0.2.1:53", Count: 7, Errors: 1}}
	s.push(r)
	got := into[struct {
		InstanceID string `json:"instance_id"`
		ControlURL string `json:"control_url"`
		Upstreams  []fleet.UpstreamStats
	}](t, s.get("/api/instances/cabin").want(t, http.StatusOK))
	if got.InstanceID != "cabin" || got.ControlURL != r.ControlURL || len(got.Upstreams) != 1 || got.Upstreams[0].Count != 7 {
		t.Errorf("got %+v", got)
	}
	s.get("/api/instances/nobody").want(t, http.StatusNotFound).sentence(t)
	s.do(ask{path: "/api/instances/" + strings.Repeat("x", 65), bad: true}).want(t, http.StatusNotFound).sentence(t)
	s.do(ask{path: "/api/instances/a%20b", bad: true}).want(t, http.StatusNotFound).sentence(t)
}

func TestForgettingAnInstance(t *testing.T) {
	s := newSite(t, openStore(t), nil)
	r := report("cabin", "b1", 1, fleet.Outcomes{fleet.Cached: 3})
	s.push(r)
	del := ask{method: http.MethodDelete, path: "/api/instances/cabin"}
	s.do(del).want(t, http.StatusNoContent)
	if v := into[fleet.View](t, s.get("/api/instances/stats")); len(v.Replicas) != 0 {
		t.Errorf("got %d replicas right after, want none", len(v.Replicas))
	}
	s.get("/api/instances/cabin").want(t, http.StatusNotFound)
	s.do(del).want(t, http.StatusNotFound).sentence(t)
	r.Seq = 2
	if _, err := s.store.SaveReport(t.Context(), r, fleet.RoleReplica, "t1"); err == nil {
		t.Error("a late push of the forgotten boot was taken")
	}
	s.do(ask{method: http.MethodDelete, path: "/api/instances/home-1"}).want(t, http.StatusConflict).sentence(t)
}

func TestNamesAreNeverMarkup(t *testing.T) {
	s := newSite(t, openStore(t), nil)
	r := report("cabin", "b1", 1, fleet.Outcomes{})
	r.Name = `<script>alert(1)</script>`
	r.Upstreams = []fleet.UpstreamStats{{Address: `"><img src=x onerror=alert(1)>`}}
	s.push(r)
	for _, path := range []string{"/api/instances/stats", "/api/instances/cabin"} {
		a := s.get(path).want(t, http.StatusOK)
		if a.header.Get("Content-Type") != "application/json" || a.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: got %v, want JSON that no browser takes for a page", path, a.header)
		}
	}
	v := into[fleet.View](t, s.get("/api/instances/stats"))
	if v.Replicas[0].Name != r.Name {
		t.Errorf("got name %q, want it as it is", v.Replicas[0].Name)
	}
}

func TestStatusIsFlat(t *testing.T) {
	s := newSite(t, openStore(t), nil)
	got := into[map[string]any](t, s.get("/api/status").want(t, http.StatusOK))
	for name, want := range map[string]any{
		"status": "ok", "queries": 100.0, "blocked": 20.0, "blocked_percent": 20.0, "cached_percent": 80.0, "error_percent": 0.0,
		"instances_reporting": 1.0, "instances_total": 1.0, "queries_per_second": nil, "p95_ms": nil, "release": "1.2.3", "policy_revision": 0.0,
	} {
		if got[name] != want {
			t.Errorf("%s: got %v, want %v", name, got[name], want)
		}
	}
	r := report("gone", "b1", 1, fleet.Outcomes{})
	r.IntervalSeconds = 0.001
	s.push(r)
	for name, value := range got {
		if _, nested := value.(map[string]any); nested {
			t.Errorf("%s is no flat value", name)
		}
	}
}
