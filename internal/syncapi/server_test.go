package syncapi_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/syncapi"
)

func TestEveryPathWantsTheRightMethod(t *testing.T) {
	p := newPrimary(t)
	for path, allow := range map[string]string{
		"/sync/config": "GET, HEAD", "/sync/stats": "POST", "/sync/events": "POST", "/sync/wait": "GET", "/sync/heartbeat": "POST", "/sync/status": "GET, HEAD",
	} {
		res := p.do(t, p.request(t, "DELETE", path, nil))
		res.sentence(t)
		if got := res.header.Get("Allow"); res.status != http.StatusMethodNotAllowed || got != allow {
			t.Errorf("DELETE %s is %d with Allow %q, want 405 with %q", path, res.status, got, allow)
		}
	}
	for _, path := range []string{"/sync/", "/sync/nothing", "/sync/config/", "//sync/config", "/sync/stats/../config", "/"} {
		res := p.do(t, p.request(t, "GET", path, nil))
		res.sentence(t)
		if res.status != http.StatusNotFound {
			t.Errorf("GET %s is %d, want 404", path, res.status)
		}
	}
}

func TestEveryPathWantsAToken(t *testing.T) {
	p := newPrimary(t)
	for path, method := range map[string]string{
		"/sync/config": "GET", "/sync/stats": "POST", "/sync/events": "POST", "/sync/wait": "GET", "/sync/heartbeat": "POST", "/sync/status": "GET",
	} {
		for name, tc := range map[string]struct {
			change func(*http.Request)
			status int
		}{
			"no token":              {without("Authorization"), 401},
			"wrong token":           {header("Authorization", "Bearer "+p.token.ID+".guess"), 401},
			"a token as basic auth": {header("Authorization", "Basic "+p.secret), 401},
			"no instance":           {without(syncapi.InstanceHeader), 400},
			"somebody else":         {header(syncapi.InstanceHeader, "cellar-pi"), 403},
		} {
			res := p.do(t, p.request(t, method, path, []byte("{}"), tc.change))
			res.sentence(t)
			if res.status != tc.status {
				t.Errorf("%s with %s is %d, want %d", path, name, res.status, tc.status)
			}
		}
	}
	if got := p.sync.Stats().Unauthorized; got != 30 {
		t.Errorf("counted %d unauthorized requests, want 30", got)
	}
	if strings.Contains(p.log.String(), p.secret) {
		t.Errorf("the secret was logged: %s", p.log)
	}
}

func TestStrangersCannotFloodTheLog(t *testing.T) {
	p := newPrimary(t)
	for range 200 {
		p.do(t, p.request(t, "GET", "/sync/status", nil, header("Authorization", "Bearer guess")))
	}
	if got := strings.Count(p.log.String(), "sync request refused"); got == 0 || got > 50 {
		t.Errorf("200 refusals made %d lines, want some and few", got)
	}
}

func TestHeartbeatAndStatus(t *testing.T) {
	p := newPrimary(t)
	res := p.do(t, p.request(t, "POST", "/sync/heartbeat", []byte("{}")))
	if want := `{"ok":true,"server_time":"2026-03-14T09:26:55Z"}` + "\n"; res.status != 200 || res.body != want {
		t.Errorf("heartbeat is %d %s, want %s", res.status, res.body, want)
	}
	if res := p.do(t, p.request(t, "POST", "/sync/heartbeat", []byte("beat"))); res.status != 400 {
		t.Errorf("heartbeat of no JSON is %d, want 400", res.status)
	}
	if res := p.do(t, p.request(t, "POST", "/sync/heartbeat", bytes.Repeat([]byte{' '}, 100<<10))); res.status != 413 {
		t.Errorf("heartbeat of 100 KiB is %d, want 413", res.status)
	}
	res = p.do(t, p.request(t, "GET", "/sync/status", nil))
	want := `{"ok":true,"server_time":"2026-03-14T09:26:55Z","instance_id":"attic-pi","token_id":"` + p.token.ID + `","policy_revision":0,"policy_hash":""}` + "\n"
	if res.status != 200 || res.body != want {
		t.Errorf("status is %d %s, want %s", res.status, res.body, want)
	}
	doc := p.store.put(fleet.DefaultPolicy())
	got := decode[syncapi.StatusReply](t, p.do(t, p.request(t, "GET", "/sync/status", nil)))
	if got.PolicyRevision != 1 || got.PolicyHash != doc.Hash {
		t.Errorf("status tells policy %d %s, want 1 %s", got.PolicyRevision, got.PolicyHash, doc.Hash)
	}
}

