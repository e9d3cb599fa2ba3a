package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	text, err := os.ReadFile(file)
	if err != nil {
		return fleet.Policy{}, fmt.Errorf("%w: DNSFLEET_POLICY_FILE=%q: must be a readable file: %w", errConfig, file, err)
	}
	seed, err := fleet.ParsePolicy(text)
	if err != nil {
		return fleet.Policy{}, fmt.Errorf("%w: DNSFLEET_POLICY_FILE=%q: %w", errConfig, file, err)
	}
	return seed, nil
}

// plantSeed gives the store its first policy, if it has none, and tries until the store can be reached. Until then an
// instance without any policy works by the seed: DNS does not wait for a store.
func (p *primary) plantSeed(ctx context.Context) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, policyTimeout)
		err := p.plantOnce(attempt)
		cancel()
		if err == nil {
			p.policy.hint()
			return nil
		}
		p.log.WarnContext(ctx, "policy of the store cannot be read, will be tried again", "err", err)
		if _, hash := p.engine.PolicyHash(); hash == "" {
			if _, err := p.engine.Apply(ctx, fleet.NewPolicyDoc(p.seed, 0, time.Now())); err != nil {
				return fmt.Errorf("apply the seed of the policy: %w", err)
			}
			p.log.InfoContext(ctx, "the seed of the policy is in force until the store can be reached")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

func (p *primary) plantOnce(ctx context.Context) error {
	_, err := p.store.Policy(ctx)
	if !errors.Is(err, fleet.ErrNotFound) {
		return err
	}
	doc, err := p.store.PutPolicy(ctx, p.seed, "")
	if errors.Is(err, fleet.ErrConflict) { // another primary was first
		return nil
	}
	if err == nil {
		p.log.InfoContext(ctx, "the store had no policy: it has the seed now", "revision", doc.Revision, "hash", doc.Hash)
	}
	return err
}
