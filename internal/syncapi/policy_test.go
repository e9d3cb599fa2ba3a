package syncapi_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/syncapi"
)

func TestConfigIsThePolicy(t *testing.T) {
	p := newPrimary(t)
	res := p.do(t, p.request(t, "GET", "/sync/config", nil))
	if got := res.sentence(t); res.status != 404 || got != "there is no policy yet" {
		t.Errorf("without a policy it is %d %q, want 404", res.status, got)
	}
	doc := p.store.put(fleet.DefaultPolicy())
	res = p.do(t, p.request(t, "GET", "/sync/config", nil))
	var tree map[string]json.RawMessage
	if err := json.Unmarshal([]byte(res.body), &tree); err != nil || res.status != 200 {
		t.Fatalf("answer is %d %s: %v", res.status, res.body, err)
	}
	for _, key := range []string{"revision", "hash", "updated_at", "policy"} {
		if tree[key] == nil {
			t.Errorf("answer lacks %s: %s", key, res.body)
		}
	}
	etag := res.header.Get("ETag")
	if etag != `"`+doc.Hash+`"` {
		t.Errorf("ETag is %s, want the hash %q", etag, doc.Hash)
	}
	for name, tc := range map[string]struct {
		header string
		status int
	}{
		"the same":            {etag, 304},
		"the same, weak":      {"W/" + etag, 304},
		"one of several":      {`"x", ` + etag, 304},
		"anything":            {"*", 304},
		"another":             {`"x"`, 200},
		"without its quotes":  {doc.Hash, 200},
		"the start of it":     {etag[:10] + `"`, 200},
		"nothing of the kind": {`,,""`, 200},
	} {
		res := p.do(t, p.request(t, "GET", "/sync/config", nil, header("If-None-Match", tc.header)))
		if res.status != tc.status || (tc.status == 304 && res.body != "") || res.header.Get("ETag") != etag {
			t.Errorf("If-None-Match with %s: %d with %d bytes and ETag %s, want %d", name, res.status, len(res.body), res.header.Get("ETag"), tc.status)
		}
	}
	policy := fleet.DefaultPolicy()
	policy.Deny = []string{"ads.example"}
	p.store.put(policy)
	if res := p.do(t, p.request(t, "GET", "/sync/config", nil, header("If-None-Match", etag))); res.status != 200 || res.header.Get("ETag") == etag {
		t.Errorf("after a change it is %d with ETag %s", res.status, res.header.Get("ETag"))
	}
	p.store.fault = fleet.ErrUnavailable
	if res := p.do(t, p.request(t, "GET", "/sync/config", nil)); res.status != 503 || res.header.Get("Retry-After") == "" {
		t.Errorf("without the store it is %d", res.status)
	}
}

func waitPath(hash, wait string) string {
	return "/sync/wait?" + url.Values{"policy_hash": {hash}, "wait": {wait}}.Encode()
}

func TestWaitAnswersAtOnceWhereThereIsNews(t *testing.T) {
	for name, heard := range map[string]string{"of nothing": "", "of an older policy": "older", "of this policy": "this"} {
		for _, have := range []string{"", "old"} {
			p := newPrimary(t)
			doc := p.store.put(fleet.DefaultPolicy())
			p.sync.PolicyChanged(strings.Replace(heard, "this", doc.Hash, 1))
			res := p.do(t, p.request(t, "GET", waitPath(have, "60s"), nil))
			if want := `{"policy_hash":"` + doc.Hash + `","commands":[]}` + "\n"; res.body != want {
				t.Errorf("a server that heard %s answers %q with %d %s, want %s", name, have, res.status, res.body, want)
			}
		}
	}
}

func TestWaitRefusesWhatIsNoDuration(t *testing.T) {
	p := newPrimary(t)
	res := p.do(t, p.request(t, "GET", "/sync/wait?wait=soon", nil))
	if got := res.sentence(t); res.status != 400 || got != "wait must be a duration such as 30s" {
		t.Errorf("answer is %d %q, want 400", res.status, got)
	}
}

