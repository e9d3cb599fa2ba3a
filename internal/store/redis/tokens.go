package redis

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"dnsfleet/internal/fleet"
)

// tokenTries bounds how often a change of a token starts again because somebody else changed it meanwhile.
const tokenTries = 8

// What put_token.lua answers.
const (
	putOK      = "ok"
	putChanged = "changed"
	putHeld    = "held"
)

// errNoChange ends a change of a token that has nothing to do.
var errNoChange = errors.New("nothing to change")

// CreateToken is part of store.Store. A token that exists already is fleet.ErrConflict.
func (s *Store) CreateToken(ctx context.Context, t fleet.Token) error {
	operation := fmt.Sprintf("create token %q", t.ID)
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	result, err := s.replaceToken(ctx, "", t, "", t.Instances, nil)
	if err != nil {
		return wrap(err, operation)
	}
	if result != putOK {
		return fmt.Errorf("%s: %w", operation, fleet.ErrConflict)
	}
	return nil
}

// Tokens is part of store.Store.
func (s *Store) Tokens(ctx context.Context) ([]fleet.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	all, err := s.client.HVals(ctx, s.keys.tokens()).Result()
	if err != nil {
		return nil, wrap(err, "list tokens")
	}
	tokens := make([]fleet.Token, 0, len(all))
	for _, text := range all {
		t, err := decodeToken(text)
		if err != nil {
			s.log.WarnContext(ctx, "stored token is unreadable", "err", err)
			continue
		}
		tokens = append(tokens, t)
	}
	slices.SortFunc(tokens, func(a, b fleet.Token) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return tokens, nil
}

// Authorize is part of store.Store. A token that is bound to the instance costs one read.
func (s *Store) Authorize(ctx context.Context, secret, instanceID string) (fleet.Token, error) {
	id := fleet.TokenID(secret)
	if id == "" || !fleet.ValidID(instanceID) {
		return fleet.Token{}, fmt.Errorf("authorize: %w", fleet.ErrUnknownToken)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	operation := fmt.Sprintf("authorize %q with token %q", instanceID, id)
	for range tokenTries {
		token, result, err := s.tryAuthorize(ctx, id, secret, instanceID)
		switch {
		case errors.Is(err, redis.Nil):
			return fleet.Token{}, fmt.Errorf("%s: %w", operation, fleet.ErrUnknownToken)
		case err != nil:
			return fleet.Token{}, wrapOwn(err, operation)
		case result == putHeld:
			return fleet.Token{}, fmt.Errorf("%s: %w", operation, fleet.ErrNotYours)
		case result == putOK:
			return token, nil
		}
	}
	return fleet.Token{}, fmt.Errorf("%s: %w: the token changes all the time", operation, fleet.ErrUnavailable)
}

func (s *Store) tryAuthorize(ctx context.Context, id, secret, instanceID string) (t fleet.Token, result string, err error) {
	stored, err := s.client.HGet(ctx, s.keys.tokens(), id).Result()
	if err != nil {
		return t, "", err
	}
	if t, err = decodeToken(stored); err != nil {
		return t, "", err
	}
	switch {
	case !t.Matches(secret):
		return t, "", fleet.ErrUnknownToken
	case t.Revoked():
		return t, "", fleet.ErrRevokedToken
	case !t.Any && len(t.Instances) > 0 && !t.Binds(instanceID):
		return t, "", fleet.ErrNotYours
	}
	bind := !t.Any && !t.Binds(instanceID)
	if t.Any && !t.Binds(instanceID) {
		holders, err := s.client.HGet(ctx, s.keys.held(), instanceID).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return t, "", err
		}
		if slices.ContainsFunc(strings.Fields(holders), func(holder string) bool { return holder != id }) {
			return t, "", fleet.ErrNotYours
		}
	}
	if !bind && !t.FirstUsedAt.IsZero() {
		return t, putOK, nil
	}
	if t.FirstUsedAt.IsZero() {
		if t.FirstUsedAt, err = s.Now(ctx); err != nil {
			return t, "", err
		}
	}
	claim, adds := "", []string(nil)
	if bind {
		claim, adds = instanceID, []string{instanceID}
		t.Instances = adds
	}
	result, err = s.replaceToken(ctx, stored, t, claim, adds, nil)
	return t, result, err
}

// RotateToken is part of store.Store. An unknown id is fleet.ErrNotFound, a revoked token fleet.ErrRevokedToken.
func (s *Store) RotateToken(ctx context.Context, id string) (secret string, err error) {
	now, err := s.Now(ctx)
	if err != nil {
		return "", err
	}
	err = s.changeToken(ctx, "rotate token "+id, id, func(t *fleet.Token) error {
		if t.Revoked() {
			return fleet.ErrRevokedToken
		}
		secret, t.RotatedAt = t.NewSecret(), now
		return nil
	})
	if err != nil {
		return "", err
	}
	return secret, nil
}

// RevokeToken is part of store.Store. An unknown id is fleet.ErrNotFound.
func (s *Store) RevokeToken(ctx context.Context, id string) error {
	now, err := s.Now(ctx)
	if err != nil {
		return err
	}
	return s.changeToken(ctx, "revoke token "+id, id, func(t *fleet.Token) error {
		if t.Revoked() {
			return errNoChange
		}
		t.RevokedAt = now
		return nil
	})
}

func (s *Store) changeToken(ctx context.Context, operation, id string, change func(*fleet.Token) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for range tokenTries {
		stored, err := s.client.HGet(ctx, s.keys.tokens(), id).Result()
		if err != nil {
			return wrap(err, operation)
		}
		t, err := decodeToken(stored)
		if err != nil {
			return fmt.Errorf("%s: %w", operation, err)
		}
		switch err := change(&t); {
		case errors.Is(err, errNoChange):
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", operation, err)
		}
		var drops []string
		if t.Revoked() {
			drops = t.Instances
		}
		result, err := s.replaceToken(ctx, stored, t, "", nil, drops)
		if err != nil {
			return wrap(err, operation)
		}
		if result == putOK {
			return nil
		}
	}
	return fmt.Errorf("%s: %w: the token changes all the time", operation, fleet.ErrUnavailable)
}

// replaceToken runs put_token.lua.
func (s *Store) replaceToken(ctx context.Context, old string, t fleet.Token, claim string, adds, drops []string) (string, error) {
	text, err := json.Marshal(t)
	if err != nil {
		return "", fmt.Errorf("encode token: %w", err)
	}
	args := []any{t.ID, old, text, s.scriptChannel(), claim, len(adds)}
	for _, instance := range slices.Concat(adds, drops) {
		args = append(args, instance)
	}
	result, err := s.putToken.Run(ctx, s.client, []string{s.keys.tokens(), s.keys.held()}, args...).Text()
	if err == nil && result == putOK {
		s.publish(ctx, hintTokens)
	}
	return result, err
}

func decodeToken(text string) (t fleet.Token, err error) {
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		return t, fmt.Errorf("decode token: %w", err)
	}
	return t, nil
}

// wrapOwn is wrap for an error that may be the fleet's already.
func wrapOwn(err error, operation string) error {
	for _, own := range []error{fleet.ErrUnknownToken, fleet.ErrRevokedToken, fleet.ErrNotYours, fleet.ErrUnavailable} {
		if errors.Is(err, own) {
			return fmt.Errorf("%s: %w", operation, err)
		}
	}
	return wrap(err, operation)
}
