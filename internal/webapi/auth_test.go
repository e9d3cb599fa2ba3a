package webapi_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"dnsfleet/internal/store/sqlite"
	"dnsfleet/internal/webapi"
	"dnsfleet/internal/webapi/signin"
)

func login(password string) ask {
	return ask{method: http.MethodPost, path: "/api/auth/login", body: `{"password":"` + password + `"}`}
}

func (s *site) signIn() *site {
	s.t.Helper()
	s.do(login(password)).want(s.t, http.StatusOK)
	return s
}

func TestNothingIsToldBeforeSignIn(t *testing.T) {
	s := newSite(t, openStore(t), withPassword)
	for _, a := range []ask{
		{path: "/api/instances/stats"},
		{path: "/api/instances/home-1"},
		{method: http.MethodDelete, path: "/api/instances/home-1"},
		{path: "/api/instances/home-1/history"},
		{path: "/api/status"},
		{path: "/api/policy"},
		{method: http.MethodPut, path: "/api/policy", body: `{}`},
		{method: http.MethodPost, path: "/api/policy/validate", body: `{}`},
		{path: "/api/sync/tokens"},
		{method: http.MethodPost, path: "/api/sync/tokens", body: `{"name":"x"}`},
		{method: http.MethodPost, path: "/api/sync/tokens/x/rotate"},
		{method: http.MethodDelete, path: "/api/sync/tokens/x"},
		{path: "/api/nothing", bad: true},
		{method: http.MethodPatch, path: "/api/policy", bad: true},
	} {
		got := s.do(a)
		if got.status != http.StatusUnauthorized {
			t.Errorf("%s %s: got %d, want 401", a.method, a.path, got.status)
		}
		got.sentence(t)
	}
	for _, path := range []string{"/healthz", "/readyz", "/api/auth/session", "/api/openapi.yaml", "/login", "/login/style.css", "/assets/index-abc.js"} {
		s.get(path).want(t, http.StatusOK)
	}
	if got := strings.TrimSpace(s.get("/api/auth/session").body); got != `{"authenticated":false,"open":false}` {
		t.Errorf("session: got %s", got)
	}
}

func TestSignInAndOut(t *testing.T) {
	s := newSite(t, openStore(t), withPassword)
	if got := s.do(login("wrong")).want(t, http.StatusUnauthorized).sentence(t); strings.Contains(got, "wrong") {
		t.Errorf("got %q, which tells what was sent", got)
	}
	a := s.do(login(password)).want(t, http.StatusOK)
	cookie := a.header.Get("Set-Cookie")
	for _, part := range []string{"dnsfleet=", "Path=/", "HttpOnly", "SameSite=Lax"} {
		if !strings.Contains(cookie, part) {
			t.Errorf("got cookie %q, want it with %s", cookie, part)
		}
	}
	s.get("/api/instances/stats").want(t, http.StatusOK)
	if got := strings.TrimSpace(s.get("/api/auth/session").body); got != `{"authenticated":true,"open":false}` {
		t.Errorf("session: got %s", got)
	}
	stolen := s.client.Jar.Cookies(mustURL(t, s.url))[0]
	s.do(ask{method: http.MethodPost, path: "/api/auth/logout"}).want(t, http.StatusNoContent)
	s.get("/api/instances/stats").want(t, http.StatusUnauthorized)
	s.do(ask{path: "/api/instances/stats", header: map[string]string{"Cookie": stolen.String()}}).want(t, http.StatusUnauthorized)
	s.do(ask{method: http.MethodPost, path: "/api/auth/logout"}).want(t, http.StatusNoContent)
	for _, forged := range []string{"", "x", strings.Repeat("x", 4000)} {
		s.do(ask{path: "/api/status", header: map[string]string{"Cookie": "dnsfleet=" + forged}}).want(t, http.StatusUnauthorized)
	}
}