func TestWaitWakesWithin100ms(t *testing.T) {
	p := newPrimary(t)
	p.run(t)
	doc := p.store.put(fleet.DefaultPolicy())
	p.sync.PolicyChanged(doc.Hash)
	answered := make(chan response, 20)
	for range cap(answered) {
		r := p.request(t, "GET", waitPath(doc.Hash, "60s"), nil)
		go func() { answered <- p.do(t, r) }()
	}
	eventually(t, "all wait", func() bool { return p.sync.Stats().WaitersNow == cap(answered) })
	policy := fleet.DefaultPolicy()
	policy.Deny = []string{"ads.example"}
	next := p.store.put(policy)
	changed := time.Now()
	p.sync.PolicyChanged(next.Hash)
	for range cap(answered) {
		if got := decode[syncapi.WaitReply](t, <-answered); got.PolicyHash != next.Hash {
			t.Errorf("answer tells %s, want %s", got.PolicyHash, next.Hash)
		}
	}
	if took := time.Since(changed); took > 100*time.Millisecond*slack {
		t.Errorf("the last waiter was answered after %v, want 100 ms", took)
	}
}

func TestWordWithoutAHashMakesTheServerLook(t *testing.T) {
	p := newPrimary(t)
	p.run(t)
	r := p.request(t, "GET", waitPath("", "60s"), nil)
	answered := make(chan response, 1)
	go func() { answered <- p.do(t, r) }()
	eventually(t, "it waits", func() bool { return p.sync.Stats().WaitersNow == 1 })
	doc := p.store.put(fleet.DefaultPolicy())
	p.sync.PolicyChanged("")
	if got := decode[syncapi.WaitReply](t, <-answered); got.PolicyHash != doc.Hash {
		t.Errorf("answer tells %q, want %s", got.PolicyHash, doc.Hash)
	}
}

func TestATokenRevokedMeanwhileIsToldSo(t *testing.T) {
	p := newPrimary(t)
	r := p.request(t, "GET", waitPath("", "60s"), nil)
	answered := make(chan response, 1)
	go func() { answered <- p.do(t, r) }()
	eventually(t, "it waits", func() bool { return p.sync.Stats().WaitersNow == 1 })
	p.store.do(func() { p.store.tokens[0].RevokedAt = storeTime })
	p.sync.PolicyChanged("new")
	if res := <-answered; res.status != 401 || strings.Contains(res.body, "new") {
		t.Errorf("answer is %d %s, want 401 and no hash", res.status, res.body)
	}
}

func TestWaitersAreBounded(t *testing.T) {
	p := newPrimary(t, func(o *syncapi.ServerOptions) { o.MaxWaiters = 1 })
	r := p.request(t, "GET", waitPath("", "60s"), nil)
	answered := make(chan response, 1)
	go func() { answered <- p.do(t, r) }()
	eventually(t, "it waits", func() bool { return p.sync.Stats().WaitersNow == 1 })
	res := p.do(t, p.request(t, "GET", waitPath("", "60s"), nil))
	if res.sentence(t); res.status != 503 || res.header.Get("Retry-After") == "" {
		t.Errorf("the second is %d, want 503 with Retry-After", res.status)
	}
	p.sync.PolicyChanged("new")
	if res := <-answered; res.status != 200 {
		t.Errorf("the first is %d", res.status)
	}
	eventually(t, "its slot is free", func() bool { return p.sync.Stats().WaitersNow == 0 })
}

func TestWaitersGoWhenTheServerStops(t *testing.T) {
	p := newPrimary(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.sync.Run(ctx) }()
	r := p.request(t, "GET", waitPath("", "60s"), nil)
	answered := make(chan response, 1)
	go func() { answered <- p.do(t, r) }()
	eventually(t, "it waits", func() bool { return p.sync.Stats().WaitersNow == 1 })
	stop()
	if res := <-answered; res.status != http.StatusServiceUnavailable {
		t.Errorf("the waiter is answered %d, want 503", res.status)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run returned %v", err)
	}
}

// waiting calls the handler with no network between, so that time may be a bubble's.
func waiting(p *syncapi.Server, secret, hash, wait string) (*httptest.ResponseRecorder, time.Duration) {
	r := httptest.NewRequest(http.MethodGet, waitPath(hash, wait), nil)
	r.Header.Set("Authorization", "Bearer "+secret)
	r.Header.Set(syncapi.InstanceHeader, "attic-pi")
	w, started := httptest.NewRecorder(), time.Now()
	p.Handler().ServeHTTP(w, r)
	return w, time.Since(started)
}

