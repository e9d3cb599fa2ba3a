package syncapi

import (
	"context"
	"errors"
	"net/http"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/httpjson"
)

const maxHeartbeat = 64 << 10

// answerHeartbeat answers POST /sync/heartbeat: the caller may speak, and this is the time.
func (s *Server) answerHeartbeat(w http.ResponseWriter, r *http.Request) {
	body := http.MaxBytesReader(w, r.Body, maxHeartbeat)
	if err := httpjson.ReadTolerant(body, new(struct{})); err != nil {
		s.fail(w, r, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	now, err := s.store.Now(ctx)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Write(w, http.StatusOK, HeartbeatReply{OK: true, ServerTime: now.UTC()})
}

// sendStatus answers GET /sync/status.
func (s *Server) sendStatus(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	now, err := s.store.Now(ctx)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	doc, err := s.store.Policy(ctx)
	if err != nil && !errors.Is(err, fleet.ErrNotFound) {
		s.fail(w, r, err)
		return
	}
	who := callerFrom(r.Context())
	httpjson.Write(w, http.StatusOK, StatusReply{
		OK: true, ServerTime: now.UTC(), InstanceID: who.instance, TokenID: who.tokenID,
		PolicyRevision: doc.Revision, PolicyHash: doc.Hash,
	})
}