func TestAPanicIsOneAnswerAndNoMore(t *testing.T) {
	p := newPrimary(t)
	p.store.panics = true
	res := p.do(t, p.request(t, "POST", "/sync/stats", readGolden(t)))
	if got := res.sentence(t); res.status != 500 || got != "internal error" {
		t.Errorf("answer is %d %q, want 500 internal error", res.status, got)
	}
	if !strings.Contains(p.log.String(), "no such luck") {
		t.Errorf("log says nothing of it: %s", p.log)
	}
	p.store.panics = false
	if res := p.do(t, p.request(t, "POST", "/sync/stats", readGolden(t))); res.status != 200 {
		t.Errorf("the next push is %d %s", res.status, res.body)
	}
	if got := p.sync.Stats().PushesNow; got != 0 {
		t.Errorf("%d pushes still hold a slot", got)
	}
}

func TestOverloadShedsPushes(t *testing.T) {
	p := newPrimary(t, func(o *syncapi.ServerOptions) { o.MaxPushes = 4 })
	p.store.hold = make(chan struct{})
	answers := make(chan response, 4)
	for range 4 {
		r := p.request(t, "POST", "/sync/stats", readGolden(t))
		go func() { answers <- p.do(t, r) }()
	}
	eventually(t, "four pushes hold their slots", func() bool { return p.sync.Stats().PushesNow == 4 })
	res := p.do(t, p.request(t, "POST", "/sync/stats", readGolden(t)))
	if got := res.sentence(t); res.status != 503 || got != "too many pushes at once" {
		t.Errorf("the fifth is %d %q, want 503", res.status, got)
	}
	if after, err := strconv.Atoi(res.header.Get("Retry-After")); err != nil || after < 1 || after > 5 {
		t.Errorf("Retry-After is %q, want 1 to 5", res.header.Get("Retry-After"))
	}
	if res := p.do(t, p.request(t, "GET", "/sync/status", nil)); res.status != 200 {
		t.Errorf("status meanwhile is %d", res.status)
	}
	close(p.store.hold)
	slowed := 0
	for range 4 {
		res := <-answers
		if res.status != 200 {
			t.Errorf("a push that held a slot is %d %s", res.status, res.body)
			continue
		}
		switch next := decode[syncapi.PushReply](t, res).NextPushSeconds; next {
		case 15:
			slowed++
		case 10:
		default:
			t.Errorf("next push in %v s, want 10, or 15 under load", next)
		}
	}
	if slowed == 0 {
		t.Error("no push was asked to slow down although all slots were taken")
	}
	if got := p.sync.Stats().Pushes["shed"]; got != 1 {
		t.Errorf("counted %d shed, want 1", got)
	}
}

func TestAHungStoreIsUnavailable(t *testing.T) {
	p := newPrimary(t)
	p.store.hold = make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	w := httptest.NewRecorder()
	p.sync.Handler().ServeHTTP(w, p.request(t, "POST", "/sync/stats", readGolden(t)).WithContext(ctx))
	if w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("answer is %d %s, want 503 with Retry-After", w.Code, w.Body)
	}
}

func TestABombCostsLittleMemory(t *testing.T) {
	p := newPrimary(t)
	bomb := make([]byte, 16<<20)
	for coding, packed := range map[string][]byte{"gzip": zip(t, bomb), "zstd": zst(t, bomb)} {
		r := p.request(t, "POST", "/sync/stats", packed, header("Content-Encoding", coding))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		w := httptest.NewRecorder()
		p.sync.Handler().ServeHTTP(w, r)
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; w.Code != 413 || got > 8<<20 {
			t.Errorf("16 MiB in %d bytes of %s: status %d and %d KiB allocated, want 413 and at most 8 MiB", len(packed), coding, w.Code, got>>10)
		}
	}
}

// eventually waits for what another goroutine is about to do.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(10 * time.Second)
	for !is() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("never happened: %s", what)
		}
	}
}

// slack stretches what the contract promises of a machine that is not busy: tests run beside others.
const slack = 5
