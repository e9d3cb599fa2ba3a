package webapi

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
	"dnsfleet/internal/webapi/signin"
)

//go:embed signin.html
var signInHTML string

//go:embed signin.css
var signInCSS []byte

var signInTemplate = template.Must(template.New("signin").Parse(signInHTML))

// signedIn lets only people in who have signed in.
func (a *API) signedIn(next http.Handler) http.Handler {
	if a.Open {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch ok, err := a.gate.SignedIn(r); {
		case err != nil:
			a.fail(w, r, err)
		case !ok:
			httpjson.Error(w, http.StatusUnauthorized, "sign in first")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// session is GET /api/auth/session.
func (a *API) session(w http.ResponseWriter, r *http.Request) {
	ok := a.Open
	if !a.Open {
		var err error
		if ok, err = a.gate.SignedIn(r); err != nil {
			a.fail(w, r, err)
			return
		}
	}
	httpjson.Write(w, http.StatusOK, sessionState{Authenticated: ok, Open: a.Open})
}

type sessionState struct {
	Authenticated bool `json:"authenticated"`
	Open          bool `json:"open"` // nobody needs to sign in
}

// login is POST /api/auth/login.
func (a *API) login(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Password string `json:"password"`
	}
	if err := httpjson.Read(w, r, maxBody, &body); err != nil {
		a.fail(w, r, err)
		return
	}
	if !a.Open {
		if err := a.gate.SignIn(w, r, body.Password); err != nil {
			a.failSignIn(w, r, err)
			return
		}
	}
	httpjson.Write(w, http.StatusOK, sessionState{Authenticated: true, Open: a.Open})
}

// failSignIn answers a sign-in that did not succeed.
func (a *API) failSignIn(w http.ResponseWriter, r *http.Request, err error) {
	if status, sentence := signInProblem(w, err); status != 0 {
		httpjson.Error(w, status, sentence)
		return
	}
	a.fail(w, r, err)
}

// signInProblem is the status and sentence for an error of signin, 0 for others.
func signInProblem(w http.ResponseWriter, err error) (status int, sentence string) {
	var tooMany *signin.TooManyError
	switch {
	case errors.Is(err, signin.ErrWrongPassword):
		return http.StatusUnauthorized, "the password is not right"
	case errors.As(err, &tooMany):
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(tooMany.RetryAfter.Seconds()))))
		return http.StatusTooManyRequests, tooMany.Error()
	}
	return 0, ""
}

// logout is POST /api/auth/logout.
func (a *API) logout(w http.ResponseWriter, r *http.Request) {
	if !a.Open {
		if err := a.gate.SignOut(w, r); err != nil {
			a.fail(w, r, err)
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// signInPage is GET /login.
func (a *API) signInPage(w http.ResponseWriter, r *http.Request) {
	next := localPath(r.URL.Query().Get("next"))
	if a.Open {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	if ok, err := a.gate.SignedIn(r); ok && err == nil {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	a.renderSignIn(w, r, http.StatusOK, next, "")
}

// signInForm is POST /login.
func (a *API) signInForm(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseForm(); err != nil {
		a.renderSignIn(w, r, http.StatusBadRequest, "/", "The form did not arrive whole. Try again.")
		return
	}
	next := localPath(r.PostForm.Get("next"))
	if a.Open {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	err := a.gate.SignIn(w, r, r.PostForm.Get("password"))
	if err == nil {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	status, sentence := signInProblem(w, err)
	if status == 0 {
		a.Log.WarnContext(r.Context(), "sign-in failed", "err", err)
		status, sentence = http.StatusServiceUnavailable, fleet.ErrUnavailable.Error()
	}
	a.renderSignIn(w, r, status, next, strings.ToUpper(sentence[:1])+sentence[1:]+".")
}

func (a *API) renderSignIn(w http.ResponseWriter, r *http.Request, status int, next, problem string) {
	var page bytes.Buffer
	if err := signInTemplate.Execute(&page, struct{ Next, Problem string }{next, problem}); err != nil {
		a.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(page.Bytes())
}

func signInStyle(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.Write(signInCSS)
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
