package replica

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/syncapi"
)

const storeTimeout = 5 * time.Second

// Sender brings a report to the store: a Client by way of a primary, a StoreSender straight.
type Sender interface {
	// Push returns once the report is stored. An error that is fleet.ErrInvalid means that the report will never be.
	Push(ctx context.Context, r fleet.Report) (syncapi.PushReply, error)
}

// ReportStore is what a StoreSender needs of the fleet's memory; store.Store says what each method promises.
type ReportStore interface {
	Now(ctx context.Context) (time.Time, error)
	SaveReport(ctx context.Context, r fleet.Report, role fleet.Role, tokenID string) (fleet.Saved, error)
}

// StoreSender is how a primary reports of itself, in the way of every other instance.
type StoreSender struct {
	Store ReportStore
	Role  fleet.Role // "" = fleet.RolePrimary
}

// Push saves the report within some seconds.
func (s StoreSender) Push(ctx context.Context, r fleet.Report) (syncapi.PushReply, error) {
	role := s.Role
	if role == "" {
		role = fleet.RolePrimary
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	started := time.Now()
	saved, err := s.Store.SaveReport(ctx, r, role, "")
	if errors.Is(err, fleet.ErrFutureReport) {
		started = time.Now()
		now, clockErr := s.Store.Now(ctx)
		if clockErr != nil {
			return syncapi.PushReply{}, errors.Join(err, clockErr)
		}
		return syncapi.PushReply{}, &syncapi.FutureError{ServerTime: now, Latency: time.Since(started) / 2}
	}
	if err != nil {
		return syncapi.PushReply{}, err
	}
	return syncapi.PushReply{
		OK: true, Result: saved.Result, ServerTime: saved.Time, NextPushSeconds: r.IntervalSeconds,
		SlicesStored: notNil(saved.SlicesUntil), Commands: []json.RawMessage{}, Latency: time.Since(started) / 2,
	}, nil
}
