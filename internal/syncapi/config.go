package syncapi

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/httpjson"
)

// sendConfig answers GET /sync/config with the policy, or 304 where the caller has it already.
func (s *Server) sendConfig(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	doc, err := s.store.Policy(ctx)
	if errors.Is(err, fleet.ErrNotFound) {
		// An everyday state of a new fleet, asked for by every replica: an answer, not a refusal to log.
		httpjson.Error(w, http.StatusNotFound, "there is no policy yet")
		return
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	etag := `"` + doc.Hash + `"`
	w.Header().Set("ETag", etag)
	w.Header().Set("Cache-Control", "private, no-cache")
	if hasETag(r.Header.Values("If-None-Match"), etag) {
		s.counts.configFresh.Add(1)
		w.WriteHeader(http.StatusNotModified)
		return
	}
	s.counts.configSent.Add(1)
	httpjson.Write(w, http.StatusOK, doc)
}

// hasETag compares weakly, as RFC 9110 section 13.1.2 wants for If-None-Match.
func hasETag(headers []string, etag string) bool {
	for _, header := range headers {
		for candidate := range strings.SplitSeq(header, ",") {
			candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
			if candidate == etag || candidate == "*" {
				return true
			}
		}
	}
	return false
}
