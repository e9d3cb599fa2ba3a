package signin

import (
	"bytes"
	_ "embed"
	"errors"
	"html/template"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/httpjson"
)

const maxBody = 64 << 10

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS []byte

var pageTemplate = template.Must(template.New("signin").Parse(pageHTML))

// Require lets only requests through to next that have a session; others get 401.
func (g *Gate) Require(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch ok, err := g.SignedIn(r); {
		case err != nil:
			g.fail(w, r, err)
		case !ok:
			httpjson.Error(w, http.StatusUnauthorized, "sign in first")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// Session is GET /api/auth/session.
func (g *Gate) Session(w http.ResponseWriter, r *http.Request) {
	ok, err := g.SignedIn(r)
	if err != nil {
		g.fail(w, r, err)
		return
	}
	httpjson.Write(w, http.StatusOK, sessionState{Authenticated: ok, Open: g.hash == nil})
}

type sessionState struct {
	Authenticated bool `json:"authenticated"`
	Open          bool `json:"open"` // nobody needs to sign in
}

// Login is POST /api/auth/login.
func (g *Gate) Login(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Password string `json:"password"`
	}
	if err := httpjson.Read(w, r, maxBody, &body); err != nil {
		g.fail(w, r, err)
		return
	}
	if err := g.SignIn(w, r, body.Password); err != nil {
		if status, sentence := refusal(w, err); status != 0 {
			httpjson.Error(w, status, sentence)
			return
		}
		g.fail(w, r, err)
		return
	}
	httpjson.Write(w, http.StatusOK, sessionState{Authenticated: true, Open: g.hash == nil})
}

// refusal is the status and sentence for a sign-in that was refused, 0 for other errors.
func refusal(w http.ResponseWriter, err error) (status int, sentence string) {
	var tooMany *TooManyError
	switch {
	case errors.Is(err, ErrWrongPassword):
		return http.StatusUnauthorized, "the password is not right"
	case errors.As(err, &tooMany):
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(tooMany.RetryAfter.Seconds()))))
		return http.StatusTooManyRequests, tooMany.Error()
	}
	return 0, ""
}

// Logout is POST /api/auth/logout.
func (g *Gate) Logout(w http.ResponseWriter, r *http.Request) {
	if err := g.SignOut(w, r); err != nil {
		g.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// Page is GET /login, a page without scripts.
func (g *Gate) Page(w http.ResponseWriter, r *http.Request) {
	next := localPath(r.URL.Query().Get("next"))
	if ok, err := g.SignedIn(r); ok && err == nil {
		http.Redirect(w, r, next, http.StatusSeeOther) //nolint:gosec // localPath leads nowhere else
		return
	}
	g.render(w, r, http.StatusOK, next, "")
}

// Form is POST /login, which that page sends.
func (g *Gate) Form(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseForm(); err != nil {
		g.render(w, r, http.StatusBadRequest, "/", "The form did not arrive whole. Try again.")
		return
	}
	next := localPath(r.PostForm.Get("next"))
	err := g.SignIn(w, r, r.PostForm.Get("password"))
	if err == nil {
		http.Redirect(w, r, next, http.StatusSeeOther) //nolint:gosec // localPath leads nowhere else
		return
	}
	status, sentence := refusal(w, err)
	if status == 0 {
		g.log.WarnContext(r.Context(), "sign-in failed", "err", err)
		status, sentence = http.StatusServiceUnavailable, fleet.ErrUnavailable.Error()
	}
	g.render(w, r, status, next, strings.ToUpper(sentence[:1])+sentence[1:]+".")
}

func (g *Gate) render(w http.ResponseWriter, r *http.Request, status int, next, problem string) {
	var page bytes.Buffer
	if err := pageTemplate.Execute(&page, struct{ Next, Problem string }{next, problem}); err != nil {
		g.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(page.Bytes())
}

// Style is GET /login/style.css.
func (g *Gate) Style(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.Write(pageCSS)
}

// localPath is path if it leads to a page of this server, else "/".
func localPath(path string) string {
	u, err := url.Parse(path)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") ||
		strings.ContainsAny(path, "\\\r\n\t") || strings.HasPrefix(path, "/login") {
		return "/"
	}
	return path
}

// fail answers with what err stands for, and logs what the client is not told.
func (g *Gate) fail(w http.ResponseWriter, r *http.Request, err error) {
	if httpjson.Status(err) >= http.StatusInternalServerError {
		g.log.WarnContext(r.Context(), "session request failed", "path", r.URL.Path, "err", err)
	}
	httpjson.Fail(w, err)
}
