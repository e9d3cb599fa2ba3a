// Package replica is an instance's own end of the sync API: a Client that finds a primary, a Follower that keeps the
// instance at its fleet's policy, and a Reporter that pushes what it counted. A primary reports of itself with the same
// Reporter, through a StoreSender.
package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/syncapi"
)

const (
	defaultSyncInterval = time.Minute
	pullSpread          = 250 * time.Millisecond // over which a woken fleet asks for the new policy
	shortWait           = time.Second
)

// PolicySource is where a Follower learns of the policy; a Client is one.
type PolicySource interface {
	// Config is the policy document, nil while its hash is the given one; fleet.ErrNotFound while there is none.
	Config(ctx context.Context, hash string) (body []byte, err error)
	// Wait returns when the hash is no longer the given one, or after wait.
	Wait(ctx context.Context, hash string, wait time.Duration) (syncapi.WaitReply, error)
}

// Applier makes a policy the one that the instance works by. It returns the paths of what it could not apply although
// it could read it. After an error the policy before must still be in force. The Follower calls it from one goroutine.
type Applier interface {
	Apply(ctx context.Context, doc fleet.PolicyDoc) (unapplied []string, err error)
}

// FollowerOptions are what NewFollower needs. Source and Applier are required.
type FollowerOptions struct {
	Source   PolicySource
	Applier  Applier
	File     string        // where the last good policy is kept, for the next start; "" = nowhere
	Interval time.Duration // between pulls where there is no other news; 0 = 60 s
	Wait     time.Duration // of one long poll; 0 = 30 s
	Log      *slog.Logger
}

// FollowerStats is how a Follower does, for reports, metrics and people.
type FollowerStats struct {
	Revision    int64    // of the policy in force, 0 while there is none
	Hash        string   // of the policy in force, "" while there is none
	Unapplied   []string // paths of what of it this instance cannot do, sorted; never nil
	Pulls       uint64   // that were answered, news or not
	Applied     uint64   // policies, the saved one included
	Failures    uint64
	InARow      int
	LastSuccess time.Time // of a pull
	LastError   string    // of the last failure, "" after a success
}

// Follower keeps an instance at its fleet's policy. Its Stats are safe for concurrent use.
type Follower struct {
	o FollowerOptions

	pulls, waits failures // belong to Run

	mu    sync.Mutex // guards the following
	stats FollowerStats
}

// NewFollower is a follower that knows no policy.
func NewFollower(o FollowerOptions) *Follower {
	if o.Interval <= 0 {
		o.Interval = defaultSyncInterval
	}
	if o.Wait <= 0 {
		o.Wait = syncapi.DefaultWait
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Follower{o: o, stats: FollowerStats{Unapplied: []string{}}}
}

// Stats tells how it goes. The caller may keep what it gets.
func (f *Follower) Stats() FollowerStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stats
	s.Unapplied = slices.Clone(s.Unapplied)
	return s
}

// Run applies the saved policy, then follows the primaries' until ctx ends and returns nil. A policy that cannot be read
// or applied leaves the one before in force and is tried again. It may run once.
func (f *Follower) Run(ctx context.Context) error {
	f.restore(ctx)
	news := false
	for ctx.Err() == nil {
		changed, err := f.pull(ctx)
		if err != nil {
			f.pause(ctx, &f.pulls, err)
			continue
		}
		f.worked(ctx, &f.pulls)
		switch {
		case news && changed:
			f.worked(ctx, &f.waits)
		case news:
			f.pause(ctx, &f.waits, errNoNews)
		}
		news = f.awaitNews(ctx)
	}
	return nil
}

// errNoNews says that a primary told of another policy and then had none: two that do not share a store answer under one
// name.
var errNoNews = errors.New("a primary told of another policy, but none came")

// awaitNews returns when it is time for another pull, and whether a primary told of another policy.
func (f *Follower) awaitNews(ctx context.Context) (news bool) {
	due := time.Now().Add(jittered(f.o.Interval))
	have := f.Stats().Hash
	for ctx.Err() == nil && time.Now().Before(due) {
		started := time.Now()
		wait := max(min(jittered(f.o.Wait), syncapi.MaxWait, time.Until(due)), syncapi.MinWait)
		reply, err := f.o.Source.Wait(ctx, have, wait)
		switch {
		case ctx.Err() != nil:
			return false
		case isMissing(err):
			sleep(ctx, time.Until(due)) // a primary without long poll
			return false
		case err != nil:
			f.pause(ctx, &f.waits, fmt.Errorf("wait for news: %w", err))
			return false
		case reply.PolicyHash != have:
			sleep(ctx, upTo(pullSpread))
			return true
		case time.Since(started) < shortWait:
			sleep(ctx, shortWait) // an answer without news must not come at once, but it might
		}
		f.worked(ctx, &f.waits)
	}
	return false
}

