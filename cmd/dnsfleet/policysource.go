package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store"
	"dnsfleet/internal/syncapi"
)

// storePolicy is where a primary's own follower learns of the policy: the store, without a detour over HTTP.
type storePolicy struct {
	store   store.Store
	changed chan struct{} // a hint that the policy may have changed; holds one
}

func newStorePolicy(s store.Store) *storePolicy {
	return &storePolicy{store: s, changed: make(chan struct{}, 1)}
}

// hint wakes the follower. It never blocks.
func (p *storePolicy) hint() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// Config is the policy document, nil while its hash is the given one.
func (p *storePolicy) Config(ctx context.Context, hash string) ([]byte, error) {
	doc, err := p.current(ctx)
	if err != nil || doc.Hash == hash {
		return nil, err
	}
	body, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encode policy: %w", err)
	}
	return body, nil
}

func (p *storePolicy) current(ctx context.Context) (fleet.PolicyDoc, error) {
	ctx, cancel := context.WithTimeout(ctx, policyTimeout)
	defer cancel()
	return p.store.Policy(ctx)
}

const (
	policyTimeout = 5 * time.Second
	policyPoll    = 2 * time.Second // hints may be lost
)

// Wait returns when the policy's hash is no longer the given one, or after wait.
func (p *storePolicy) Wait(ctx context.Context, hash string, wait time.Duration) (syncapi.WaitReply, error) {
	over := time.NewTimer(wait)
	defer over.Stop()
	poll := time.NewTicker(policyPoll)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return syncapi.WaitReply{}, ctx.Err()
		case <-over.C:
			return syncapi.WaitReply{PolicyHash: hash}, nil
		case <-p.changed:
		case <-poll.C:
		}
		doc, err := p.current(ctx)
		if errors.Is(err, fleet.ErrNotFound) {
			continue
		}
		if err != nil || doc.Hash != hash {
			return syncapi.WaitReply{PolicyHash: doc.Hash}, err
		}
	}
}

// readSeed is the policy that a fleet without one starts with.
func readSeed(file string) (fleet.Policy, error) {
	if file == "" {
		return fleet.DefaultPolicy(), nil
	}
	text, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return fleet.Policy{}, fmt.Errorf("%w: DNSFLEET_POLICY_FILE=%q: must be a readable file: %w", errConfig, file, err)
	}
	seed, err := fleet.ParsePolicy(text)
	if err != nil {
		return fleet.Policy{}, fmt.Errorf("%w: DNSFLEET_POLICY_FILE=%q: %w", errConfig, file, err)
	}
	return seed, nil
}

// plantSeed gives the store its first policy, if it has none. It tries until the store can be reached.
func plantSeed(ctx context.Context, s store.Store, seed fleet.Policy, log *slog.Logger) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, policyTimeout)
		_, err := s.Policy(attempt)
		if errors.Is(err, fleet.ErrNotFound) {
			var doc fleet.PolicyDoc
			if doc, err = s.PutPolicy(attempt, seed, ""); err == nil {
				log.InfoContext(ctx, "the store had no policy: it has the seed now", "revision", doc.Revision, "hash", doc.Hash)
			}
		}
		cancel()
		if err == nil || errors.Is(err, fleet.ErrConflict) { // another primary was first
			return nil
		}
		log.WarnContext(ctx, "policy of the store cannot be read, will be tried again", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}
