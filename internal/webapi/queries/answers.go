package queries

import (
	"context"
	"net/http"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/httpjson"
)

// How much an answer tells where the request does not say, and at most.
const (
	defaultTop  = 20
	maxTop      = 1000
	defaultRows = 100
	maxRows     = 1000
)

// answer serves one question. An error of ask needs no answer beside it.
func (a *API) answer(takes parameters, ask func(context.Context, request) (any, fleet.QueryAnswer, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, err := a.read(r, takes)
		if err != nil {
			a.Fail(w, r, err)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
		defer cancel()
		answer, about, err := ask(ctx, q)
		if err != nil {
			a.refuse(w, r, about, err)
			return
		}
		httpjson.Write(w, http.StatusOK, answer)
	}
}

// groups is nil, so that an answer leaves it out, unless they were asked for; then it is a list, also of none.
func groups[T any](q request, list []T) any {
	switch {
	case !q.byInstance:
		return nil
	case list == nil:
		return []T{}
	}
	return list
}

func (a *API) summary(ctx context.Context, q request) (any, fleet.QueryAnswer, error) {
	s, about, err := a.Log.Summary(ctx, q.filter, q.byInstance)
	return struct {
		fleet.QueryAnswer
		fleet.QuerySummary
		Groups any `json:"groups,omitempty"`
	}{about, s, groups(q, s.Groups)}, about, err
}

func (a *API) latency(ctx context.Context, q request) (any, fleet.QueryAnswer, error) {
	l, about, err := a.Log.Latency(ctx, q.filter, q.byInstance)
	return struct {
		fleet.QueryAnswer
		fleet.QueryLatency
		Groups any `json:"groups,omitempty"`
	}{about, l, groups(q, l.Groups)}, about, err
}

func (a *API) series(ctx context.Context, q request) (any, fleet.QueryAnswer, error) {
	s, about, err := a.Log.Series(ctx, q.filter, q.step, q.byInstance)
	return struct {
		fleet.QueryAnswer
		fleet.QuerySeries
		Groups any `json:"groups,omitempty"`
	}{about, s, groups(q, s.Groups)}, about, err
}

func (a *API) upstreams(ctx context.Context, q request) (any, fleet.QueryAnswer, error) {
	u, about, err := a.Log.Upstreams(ctx, q.filter, q.byInstance)
	return struct {
		fleet.QueryAnswer
		fleet.QueryUpstreams
		Groups any `json:"groups,omitempty"`
	}{about, u, groups(q, u.Groups)}, about, err
}

func (a *API) topDomains(ctx context.Context, q request) (any, fleet.QueryAnswer, error) {
	top, about, err := a.Log.TopDomains(ctx, q.filter, q.limit, q.byInstance)
	return topAnswer(q, top, about), about, err
}

func (a *API) topClients(ctx context.Context, q request) (any, fleet.QueryAnswer, error) {
	top, about, err := a.Log.TopClients(ctx, q.filter, q.limit, q.byInstance)
	return topAnswer(q, top, about), about, err
}

func topAnswer(q request, top fleet.QueryTop, about fleet.QueryAnswer) any {
	return struct {
		fleet.QueryAnswer
		fleet.QueryTop
		Groups any `json:"groups,omitempty"`
	}{about, top, groups(q, top.Groups)}
}

func (a *API) recent(ctx context.Context, q request) (any, fleet.QueryAnswer, error) {
	page, about, err := a.Log.Rows(ctx, q.filter, q.limit, q.cursor)
	return struct {
		fleet.QueryAnswer
		fleet.QueryPage
	}{about, page}, about, err
}
