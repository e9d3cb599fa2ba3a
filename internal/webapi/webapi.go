// Package webapi is what a primary shows to people and programs: the web API under /api/, the dashboard, sign-in,
// /healthz, /readyz and /metrics. openapi.yaml beside this file describes it, and the sync and control APIs with it.
package webapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/httpguard"
	"dnsfleet/internal/webapi/dashboard"
	"dnsfleet/internal/webapi/queries"
	"dnsfleet/internal/webapi/signin"
)

// View is the fleet as the primary knows it.
type View interface {
	// StatsJSON is GET /api/instances/stats and its ETag.
	StatsJSON(q fleet.ViewQuery) (etag string, body io.WriterTo, err error)
	// Stats is the same as a value.
	Stats(q fleet.ViewQuery) (fleet.View, error)
	// Instance is one row, with the report behind it (nil where none counts).
	Instance(id string) (fleet.Row, *fleet.Report, error)
	// Reload makes the view show what was just changed.
	Reload(ctx context.Context, h fleet.Hint) error
	// Now is the store's clock.
	Now() time.Time
}

// Store is the part of the store that the API reads and changes past the view.
type Store interface {
	Slices(ctx context.Context, instanceID string, size fleet.Size, from, to time.Time) ([]fleet.Slice, error)
	Forget(ctx context.Context, instanceID string) error

	CreateToken(ctx context.Context, t fleet.Token) error
	Tokens(ctx context.Context) ([]fleet.Token, error)
	RotateToken(ctx context.Context, id string) (secret string, err error)
	RevokeToken(ctx context.Context, id string) error

	Policy(ctx context.Context) (fleet.PolicyDoc, error)
	PutPolicy(ctx context.Context, p fleet.Policy, ifHash string) (fleet.PolicyDoc, error)

	signin.Sessions
}

// Options are what an API is made of.
type Options struct {
	View  View
	Store Store
	// Queries answers questions about queries; nil: they are answered with 503.
	Queries queries.Log
	// History is how far back the store keeps slices, as its own options say.
	History time.Duration

	// CheckPolicy says what in a policy the engine could not use, as fleet.ErrInvalid; nil: nothing.
	CheckPolicy func(fleet.Policy) error
	// PolicyChanged is called after each change through this API, before it is answered; nil: nobody is told.
	PolicyChanged func(fleet.PolicyDoc)

	// Open lets everybody in who reaches a loopback listener from this machine; see package httpguard.
	Open bool
	// PasswordHash tells the admin password's hash (signin.HashPassword, signin.FirstPassword). An error means that it
	// is not known yet. Required unless Open.
	PasswordHash func(context.Context) (string, error)

	Release string
	Ready   func() error // nil = ready, else why not; errors.Join tells several reasons. nil: always ready
	Metrics http.Handler // GET /metrics; nil: there is none
	Static  fs.FS        // the dashboard: index.html, and files under assets/ that never change; nil: there is none
	Log     *slog.Logger // nil: nothing is logged
}

// API serves the web API of one primary. Safe for concurrent use.
type API struct {
	Options

	gate      *signin.Gate
	files     dashboard.Files
	questions *queries.API
}

// New checks the options and reads the dashboard into memory.
func New(o Options) (*API, error) {
	if o.View == nil || o.Store == nil {
		return nil, errors.New("web API: view and store are required")
	}
	if !o.Open && o.PasswordHash == nil {
		return nil, errors.New("web API: a password is required unless it is open")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.CheckPolicy == nil {
		o.CheckPolicy = func(fleet.Policy) error { return nil }
	}
	if o.PolicyChanged == nil {
		o.PolicyChanged = func(fleet.PolicyDoc) {}
	}
	if o.Ready == nil {
		o.Ready = func() error { return nil }
	}
	if o.Open {
		o.PasswordHash = nil
	}
	files, err := dashboard.Read(o.Static)
	if err != nil {
		return nil, fmt.Errorf("web API: dashboard: %w", err)
	}
	a := &API{Options: o, gate: signin.NewGate(o.Store, o.PasswordHash, o.Log), files: files}
	a.questions = queries.New(queries.Options{Log: o.Queries, Now: o.View.Now, Fail: a.fail, Logger: o.Log})
	return a, nil
}

// Handler serves everything but /sync/, which it answers with 404.
func (a *API) Handler() http.Handler {
	guarded := httpguard.SameOrigin(a.router())
	if a.Open {
		guarded = httpguard.Loopback(guarded)
	}
	return headers(a.recovered(guarded))
}
