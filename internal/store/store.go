// Package store says what the fleet remembers, and how: instances and their reports, slices of history, tokens, the
// policy, sessions. Its adapters are store/redis, which several primaries share, and store/sqlite, which one primary
// embeds; store/storetest is the suite that both pass.
package store

import (
	"context"
	"time"

	"dnsfleet/internal/fleet"
)

// Options are what every adapter is opened with.
type Options struct {
	// StatsTTL is how long a report counts without a newer one.
	StatsTTL time.Duration
	// History is how far back slices are kept: 0, 24 h or 90 d. Each size is kept for the shorter of this and
	// Size.Keep; minute slices always long enough for fleet.RecentWindow.
	History time.Duration
}

// Store is the whole of what an adapter offers; consumers declare the part they call. All methods may be called
// concurrently, wait no longer than their context, and answer fleet.ErrUnavailable (wrapped) when the store cannot be
// reached. Every time in an answer is on the store's clock: the Redis server's, or for SQLite that of the process,
// which a step of the wall clock does not move.
type Store interface {
	// Now is the store's clock.
	Now(ctx context.Context) (time.Time, error)

	// SaveReport replaces the report of r.InstanceID, restarts its TTL and stores its slices, all or nothing. tokenID is
	// the token it came with, "" for a primary's own. It takes the counters only if (boot, seq) is newer than what it
	// has; a new boot_id ends the boot before it, whose counters go into Instance.Ended, once. It answers
	// fleet.ErrFutureReport when sent_at is more than fleet.MaxFuture ahead, fleet.ErrForgotten for a boot that was
	// forgotten, and fleet.ErrNotYours when a replica claims a primary's id or the other way round.
	//
	// Saved.SlicesUntil has an entry for a boot and size only if slices of it were ever stored: a boot that has sent some
	// and finds no entry has met a store that lost them. Slices that are too old to be kept, too far ahead, or of a
	// forgotten boot are not stored but count as stored, so that they are not sent again.
	SaveReport(ctx context.Context, r fleet.Report, role fleet.Role, tokenID string) (fleet.Saved, error)
	// Instances are those with the given ids, in no order; all instances where none are given. Unknown and forgotten
	// ones are left out. Their Minutes may be shared with other answers: they are to be read, not changed.
	Instances(ctx context.Context, ids ...string) ([]fleet.Instance, error)
	// Seen tells which instances have reported at or after since, and when last. now is the store's clock.
	Seen(ctx context.Context, since time.Time) (seen map[string]time.Time, now time.Time, err error)
	// Slices are an instance's slices of one size that start in [from, to), by start, then boot id.
	Slices(ctx context.Context, instanceID string, size fleet.Size, from, to time.Time) ([]fleet.Slice, error)
	// Forget removes an instance with its history. Late reports of its boots are refused; a new boot starts from zero.
	// It answers fleet.ErrNotFound for an unknown instance.
	Forget(ctx context.Context, instanceID string) error
	// Watch calls hint for changes made through any adapter on this store until ctx ends, then returns nil. Hints may be
	// late, lost or repeated; after a reconnect it sends a zero Hint. hint must not block.
	Watch(ctx context.Context, hint func(fleet.Hint)) error

	// CreateToken stores a new token, fleet.ErrConflict if there is one with its id. Instances that it names may be bound
	// to other tokens as well: that is the administrator's word, unlike a binding by first use.
	CreateToken(ctx context.Context, t fleet.Token) error
	// Tokens are all tokens, revoked ones included, by name, then id.
	Tokens(ctx context.Context) ([]fleet.Token, error)
	// Authorize finds the token of secret and checks that it may speak for instanceID. A token that is bound to nobody
	// and not Any is bound to instanceID now, unless another token that is not revoked holds that instance. It answers
	// fleet.ErrUnknownToken, fleet.ErrRevokedToken or fleet.ErrNotYours. It sets FirstUsedAt at the first success. Nothing
	// is cached: a token counts, or stops counting, from the moment it is written.
	Authorize(ctx context.Context, secret, instanceID string) (fleet.Token, error)
	// RotateToken gives the token a new secret, which it returns; the old one stops working. It answers
	// fleet.ErrNotFound for an unknown id and fleet.ErrRevokedToken for a revoked token.
	RotateToken(ctx context.Context, id string) (secret string, err error)
	// RevokeToken makes the token useless for ever, fleet.ErrNotFound for an unknown id. Revoking twice is not an error.
	RevokeToken(ctx context.Context, id string) error

	// Policy is the current policy, fleet.ErrNotFound while there is none.
	Policy(ctx context.Context) (fleet.PolicyDoc, error)
	// PutPolicy makes p the policy, one revision higher, if the current one has the hash ifHash ("" = there is none);
	// otherwise fleet.ErrConflict. A policy equal to the current one changes nothing and is no conflict, so a repeated
	// call is harmless.
	PutPolicy(ctx context.Context, p fleet.Policy, ifHash string) (fleet.PolicyDoc, error)

	// SetDefault stores value under a name if nothing is there, and returns what is there now: of several primaries that
	// start together the first one wins. Names are this program's own, such as "admin_password_hash".
	SetDefault(ctx context.Context, name, value string) (string, error)
	// SaveSession keeps data under id for ttl.
	SaveSession(ctx context.Context, id string, data []byte, ttl time.Duration) error
	// Session is what SaveSession kept, fleet.ErrNotFound once it has expired.
	Session(ctx context.Context, id string) ([]byte, error)
	// DeleteSession forgets it; an unknown one is no error.
	DeleteSession(ctx context.Context, id string) error

	// Close frees what the adapter holds.
	Close() error
}
