package webapi

import (
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"dnsfleet/internal/httpjson"
	"dnsfleet/internal/webapi/transfer"
)

const (
	storeTimeout = 5 * time.Second
	maxBody      = 64 << 10
	maxPolicy    = 1 << 20
)

// methods are the handlers of one path; GET answers HEAD too.
type methods map[string]http.HandlerFunc

func (a *API) router() http.Handler {
	r := mux.NewRouter().SkipClean(true) // a path means what it says, no redirects
	gzip := new(transfer.Gzip)
	const instance = "/api/instances/{id:[A-Za-z0-9._-]{1,64}}"
	const token = "/api/sync/tokens/{id:[A-Za-z0-9._-]{1,64}}"

	for path, m := range map[string]methods{
		"/healthz":          {http.MethodGet: healthz},
		"/readyz":           {http.MethodGet: a.readyz},
		"/api/openapi.yaml": {http.MethodGet: serveOpenAPI},
		"/api/auth/session": {http.MethodGet: a.gate.Session},
		"/api/auth/login":   {http.MethodPost: a.gate.Login},
		"/api/auth/logout":  {http.MethodPost: a.gate.Logout},
		"/login":            {http.MethodGet: a.gate.Page, http.MethodPost: a.gate.Form},
		"/login/style.css":  {http.MethodGet: a.gate.Style},
	} {
		r.Handle(path, gzip.Handler(m))
	}
	if a.Metrics != nil {
		r.Handle("/metrics", methods{http.MethodGet: a.Metrics.ServeHTTP})
	}
	for _, route := range []struct {
		path string
		methods
	}{
		{"/api/status", methods{http.MethodGet: a.status}},
		{"/api/instances/stats", methods{http.MethodGet: a.stats}}, // before an instance of that name
		{instance, methods{http.MethodGet: a.instance, http.MethodDelete: a.forget}},
		{instance + "/history", methods{http.MethodGet: a.history}},
		{"/api/policy", methods{http.MethodGet: a.policy, http.MethodPut: a.putPolicy}},
		{"/api/policy/validate", methods{http.MethodPost: a.validatePolicy}},
		{"/api/sync/tokens", methods{http.MethodGet: a.tokens, http.MethodPost: a.createToken}},
		{token, methods{http.MethodDelete: a.revokeToken}},
		{token + "/rotate", methods{http.MethodPost: a.rotateToken}},
	} {
		r.Handle(route.path, a.gate.Require(gzip.Handler(route.methods)))
	}
	for path, handle := range a.questions.Handlers() {
		r.Handle(path, a.gate.Require(gzip.Handler(methods{http.MethodGet: handle})))
	}
	r.PathPrefix("/api/").Handler(a.gate.Require(http.HandlerFunc(noEndpoint)))
	r.PathPrefix("/sync/").HandlerFunc(noEndpoint)
	r.PathPrefix("/").Handler(methods{http.MethodGet: a.pages})
	return r
}

// ServeHTTP answers a method that the path does not have with 405 and the ones it has.
func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if handle, known := m[method]; known {
		handle(w, r)
		return
	}
	allowed := slices.Sorted(maps.Keys(m))
	if m[http.MethodGet] != nil {
		allowed = append(allowed, http.MethodHead)
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	httpjson.Error(w, http.StatusMethodNotAllowed, "this path takes "+strings.Join(allowed, ", "))
}

func noEndpoint(w http.ResponseWriter, _ *http.Request) {
	httpjson.Error(w, http.StatusNotFound, "there is no such API path")
}

// headers adds what browsers are told about every answer.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; object-src 'none'; "+
			"frame-ancestors 'none'; base-uri 'none'; form-action 'self'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

// recovered turns a panic into a logged 500.
func (a *API) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		defer func() {
			reason := recover()
			if reason == nil {
				return
			}
			if err, is := reason.(error); is && errors.Is(err, http.ErrAbortHandler) {
				panic(reason) // the server's own way to end a connection
			}
			a.Log.ErrorContext(ctx, "request panicked", "path", r.URL.Path, "panic", reason, "stack", string(debug.Stack()))
			httpjson.Error(w, http.StatusInternalServerError, "internal error")
		}()
		next.ServeHTTP(w, r)
	})
}

// fail answers with what err stands for, and logs what the client is not told.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	if status := httpjson.Status(err); status >= http.StatusInternalServerError {
		level := slog.LevelError
		if status == http.StatusServiceUnavailable {
			level = slog.LevelWarn
		}
		a.Log.Log(r.Context(), level, "request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	httpjson.Fail(w, err)
}
