package main

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store"
)

// countedStore counts how often the store could not be reached, for metrics.
type countedStore struct {
	store.Store
	errors *atomic.Uint64
}

func (s countedStore) note(err error) {
	if errors.Is(err, fleet.ErrUnavailable) {
		s.errors.Add(1)
	}
}

func (s countedStore) SaveReport(ctx context.Context, r fleet.Report, role fleet.Role, tokenID string) (fleet.Saved, error) {
	saved, err := s.Store.SaveReport(ctx, r, role, tokenID)
	s.note(err)
	return saved, err
}

func (s countedStore) Instances(ctx context.Context, ids ...string) ([]fleet.Instance, error) {
	instances, err := s.Store.Instances(ctx, ids...)
	s.note(err)
	return instances, err
}

func (s countedStore) Seen(ctx context.Context, since time.Time) (map[string]time.Time, time.Time, error) {
	seen, now, err := s.Store.Seen(ctx, since)
	s.note(err)
	return seen, now, err
}

func (s countedStore) Slices(ctx context.Context, id string, size fleet.Size, from, to time.Time) ([]fleet.Slice, error) {
	list, err := s.Store.Slices(ctx, id, size, from, to)
	s.note(err)
	return list, err
}

func (s countedStore) Authorize(ctx context.Context, secret, id string) (fleet.Token, error) {
	token, err := s.Store.Authorize(ctx, secret, id)
	s.note(err)
	return token, err
}

func (s countedStore) Policy(ctx context.Context) (fleet.PolicyDoc, error) {
	doc, err := s.Store.Policy(ctx)
	s.note(err)
	return doc, err
}