func isMissing(err error) bool {
	switch syncapi.StatusOf(err) {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return true
	}
	return false
}

// pull asks for the policy and applies it where it is another than the one in force.
func (f *Follower) pull(ctx context.Context) (changed bool, err error) {
	have := f.Stats().Hash
	body, err := f.o.Source.Config(ctx, have)
	switch {
	case errors.Is(err, fleet.ErrNotFound) && have == "":
		return false, nil // a new fleet: its first policy will be news
	case err != nil:
		return false, fmt.Errorf("pull policy: %w", err)
	}
	f.mu.Lock()
	f.stats.Pulls++
	f.stats.LastSuccess = time.Now()
	f.mu.Unlock()
	if body == nil {
		return false, nil
	}
	doc, err := f.apply(ctx, body)
	if err != nil {
		return false, err
	}
	f.save(ctx, body)
	f.o.Log.InfoContext(ctx, "policy applied", "revision", doc.Revision, "hash", doc.Hash, "unapplied", len(f.Stats().Unapplied))
	return true, nil
}

// apply makes the document in body the policy in force.
func (f *Follower) apply(ctx context.Context, body []byte) (fleet.PolicyDoc, error) {
	doc, unknown, err := fleet.DecodePolicyDoc(body)
	if err != nil {
		return doc, fmt.Errorf("read policy: %w", err)
	}
	failed, err := f.o.Applier.Apply(ctx, doc)
	if err != nil {
		return doc, fmt.Errorf("apply policy revision %d: %w", doc.Revision, err)
	}
	unapplied := append(append([]string{}, unknown...), failed...)
	slices.Sort(unapplied)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Revision, f.stats.Hash = doc.Revision, doc.Hash
	f.stats.Unapplied = slices.Compact(unapplied)
	f.stats.Applied++
	return doc, nil
}

// restore applies the policy of the last run, so that the instance works before any primary answers.
func (f *Follower) restore(ctx context.Context) {
	if f.o.File == "" {
		return
	}
	body, err := readSaved(f.o.File)
	if err == nil && body == nil {
		return
	}
	var doc fleet.PolicyDoc
	if err == nil {
		doc, err = f.apply(ctx, body)
	}
	if err != nil {
		f.o.Log.WarnContext(ctx, "saved policy not applied, waiting for a primary", "file", f.o.File, "err", err)
		return
	}
	f.o.Log.InfoContext(ctx, "saved policy applied", "revision", doc.Revision, "hash", doc.Hash)
}

func (f *Follower) save(ctx context.Context, body []byte) {
	if f.o.File == "" {
		return
	}
	if err := writeSaved(f.o.File, body); err != nil {
		f.o.Log.WarnContext(ctx, "policy not saved for the next start", "file", f.o.File, "err", err)
	}
}

// failures are those of one step in a row.
type failures struct {
	retry backoff
	class string // how the last one failed
}

// pause counts a failure and waits before the next attempt. It logs the first of a row, and the next of another kind.
func (f *Follower) pause(ctx context.Context, row *failures, err error) {
	if ctx.Err() != nil {
		return
	}
	class := fmt.Sprint(syncapi.StatusOf(err), errors.Is(err, fleet.ErrInvalid))
	if row.retry.failures == 0 || class != row.class {
		f.o.Log.WarnContext(ctx, "policy sync failed, will be tried again", "err", err)
	}
	row.class = class
	delay := row.retry.next(err)
	f.mu.Lock()
	f.stats.Failures++
	f.stats.InARow = f.pulls.retry.failures + f.waits.retry.failures
	f.stats.LastError = err.Error()
	f.mu.Unlock()
	sleep(ctx, delay)
}

// worked ends a row of failures.
func (f *Follower) worked(ctx context.Context, row *failures) {
	if row.retry.failures == 0 {
		return
	}
	f.o.Log.InfoContext(ctx, "policy sync works again", "failures", row.retry.failures)
	row.retry.reset()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.InARow = f.pulls.retry.failures + f.waits.retry.failures
	if f.stats.InARow == 0 {
		f.stats.LastError = ""
	}
}
