package webapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"unicode/utf8"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/httpjson"
	"dnsfleet/internal/webapi/params"
	"dnsfleet/internal/webapi/transfer"
)

// policy is GET /api/policy.
func (a *API) policy(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	doc, err := a.Store.Policy(ctx)
	if errors.Is(err, fleet.ErrNotFound) {
		httpjson.Error(w, http.StatusNotFound, "there is no policy yet")
		return
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	w.Header().Set("ETag", policyTag(doc.Hash))
	w.Header().Set("Cache-Control", "no-cache")
	if transfer.MatchesETag(r.Header.Get("If-None-Match"), policyTag(doc.Hash)) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	httpjson.Write(w, http.StatusOK, doc)
}

func policyTag(hash string) string { return `"` + hash + `"` }

// validatePolicy is POST /api/policy/validate: it changes nothing and tells what the policy would be.
func (a *API) validatePolicy(w http.ResponseWriter, r *http.Request) {
	p, err := a.readPolicy(w, r)
	if err != nil {
		a.failPolicy(w, r, err)
		return
	}
	httpjson.Write(w, http.StatusOK, struct {
		Valid  bool         `json:"valid"`
		Hash   string       `json:"hash"`
		Policy fleet.Policy `json:"policy"`
	}{true, p.Hash(), p})
}

// putPolicy is PUT /api/policy. If-Match names the policy that the change was made from; where there is none yet it is
// If-None-Match: *.
func (a *API) putPolicy(w http.ResponseWriter, r *http.Request) {
	ifMatch, ifNone := r.Header.Get("If-Match"), r.Header.Get("If-None-Match")
	if ifMatch == "" && ifNone != "*" {
		httpjson.Error(w, http.StatusPreconditionRequired,
			"If-Match is required: the ETag of the policy that was edited (If-None-Match: * where there is none yet)")
		return
	}
	p, err := a.readPolicy(w, r)
	if err != nil {
		a.failPolicy(w, r, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	doc, err := a.replacePolicy(ctx, p, ifMatch)
	if errors.Is(err, fleet.ErrConflict) {
		httpjson.Error(w, http.StatusPreconditionFailed, "the policy was changed meanwhile: read it again and repeat the change")
		return
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.PolicyChanged(doc)
	a.reload(ctx, fleet.Hint{Policy: true})
	a.Log.InfoContext(ctx, "policy changed", "revision", doc.Revision, "hash", doc.Hash)
	w.Header().Set("ETag", policyTag(doc.Hash))
	httpjson.Write(w, http.StatusOK, doc)
}

func (a *API) replacePolicy(ctx context.Context, p fleet.Policy, ifMatch string) (fleet.PolicyDoc, error) {
	if ifMatch == "" {
		return a.Store.PutPolicy(ctx, p, "")
	}
	current, err := a.Store.Policy(ctx)
	if errors.Is(err, fleet.ErrNotFound) {
		return fleet.PolicyDoc{}, fmt.Errorf("put policy: %w", fleet.ErrConflict)
	}
	if err != nil {
		return fleet.PolicyDoc{}, err
	}
	if !transfer.MatchesETag(ifMatch, policyTag(current.Hash)) {
		return fleet.PolicyDoc{}, fmt.Errorf("put policy: %w", fleet.ErrConflict)
	}
	return a.Store.PutPolicy(ctx, p, current.Hash)
}

var errMediaType = errors.New("Content-Type must be application/json or application/yaml")

// readPolicy reads and checks the policy in a body, which is JSON or YAML.
func (a *API) readPolicy(w http.ResponseWriter, r *http.Request) (fleet.Policy, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return fleet.Policy{}, errMediaType
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPolicy))
	if err != nil {
		return fleet.Policy{}, fmt.Errorf("read policy: %w", err)
	}
	if !utf8.Valid(text) {
		return fleet.Policy{}, params.Invalid("policy: body is not UTF-8")
	}
	switch kind {
	case "application/json":
		if !json.Valid(text) {
			return fleet.Policy{}, params.Invalid("policy: body is not JSON")
		}
	case "application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml":
	default:
		return fleet.Policy{}, errMediaType
	}
	p, err := fleet.ParsePolicy(text)
	if err != nil {
		return fleet.Policy{}, err
	}
	return p, a.CheckPolicy(p)
}

func (a *API) failPolicy(w http.ResponseWriter, r *http.Request, err error) {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, errMediaType):
		httpjson.Error(w, http.StatusUnsupportedMediaType, err.Error())
	case errors.As(err, &tooLarge):
		httpjson.Error(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("a policy has at most %d bytes", tooLarge.Limit))
	default:
		a.fail(w, r, err)
	}
}
