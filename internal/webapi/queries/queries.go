// Package queries is the part of the web API that answers questions about queries: GET /api/queries/….
package queries

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/httpjson"
)

// Log answers questions about queries. Every method gives, beside its answer, what this stands on, also with an error.
// fleet.ErrInvalid says that a question cannot be answered as it is, because of what was asked or, where Enabled is false,
// because that takes a query log; fleet.ErrUnavailable that it may be answered later. Lists are never nil, but for groups.
type Log interface {
	Summary(ctx context.Context, f fleet.QueryFilter, byInstance bool) (fleet.QuerySummary, fleet.QueryAnswer, error)
	Latency(ctx context.Context, f fleet.QueryFilter, byInstance bool) (fleet.QueryLatency, fleet.QueryAnswer, error)
	Series(ctx context.Context, f fleet.QueryFilter, step time.Duration, byInstance bool) (fleet.QuerySeries, fleet.QueryAnswer, error)
	Upstreams(ctx context.Context, f fleet.QueryFilter, byInstance bool) (fleet.QueryUpstreams, fleet.QueryAnswer, error)
	TopDomains(ctx context.Context, f fleet.QueryFilter, limit int, byInstance bool) (fleet.QueryTop, fleet.QueryAnswer, error)
	TopClients(ctx context.Context, f fleet.QueryFilter, limit int, byInstance bool) (fleet.QueryTop, fleet.QueryAnswer, error)
	Rows(ctx context.Context, f fleet.QueryFilter, limit int, cursor string) (fleet.QueryPage, fleet.QueryAnswer, error)
	// Export are all rows, oldest first, read while they are ranged over, once. An error is the last that is told.
	Export(ctx context.Context, f fleet.QueryFilter) (fleet.QueryAnswer, iter.Seq2[fleet.QueryRow, error])
}

const (
	// answerTimeout is how long an answer may take; an export takes as long as it moves.
	answerTimeout = 10 * time.Second
	// exports is how many of them run at once.
	exports = 4
)

// Options are what an API is made of.
type Options struct {
	Log    Log              // nil: every question is answered with 503
	Now    func() time.Time // the end of a window that names none
	Fail   func(http.ResponseWriter, *http.Request, error)
	Logger *slog.Logger
	// Stall is how long an export may stand still; 0 = a minute.
	Stall time.Duration
}

// API answers questions. It may be used concurrently.
type API struct {
	Options
	exports chan struct{} // holds a value for each export that runs
}

// New makes an API.
func New(o Options) *API {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Stall == 0 {
		o.Stall = time.Minute
	}
	return &API{Options: o, exports: make(chan struct{}, exports)}
}

// Handlers answer GET and HEAD, by path.
func (a *API) Handlers() map[string]http.HandlerFunc {
	handlers := map[string]http.HandlerFunc{
		"/api/queries/summary":        a.answer(figures(), a.summary),
		"/api/queries/latency":        a.answer(figures(), a.latency),
		"/api/queries/time-series":    a.answer(figures("step"), a.series),
		"/api/queries/upstream-stats": a.answer(figures(), a.upstreams),
		"/api/queries/top-domains":    a.answer(tops(), a.topDomains),
		"/api/queries/top-clients":    a.answer(tops(), a.topClients),
		"/api/queries/recent":         a.answer(parameters{names: []string{"limit", "cursor"}, limit: defaultRows, maxLimit: maxRows}, a.recent),
		"/api/queries/export":         a.export,
	}
	if a.Log == nil {
		for path := range handlers {
			handlers[path] = nothing
		}
	}
	return handlers
}

func figures(more ...string) parameters {
	return parameters{names: append([]string{"group_by"}, more...)}
}

func tops() parameters {
	return parameters{names: []string{"group_by", "limit"}, limit: defaultTop, maxLimit: maxTop}
}

func nothing(w http.ResponseWriter, _ *http.Request) {
	httpjson.Error(w, http.StatusServiceUnavailable, "this primary answers no questions about queries")
}

// refuse answers with what err stands for.
func (a *API) refuse(w http.ResponseWriter, r *http.Request, about fleet.QueryAnswer, err error) {
	switch {
	case errors.Is(err, fleet.ErrInvalid) && !about.Enabled:
		httpjson.Error(w, http.StatusConflict, sentence(err))
	case errors.Is(err, fleet.ErrInvalid):
		httpjson.Error(w, http.StatusBadRequest, sentence(err))
	case r.Context().Err() != nil: // nobody is left to tell
		httpjson.Error(w, http.StatusServiceUnavailable, "request was cancelled")
	case errors.Is(err, fleet.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled):
		a.Logger.WarnContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "err", err)
		w.Header().Set("Retry-After", strconv.Itoa(5))
		text := "query log unavailable"
		if about.Source == "reports" {
			text = fleet.ErrUnavailable.Error()
		}
		httpjson.Error(w, http.StatusServiceUnavailable, text)
	default:
		a.Fail(w, r, err)
	}
}

// sentence is the text of an error without the words that only classify it.
func sentence(err error) string {
	class := fleet.ErrInvalid.Error()
	return strings.TrimSuffix(strings.ReplaceAll(err.Error(), class+": ", ""), ": "+class)
}
