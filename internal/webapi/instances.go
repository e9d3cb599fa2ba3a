package webapi

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/gorilla/mux"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/httpjson"
	"dnsfleet/internal/webapi/params"
	"dnsfleet/internal/webapi/transfer"
)

// stats is GET /api/instances/stats.
func (a *API) stats(w http.ResponseWriter, r *http.Request) {
	q, err := viewQuery(r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	etag, body, err := a.View.StatsJSON(q)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	w.Header().Set("ETag", etag)
	w.Header().Set("Cache-Control", "no-cache")
	if transfer.MatchesETag(r.Header.Get("If-None-Match"), etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if r.Method != http.MethodHead {
		body.WriteTo(w) //nolint:errcheck // the client is gone: nobody is left to tell
	}
}

func viewQuery(r *http.Request) (fleet.ViewQuery, error) {
	values, err := params.Of(r)
	if err != nil {
		return fleet.ViewQuery{}, err
	}
	q := fleet.ViewQuery{Fields: params.Words(values, "fields"), Cursor: values.Get("cursor")}
	known := []fleet.Status{fleet.StatusOK, fleet.StatusStale, fleet.StatusOffline, fleet.StatusRevoked, fleet.StatusNever}
	for _, word := range params.Words(values, "status") {
		if !slices.Contains(known, fleet.Status(word)) {
			return q, params.Invalid(fmt.Sprintf("status %q is none of ok, stale, offline, revoked, never", word))
		}
		q.Status = append(q.Status, fleet.Status(word))
	}
	if values.Has("limit") {
		if q.Limit, err = strconv.Atoi(values.Get("limit")); err != nil || q.Limit < 1 || q.Limit > fleet.MaxViewLimit {
			return q, params.Invalid(fmt.Sprintf("limit must be a whole number from 1 to %d", fleet.MaxViewLimit))
		}
	}
	return q, nil
}

// instance is GET /api/instances/{id}.
func (a *API) instance(w http.ResponseWriter, r *http.Request) {
	row, report, err := a.View.Instance(mux.Vars(r)["id"])
	if err != nil {
		a.fail(w, r, err)
		return
	}
	answer := struct {
		fleet.Row
		Upstreams       []fleet.UpstreamStats `json:"upstreams"`
		ControlURL      *string               `json:"control_url"`
		PolicyUnapplied []string              `json:"policy_unapplied"`
	}{Row: row, Upstreams: []fleet.UpstreamStats{}, PolicyUnapplied: []string{}}
	if report != nil {
		answer.Upstreams = append(answer.Upstreams, report.Upstreams...)
		answer.PolicyUnapplied = append(answer.PolicyUnapplied, report.PolicyUnapplied...)
		if report.ControlURL != "" {
			answer.ControlURL = &report.ControlURL
		}
	}
	httpjson.Write(w, http.StatusOK, answer)
}

// forget is DELETE /api/instances/{id}.
func (a *API) forget(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	id := mux.Vars(r)["id"]
	if row, _, err := a.View.Instance(id); err == nil && row.Source != nil && *row.Source == fleet.SourceLocal {
		httpjson.Error(w, http.StatusConflict, "this is the primary that answers: it cannot forget itself")
		return
	}
	if err := a.Store.Forget(ctx, id); err != nil {
		a.fail(w, r, err)
		return
	}
	a.reload(ctx, fleet.Hint{InstanceID: id})
	a.Log.InfoContext(ctx, "instance forgotten", "instance", id)
	w.WriteHeader(http.StatusNoContent)
}

// reload makes the view show what was changed; where it cannot, the change is in the store all the same.
func (a *API) reload(ctx context.Context, h fleet.Hint) {
	if err := a.View.Reload(ctx, h); err != nil {
		a.Log.WarnContext(ctx, "view lags behind a change", "err", err)
	}
}
