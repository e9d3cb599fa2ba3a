package syncapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/httpjson"
)

// errStopping says that the server stops and waiters should ask another primary.
var errStopping = errors.New("primary is stopping")

// waitForNews answers GET /sync/wait as soon as the policy hash is another than the caller's, or when wait is over.
func (s *Server) waitForNews(w http.ResponseWriter, r *http.Request) {
	wait, err := waitOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	select {
	case s.waiters <- struct{}{}:
		defer func() { <-s.waiters }()
	default:
		s.busy(w, "too many callers wait for news")
		return
	}
	// A listener's own time-out is meant for short requests. Not every writer has deadlines.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(wait + bodyTimeout))

	hash, err := s.awaitPolicy(r.Context(), r.URL.Query().Get("policy_hash"), wait)
	switch {
	case r.Context().Err() != nil:
		return // nobody is left to answer
	case errors.Is(err, errStopping):
		s.busy(w, err.Error())
		return
	case err != nil:
		s.fail(w, r, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	who := callerFrom(ctx)
	if _, err := s.store.Authorize(ctx, who.secret, who.instance); err != nil {
		s.denied(w, r, err) // revoked while it waited
		return
	}
	httpjson.Write(w, http.StatusOK, WaitReply{PolicyHash: hash, Commands: []json.RawMessage{}})
}

func waitOf(r *http.Request) (time.Duration, error) {
	text := r.URL.Query().Get("wait")
	if text == "" {
		return DefaultWait, nil
	}
	wait, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%w: wait must be a duration such as 30s", fleet.ErrInvalid)
	}
	return min(max(wait, MinWait), MaxWait), nil
}

// awaitPolicy returns the policy's hash once it differs from have, or after wait.
func (s *Server) awaitPolicy(ctx context.Context, have string, wait time.Duration) (string, error) {
	end := time.NewTimer(wait)
	defer end.Stop()
	hash, changed := s.policy.get()
	if hash != have || s.policy.version() == 0 {
		// The caller may know a newer policy than this primary has heard of, if it has heard of any; answering it with
		// the old hash would send it in circles.
		if err := s.lookAtPolicy(ctx); err != nil {
			return "", err
		}
		hash, changed = s.policy.get()
	}
	for hash == have {
		select {
		case <-changed:
			hash, changed = s.policy.get()
		case <-end.C:
			return hash, nil
		case <-s.stopped:
			return "", errStopping
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	return hash, nil
}

// PolicyChanged wakes those who wait for another policy than the one with this hash. Where the caller knows only that
// something changed, hash is "" and Run looks. It never blocks.
func (s *Server) PolicyChanged(hash string) {
	if hash != "" {
		s.policy.set(hash)
		return
	}
	select {
	case s.look <- struct{}{}:
	default: // a look is due already
	}
}

// Run looks at the policy every few seconds, in case that no word of a change came, until ctx ends. Then it sends all
// waiters away and returns nil. It may run once.
func (s *Server) Run(ctx context.Context) error {
	defer close(s.stopped)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if err := s.lookAtPolicy(ctx); err != nil && ctx.Err() == nil {
			s.log.DebugContext(ctx, "policy not read", "err", err) // whoever asks for it is told, and logged
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-s.look:
		}
	}
}

// lookAtPolicy reads the policy's hash from the store into the feed.
func (s *Server) lookAtPolicy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	before := s.policy.version()
	doc, err := s.store.Policy(ctx)
	if err != nil && !errors.Is(err, fleet.ErrNotFound) {
		return err
	}
	s.policy.observe(before, doc.Hash)
	return nil
}
