package webapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/gorilla/mux"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/httpjson"
	"dnsfleet/internal/webapi/params"
)

const maxBindings = 64

// publicToken is what anybody but its holder may know of a token.
type publicToken struct {
	ID          string     `json:"id"`
	Name        string     `json:"name"`
	Instances   []string   `json:"instances"`
	Any         bool       `json:"any"`
	Revoked     bool       `json:"revoked"`
	CreatedAt   time.Time  `json:"created_at"`
	RotatedAt   *time.Time `json:"rotated_at"`
	RevokedAt   *time.Time `json:"revoked_at"`
	FirstUsedAt *time.Time `json:"first_used_at"`
}

// issuedToken is a token with its secret, which is told this once.
type issuedToken struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Secret string `json:"secret"`
}

// tokens is GET /api/sync/tokens.
func (a *API) tokens(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	all, err := a.Store.Tokens(ctx)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	public := make([]publicToken, 0, len(all))
	for _, t := range all {
		public = append(public, publicToken{
			ID: t.ID, Name: t.Name, Instances: append([]string{}, t.Instances...), Any: t.Any, Revoked: t.Revoked(), CreatedAt: t.CreatedAt.UTC(),
			RotatedAt: timeOrNil(t.RotatedAt), RevokedAt: timeOrNil(t.RevokedAt), FirstUsedAt: timeOrNil(t.FirstUsedAt),
		})
	}
	httpjson.Write(w, http.StatusOK, struct {
		Tokens []publicToken `json:"tokens"`
	}{public})
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC())
}

// createToken is POST /api/sync/tokens.
func (a *API) createToken(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	var wanted tokenRequest
	err := httpjson.Read(w, r, maxBody, &wanted)
	if err == nil {
		err = wanted.validate()
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	t, secret := fleet.NewToken(wanted.Name, wanted.Instances, wanted.Any, a.View.Now())
	if err := a.Store.CreateToken(ctx, t); err != nil {
		a.fail(w, r, err)
		return
	}
	a.reload(ctx, fleet.Hint{Tokens: true})
	a.Log.InfoContext(ctx, "token created", "token_id", t.ID, "name", t.Name)
	httpjson.Write(w, http.StatusCreated, issuedToken{t.ID, t.Name, secret})
}

type tokenRequest struct {
	Name      string   `json:"name"`
	Instances []string `json:"instances"`
	Any       bool     `json:"any"`
}

func (t tokenRequest) validate() error {
	if err := fleet.ValidName(t.Name); err != nil {
		return err
	}
	if t.Any && len(t.Instances) > 0 {
		return params.Invalid("a token is bound to instances or open to any, not both")
	}
	if len(t.Instances) > maxBindings {
		return params.Invalid(fmt.Sprintf("instances names at most %d", maxBindings))
	}
	for i, id := range t.Instances {
		if !fleet.ValidID(id) {
			return params.Invalid(fmt.Sprintf("instances[%d] must match [A-Za-z0-9._-]{1,64}", i))
		}
		if slices.Contains(t.Instances[:i], id) {
			return params.Invalid(fmt.Sprintf("instances[%d] is named twice", i))
		}
	}
	return nil
}

// rotateToken is POST /api/sync/tokens/{id}/rotate.
func (a *API) rotateToken(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	id := mux.Vars(r)["id"]
	t, err := a.token(ctx, id)
	if err != nil {
		a.failToken(w, r, err)
		return
	}
	secret, err := a.Store.RotateToken(ctx, id)
	if err != nil {
		a.failToken(w, r, err)
		return
	}
	a.reload(ctx, fleet.Hint{Tokens: true})
	a.Log.InfoContext(ctx, "token rotated", "token_id", id)
	httpjson.Write(w, http.StatusOK, issuedToken{id, t.Name, secret})
}

// revokeToken is DELETE /api/sync/tokens/{id}.
func (a *API) revokeToken(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	id := mux.Vars(r)["id"]
	if err := a.Store.RevokeToken(ctx, id); err != nil {
		a.failToken(w, r, err)
		return
	}
	a.reload(ctx, fleet.Hint{Tokens: true})
	a.Log.InfoContext(ctx, "token revoked", "token_id", id)
	w.WriteHeader(http.StatusNoContent)
}

// token finds one that may still be used.
func (a *API) token(ctx context.Context, id string) (fleet.Token, error) {
	all, err := a.Store.Tokens(ctx)
	if err != nil {
		return fleet.Token{}, err
	}
	i := slices.IndexFunc(all, func(t fleet.Token) bool { return t.ID == id })
	switch {
	case i < 0:
		return fleet.Token{}, fleet.ErrNotFound
	case all[i].Revoked():
		return fleet.Token{}, fleet.ErrRevokedToken
	}
	return all[i], nil
}

// failToken tells about a token that is named in the path; it is not the caller's own, so 401 would mislead.
func (a *API) failToken(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, fleet.ErrUnknownToken), errors.Is(err, fleet.ErrNotFound):
		httpjson.Error(w, http.StatusNotFound, "there is no token with this id")
	case errors.Is(err, fleet.ErrRevokedToken):
		httpjson.Error(w, http.StatusConflict, "the token is revoked: create a new one")
	default:
		a.fail(w, r, err)
	}
}
