// Package control is an instance's own API: what its lists and cache hold, and the few things that an operator does
// to one instance.
package control

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/mux"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/httpguard"
	"dnsfleet/internal/httpjson"
)

// Engine is what the API controls. Its methods may be called concurrently.
type Engine interface {
	Blocklist() fleet.BlocklistStats
	Cache() fleet.CacheStats
	Refresh() fleet.RefreshStats
	// Reload fetches every list now. Its error names the lists that could not be had; they stay as they were.
	Reload(ctx context.Context) error
	// Pause stops blocking for d, or until Resume if d is 0.
	Pause(d time.Duration)
	Resume()
	// ClearCache empties the cache and returns how many answers it held.
	ClearCache() int
	// Check decides about a name, which is lower case and has no final dot, without asking anybody.
	Check(name string) Decision
	// Upstreams is a list that JSON can carry.
	Upstreams() any
	// Ready is nil when queries can be answered.
	Ready() error
}

// Decision is what the rules say about a name.
type Decision struct {
	Blocked bool   `json:"blocked"`
	Rule    string `json:"rule"` // as it may be written in a policy, "" when no rule matches
	List    string `json:"list"` // that has the rule, "" for a rule of the policy itself
	Kind    string `json:"kind"` // what sort of rule it is, "" when no rule matches
}

// Options are what the API is made with.
type Options struct {
	Engine Engine
	// Token must be sent with every request but GET /health. "" asks for none, and then only requests that were plainly
	// meant for this machine are answered; see httpguard.Loopback.
	Token string
	// QueryStore is what GET /querystore/stats answers; nil = {"enabled":false}.
	QueryStore func() any
	// Log may be nil.
	Log *slog.Logger
}

type server struct {
	Options
	reloading sync.Mutex
}

// New is the handler of the whole API.
func New(o Options) http.Handler {
	if o.QueryStore == nil {
		o.QueryStore = func() any { return map[string]bool{"enabled": false} }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &server{Options: o}
	r := mux.NewRouter()
	r.NotFoundHandler = answer(http.StatusNotFound, "no such path")
	s.route(r, http.MethodGet, "/health", s.health)
	private := func(method, path string, h http.HandlerFunc) { s.route(r, method, path, s.authenticated(h)) }
	private(http.MethodGet, "/blocklists/stats", s.blocklist)
	private(http.MethodPost, "/blocklists/reload", s.reload)
	private(http.MethodPost, "/blocklists/pause", s.pause)
	private(http.MethodPost, "/blocklists/resume", s.resume)
	private(http.MethodGet, "/blocked/check", s.check)
	private(http.MethodGet, "/cache/stats", s.cache)
	private(http.MethodGet, "/cache/refresh/stats", s.refresh)
	private(http.MethodPost, "/cache/clear", s.clearCache)
	private(http.MethodGet, "/querystore/stats", s.queryStore)
	private(http.MethodGet, "/upstreams", s.upstreams)
	if o.Token == "" {
		return httpguard.Loopback(r)
	}
	return r
}

// route serves a path by one method, GET also as HEAD, and refuses the others.
func (s *server) route(r *mux.Router, method, path string, h http.HandlerFunc) {
	allowed := []string{method}
	if method == http.MethodGet {
		allowed = append(allowed, http.MethodHead)
	}
	r.Path(path).Methods(allowed...).Handler(h)
	r.Path(path).HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", method)
		httpjson.Error(w, http.StatusMethodNotAllowed, path+" takes "+method)
	})
}

func answer(status int, sentence string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { httpjson.Error(w, status, sentence) })
}
