// Package redis is the store that several primaries share: one Redis server, one behind Sentinel, or a Redis Cluster,
// version 5 or newer (a cluster: 7 or newer, for sharded pub/sub).
//
// Everything about one instance sits in one of 64 buckets, so that a push is one script in one slot. Every write is of
// absolute values under a comparison, so the client may repeat a command whose answer was lost.
package redis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store"
	"dnsfleet/internal/store/redis/redisurl"
)

// Time-outs: of one connection attempt, of one answer, and of all that a method does, repeats included.
const (
	dialTimeout = 2 * time.Second
	ioTimeout   = 2 * time.Second
	callTimeout = 3 * time.Second
	maxRetries  = 2
)

//go:embed lua/save_report.lua
var saveReportLua string

//go:embed lua/forget.lua
var forgetLua string

//go:embed lua/put_token.lua
var putTokenLua string

//go:embed lua/put_policy.lua
var putPolicyLua string

// Options say which Redis, and how it is used.
type Options struct {
	URL      string        // see redisurl.Parse
	Prefix   string        // of every key; "" = dnsfleet
	StatsTTL time.Duration // see store.Options
	History  time.Duration // see store.Options
	// Dialer opens connections where the system's resolver must not be asked; nil = the system's. TLS is put on top.
	Dialer func(ctx context.Context, network, addr string) (net.Conn, error)
	Log    *slog.Logger // nil discards
}

// Store is a store.Store in Redis. It may be used concurrently.
type Store struct {
	client  redis.UniversalClient
	cluster bool
	keys    keys
	opt     store.Options
	codec   *store.SliceCodec
	minutes *store.MinuteCache
	log     *slog.Logger

	saveReport, forget, putToken, putPolicy *redis.Script
}

var _ store.Store = (*Store)(nil)

// Open makes a store without waiting for Redis: an unreachable one makes its methods answer fleet.ErrUnavailable until
// it is there. The only error is an URL that makes no sense.
func Open(_ context.Context, o Options) (*Store, error) {
	target, err := redisurl.Parse(o.URL)
	if err != nil {
		return nil, err
	}
	codec, err := store.NewSliceCodec()
	if err != nil {
		return nil, err
	}
	if o.Prefix == "" {
		o.Prefix = "dnsfleet"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Store{
		client:  target.Client(o.Dialer, redisurl.Limits{Dial: dialTimeout, IO: ioTimeout, Pool: callTimeout, Retries: maxRetries}),
		cluster: target.Kind == redisurl.Cluster,
		keys:    keys{prefix: o.Prefix}, codec: codec, minutes: store.NewMinuteCache(codec), log: o.Log,
		opt:        store.Options{StatsTTL: o.StatsTTL, History: o.History}.WithDefaults(),
		saveReport: redis.NewScript(saveReportLua), forget: redis.NewScript(forgetLua),
		putToken: redis.NewScript(putTokenLua), putPolicy: redis.NewScript(putPolicyLua),
	}, nil
}

// Close closes the connections.
func (s *Store) Close() error { return s.client.Close() }

// Now is the Redis server's clock; on a cluster that of one of its nodes.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	now, err := s.client.Time(ctx).Result()
	if err != nil {
		return time.Time{}, wrap(err, "ask Redis for the time")
	}
	return now.UTC(), nil
}

// Warnings says in sentences what about the server's settings may lose what the store keeps; none when all is well. It
// is meant for start-up; a server that cannot be asked is one warning.
func (s *Store) Warnings(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	asker := redis.Cmdable(s.client)
	setting := func(name string) (string, error) {
		all, err := asker.ConfigGet(ctx, name).Result()
		return all[name], wrap(err, "read Redis setting "+name)
	}
	policy, err := setting("maxmemory-policy")
	appendOnly, err2 := setting("appendonly")
	save, err3 := setting("save")
	if err := errors.Join(err, err2, err3); err != nil {
		return []string{fmt.Sprintf("the settings of Redis could not be checked: %v", firstOf(err, err2, err3))}
	}
	var warnings []string
	if policy != "noeviction" {
		warnings = append(warnings, fmt.Sprintf("Redis may evict what the fleet stores: maxmemory-policy is %s, it should be noeviction", policy))
	}
	if appendOnly != "yes" && save == "" {
		warnings = append(warnings, "Redis keeps nothing on disk: set appendonly yes, or a restart forgets tokens, policy and history")
	}
	return warnings
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// publish tells every primary on a cluster that something changed; elsewhere the scripts do so themselves. A lost hint
// is found by the next sweep, so an error is only worth a line for people who look for it.
func (s *Store) publish(ctx context.Context, message string) {
	if !s.cluster {
		return
	}
	if err := s.client.SPublish(ctx, s.keys.events(), message).Err(); err != nil {
		s.log.DebugContext(ctx, "publish hint failed", "message", message, "err", err)
	}
}

// scriptChannel is the channel that scripts publish to, "" on a cluster.
func (s *Store) scriptChannel() string {
	if s.cluster {
		return ""
	}
	return s.keys.events()
}

// inMS is a time as the scripts and hashes have it.
func inMS(t time.Time) int64 { return t.UnixMilli() }

func fromMS(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

var errNoReply = fmt.Errorf("%w: unexpected answer from Redis", fleet.ErrUnavailable)