func mustURL(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestOverHTTPSTheCookieIsBoundToItsHost(t *testing.T) {
	s := newSite(t, openStore(t), nil) // for its store and view
	o := webapi.Options{View: s.view, Store: s.store}
	withPassword(&o)
	api, err := webapi.New(o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewTLSServer(api.Handler())
	t.Cleanup(server.Close)
	s.url, s.client.Transport = server.URL, server.Client().Transport
	cookie := s.do(login(password)).want(t, http.StatusOK).header.Get("Set-Cookie")
	if !strings.HasPrefix(cookie, "__Host-dnsfleet=") || !strings.Contains(cookie, "Secure") {
		t.Errorf("got cookie %q, want __Host- and Secure", cookie)
	}
	s.get("/api/status").want(t, http.StatusOK)
}

func TestEveryPrimaryKnowsASession(t *testing.T) {
	store := openStore(t)
	one, two := newSite(t, store, withPassword), newSite(t, store, withPassword)
	cookie := strings.Split(one.do(login(password)).header.Get("Set-Cookie"), ";")[0]
	with := map[string]string{"Cookie": cookie}
	two.do(ask{path: "/api/status", header: with}).want(t, http.StatusOK)
	two.do(ask{method: http.MethodPost, path: "/api/auth/logout", header: with}).want(t, http.StatusNoContent)
	two.do(ask{path: "/api/status", header: with}).want(t, http.StatusUnauthorized)
}

func TestTheStoreKeepsNoCookie(t *testing.T) {
	seen := &sessionSpy{Store: openStore(t)}
	s := newSite(t, seen.Store, func(o *webapi.Options) { withPassword(o); o.Store = seen })
	cookie := s.do(login(password)).header.Get("Set-Cookie")
	if len(seen.ids) != 1 || strings.Contains(cookie, seen.ids[0]) || len(seen.ids[0]) != 64 {
		t.Errorf("got ids %q for cookie %q, want its hash", seen.ids, cookie)
	}
}

type sessionSpy struct {
	*sqlite.Store
	ids []string
}

func (s *sessionSpy) SaveSession(ctx context.Context, id string, data []byte, ttl time.Duration) error {
	s.ids = append(s.ids, id)
	return s.Store.SaveSession(ctx, id, data, ttl)
}

func TestAStoreThatIsAwaySignsNobodyOut(t *testing.T) {
	store := openStore(t)
	s := newSite(t, store, withPassword).signIn()
	store.Close()
	s.get("/api/instances/stats").want(t, http.StatusOK)
	s.client.Jar = nil
	s.do(ask{path: "/api/status", header: map[string]string{"Cookie": "dnsfleet=unknown"}}).want(t, http.StatusServiceUnavailable)
	cookie := strings.Split(s.do(login(password)).want(t, http.StatusOK).header.Get("Set-Cookie"), ";")[0]
	s.do(ask{path: "/api/instances/stats", header: map[string]string{"Cookie": cookie}}).want(t, http.StatusOK)
}

func TestWithoutAPasswordThatIsKnownNobodyComesIn(t *testing.T) {
	s := newSite(t, openStore(t), func(o *webapi.Options) {
		o.Open = false
		o.PasswordHash = func(context.Context) (string, error) { return "", errors.New("store away") }
	})
	s.do(login(password)).want(t, http.StatusServiceUnavailable)
	s.get("/api/status").want(t, http.StatusUnauthorized)
	empty := newSite(t, openStore(t), func(o *webapi.Options) {
		o.Open = false
		o.PasswordHash = func(context.Context) (string, error) { return "", nil }
	})
	empty.do(login("")).want(t, http.StatusUnauthorized)
}

func TestLongPasswordsCountInFull(t *testing.T) {
	long := strings.Repeat("x", 100)
	hash, err := signin.HashPassword(long + "a")
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, openStore(t), func(o *webapi.Options) {
		o.Open, o.PasswordHash = false, func(context.Context) (string, error) { return hash, nil }
	})
	s.do(login(long+"b")).want(t, http.StatusUnauthorized)
	s.do(login(long)).want(t, http.StatusUnauthorized)
	s.do(login(long+"a")).want(t, http.StatusOK)
	if _, err := signin.HashPassword(""); err == nil {
		t.Error("an empty password was hashed")
	}
}

func TestTheFirstPrimarysPasswordWins(t *testing.T) {
	store := openStore(t)
	var shown []string
	show := func(p string) { shown = append(shown, p) }
	first, err := signin.FirstPassword(t.Context(), store, show)
	if err != nil {
		t.Fatal(err)
	}
	second, err := signin.FirstPassword(t.Context(), store, show)
	if err != nil {
		t.Fatal(err)
	}
	if first != second || len(shown) != 1 {
		t.Fatalf("got hashes %q and %q, shown %d times; want one, shown once", first, second, len(shown))
	}
	if err := bcrypt.CompareHashAndPassword([]byte(first), []byte(shown[0])); err != nil {
		t.Errorf("the password that was shown does not fit: %v", err)
	}
}

func TestGuessingIsSlow(t *testing.T) {
	s := newSite(t, openStore(t), withPassword)
	var refused answer
	for range 30 {
		if refused = s.do(login("guess")); refused.status != http.StatusUnauthorized {
			break
		}
	}
	refused.want(t, http.StatusTooManyRequests).sentence(t)
	if refused.header.Get("Retry-After") == "" || refused.header.Get("Retry-After") == "0" {
		t.Errorf("got Retry-After %q, want seconds", refused.header.Get("Retry-After"))
	}
	s.do(login(password)).want(t, http.StatusTooManyRequests)
	form := s.do(ask{method: http.MethodPost, path: "/login", body: "password=guess", header: formHeader})
	if form.want(t, http.StatusTooManyRequests); !strings.Contains(form.body, "too many") && !strings.Contains(form.body, "Too many") {
		t.Errorf("the page does not say why: %s", form.body)
	}
	other := newSite(t, openStore(t), withPassword)
	for range 30 { // who knows the password may sign in as often as they like
		other.signIn()
	}
}

var formHeader = map[string]string{"Content-Type": "application/x-www-form-urlencoded"}

func TestTheSignInPage(t *testing.T) {
	s := newSite(t, openStore(t), withPassword)
	to := s.do(ask{path: "/instances/cabin?tab=1", header: map[string]string{"Accept": "text/html"}}).want(t, http.StatusSeeOther).header.Get("Location")
	if to != "/login?next=%2Finstances%2Fcabin%3Ftab%3D1" {
		t.Errorf("got redirect to %s", to)
	}
	page := s.get(to).want(t, http.StatusOK)
	for _, part := range []string{`<form method="post" action="/login">`, `value="/instances/cabin?tab=1"`} {
		if !strings.Contains(page.body, part) {
			t.Errorf("page lacks %s", part)
		}
	}
	if strings.Contains(page.body, "<script") || strings.Contains(page.body, "style=") {
		t.Error("the page has what its Content-Security-Policy forbids")
	}
	post := func(password, next string) answer {
		form := url.Values{"password": {password}, "next": {next}}
		return s.do(ask{method: http.MethodPost, path: "/login", body: form.Encode(), header: formHeader})
	}
	wrong := post("wrong<script>", "/x").want(t, http.StatusUnauthorized)
	if !strings.Contains(wrong.body, `role="alert"`) || strings.Contains(wrong.body, "<script") {
		t.Errorf("got %s, want the page with the reason", wrong.body)
	}
	if to := post(password, "/instances/cabin").want(t, http.StatusSeeOther).header.Get("Location"); to != "/instances/cabin" {
		t.Errorf("got redirect to %s", to)
	}
	s.get("/").want(t, http.StatusOK)
	for _, next := range []string{"https://evil.example/", "//evil.example", "///evil.example", `/\evil.example`, "evil", "", "javascript:alert(1)", "/\t/evil.example", "/login", "http:/x"} {
		if to := s.get("/login?"+url.Values{"next": {next}}.Encode()).want(t, http.StatusSeeOther).header.Get("Location"); to != "/" {
			t.Errorf("next=%q: got redirect to %s, want /", next, to)
		}
	}
	s.do(ask{method: http.MethodPost, path: "/login", body: strings.Repeat("x", 1<<17), header: formHeader}).want(t, http.StatusBadRequest)
}

func TestOtherPagesChangeNothing(t *testing.T) {
	for name, change := range map[string]func(*webapi.Options){"open": nil, "with a password": withPassword} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, openStore(t), change).signIn()
			for name, header := range map[string]map[string]string{
				"by Sec-Fetch-Site": {"Sec-Fetch-Site": "cross-site"},
				"of the same site":  {"Sec-Fetch-Site": "same-site"},
				"by Origin":         {"Origin": "https://evil.example"},
				"of no origin":      {"Origin": "null"},
			} {
				for _, a := range []ask{
					{method: http.MethodPost, path: "/api/sync/tokens", body: `{"name":"x"}`},
					{method: http.MethodDelete, path: "/api/instances/home-1"},
					{method: http.MethodPost, path: "/api/auth/login", body: `{"password":"x"}`},
					{method: http.MethodPost, path: "/login", body: "password=x"},
				} {
					a.header = header
					if got := s.do(a); got.status != http.StatusForbidden {
						t.Errorf("%s, %s %s: got %d, want 403", name, a.method, a.path, got.status)
					}
				}
			}
			own := map[string]string{"Origin": s.url, "Sec-Fetch-Site": "same-origin"}
			s.do(ask{method: http.MethodPost, path: "/api/sync/tokens", body: `{"name":"x"}`, header: own}).want(t, http.StatusCreated)
		})
	}
}

func TestAnOpenListenerIsForThisMachine(t *testing.T) {
	s := newSite(t, openStore(t), nil)
	for name, header := range map[string]map[string]string{
		"another Host":        {"Host": "evil.example"},
		"a forwarded request": {"X-Forwarded-For": "192.0.2.1"},
	} {
		for _, path := range []string{"/", "/api/instances/stats", "/healthz", "/metrics", "/login"} {
			if got := s.do(ask{path: path, header: header, bad: true}); got.status != http.StatusForbidden {
				t.Errorf("%s, %s: got %d, want 403", name, path, got.status)
			}
		}
	}
	if got := strings.TrimSpace(s.get("/api/auth/session").body); got != `{"authenticated":true,"open":true}` {
		t.Errorf("session: got %s", got)
	}
	s.get("/login").want(t, http.StatusSeeOther)
}