func newMemory() (store *memory, secret string) {
	token, secret := fleet.NewToken("attic", []string{"attic-pi"}, false, storeTime)
	return &memory{tokens: []fleet.Token{token}}, secret
}

func TestWaitEndsAfterItsTime(t *testing.T) {
	for asked, want := range map[string]time.Duration{
		"": 30 * time.Second, "30s": 30 * time.Second, "5s": 5 * time.Second, "1ms": time.Second, "-5s": time.Second, "24h": time.Minute,
	} {
		synctest.Test(t, func(t *testing.T) {
			store, secret := newMemory()
			w, took := waiting(syncapi.NewServer(syncapi.ServerOptions{Store: store}), secret, "", asked)
			if w.Code != 200 || w.Body.String() != `{"policy_hash":"","commands":[]}`+"\n" || took != want {
				t.Errorf("wait=%s is %d %s after %v, want the hash as it is after %v", asked, w.Code, w.Body, took, want)
			}
		})
	}
}

func TestAChangeWithoutWordIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, secret := newMemory()
		s := syncapi.NewServer(syncapi.ServerOptions{Store: store})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		time.Sleep(time.Minute)
		store.do(func() { store.reads = 0 })
		changed := make(chan fleet.PolicyDoc, 1)
		time.AfterFunc(12*time.Second, func() { changed <- store.put(fleet.DefaultPolicy()) })
		results := make(chan time.Duration, 100)
		for range cap(results) {
			go func() {
				w, took := waiting(s, secret, "", "60s")
				if w.Code != 200 {
					t.Errorf("answer is %d %s", w.Code, w.Body)
				}
				results <- took
			}()
		}
		for range cap(results) {
			if took := <-results; took < 12*time.Second || took > 17*time.Second {
				t.Errorf("answered after %v, want within 5 s of the change after 12 s", took)
			}
		}
		if got := store.reads; got > 5 {
			t.Errorf("%d waiters read the policy %d times, want once each 5 s in all", cap(results), got)
		}
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
}

// A replica that pulled a newer policy than this primary has heard of must not be sent in circles.
func TestAWaiterAheadOfTheFeedWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, secret := newMemory()
		s := syncapi.NewServer(syncapi.ServerOptions{Store: store})
		s.PolicyChanged("old")
		doc := store.put(fleet.DefaultPolicy())
		w, took := waiting(s, secret, doc.Hash, "20s")
		if w.Code != 200 || took != 20*time.Second || !strings.Contains(w.Body.String(), doc.Hash) {
			t.Errorf("answer is %d %s after %v, want its own hash after 20 s", w.Code, w.Body, took)
		}
	})
}

func TestACallerThatHangsUpFreesItsSlot(t *testing.T) {
	p := newPrimary(t)
	ctx, hangUp := context.WithCancel(t.Context())
	r := p.request(t, "GET", waitPath("", "60s"), nil).WithContext(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if res, err := p.Client().Do(r); err == nil {
			res.Body.Close()
			t.Error("the request was answered")
		}
	}()
	eventually(t, "it waits", func() bool { return p.sync.Stats().WaitersNow == 1 })
	hangUp()
	<-done
	eventually(t, "its slot is free", func() bool { return p.sync.Stats().WaitersNow == 0 })
}

// A listener's own time-outs are meant for short requests; a wait outlives them.
func TestWaitOutlivesTheListenersTimeouts(t *testing.T) {
	store, secret := newMemory()
	s := syncapi.NewServer(syncapi.ServerOptions{Store: store})
	listener := httptest.NewUnstartedServer(s.Handler())
	listener.Config.ReadTimeout, listener.Config.WriteTimeout = 300*time.Millisecond, 300*time.Millisecond
	listener.Start()
	defer listener.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, listener.URL+waitPath("", "1s"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	r.Header.Set(syncapi.InstanceHeader, "attic-pi")
	res, err := listener.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || string(body) != `{"policy_hash":"","commands":[]}`+"\n" {
		t.Errorf("answer is %d %q, %v, want 200 with the hash", res.StatusCode, body, err)
	}
}
