package redis

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"dnsfleet/internal/fleet"
)

// Policy is part of store.Store.
func (s *Store) Policy(ctx context.Context) (fleet.PolicyDoc, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	fields, err := s.client.HMGet(ctx, s.keys.policy(), "revision", "hash", "updated_at", "policy").Result()
	if err != nil {
		return fleet.PolicyDoc{}, wrap(err, "read policy")
	}
	if fields[0] == nil {
		return fleet.PolicyDoc{}, fmt.Errorf("read policy: %w", fleet.ErrNotFound)
	}
	return decodePolicy(fields)
}

// PutPolicy is part of store.Store.
func (s *Store) PutPolicy(ctx context.Context, p fleet.Policy, ifHash string) (fleet.PolicyDoc, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return fleet.PolicyDoc{}, fmt.Errorf("write policy: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := s.putPolicy.Run(ctx, s.client, []string{s.keys.policy()}, ifHash, p.Hash(), text, s.scriptChannel()).Result()
	if err != nil {
		return fleet.PolicyDoc{}, wrap(err, "write policy")
	}
	fields, isList := reply.([]any)
	if !isList {
		return fleet.PolicyDoc{}, fmt.Errorf("write policy: %w", fleet.ErrConflict)
	}
	s.publish(ctx, hintPolicy)
	return decodePolicy(fields)
}

func decodePolicy(values []any) (doc fleet.PolicyDoc, err error) {
	fields := map[string]string{}
	for i, name := range []string{"revision", "hash", "updated_at", "policy"} {
		if i < len(values) {
			fields[name], _ = values[i].(string)
		}
	}
	p := parser{fields: fields}
	doc = fleet.PolicyDoc{Revision: p.int("revision"), Hash: fields["hash"], UpdatedAt: p.ms("updated_at")}
	p.keep("policy", json.Unmarshal([]byte(fields["policy"]), &doc.Policy))
	if p.err != nil {
		return fleet.PolicyDoc{}, fmt.Errorf("read policy: %w", p.err)
	}
	return doc, nil
}

// SetDefault is part of store.Store.
func (s *Store) SetDefault(ctx context.Context, name, value string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var now *redis.StringCmd
	_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.HSetNX(ctx, s.keys.settings(), name, value)
		now = p.HGet(ctx, s.keys.settings(), name)
		return nil
	})
	if err != nil {
		return "", wrap(err, fmt.Sprintf("set default of %q", name))
	}
	return now.Val(), nil
}

// SaveSession is part of store.Store.
func (s *Store) SaveSession(ctx context.Context, id string, data []byte, ttl time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if ttl < time.Millisecond {
		return wrap(s.client.Del(ctx, s.keys.session(id)).Err(), "save session")
	}
	return wrap(s.client.Set(ctx, s.keys.session(id), data, ttl).Err(), "save session")
}

// Session is part of store.Store.
func (s *Store) Session(ctx context.Context, id string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	data, err := s.client.Get(ctx, s.keys.session(id)).Bytes()
	return data, wrap(err, "read session")
}

// DeleteSession is part of store.Store.
func (s *Store) DeleteSession(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return wrap(s.client.Del(ctx, s.keys.session(id)).Err(), "delete session")
}
