package control

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"dnsfleet/internal/httpjson"
)

// authenticated lets through to next what carries the token, and everything if there is none.
func (s *server) authenticated(next http.HandlerFunc) http.HandlerFunc {
	if s.Token == "" {
		return next
	}
	want := sha256.Sum256([]byte(s.Token)) // hashed, so that comparing does not tell its length
	return func(w http.ResponseWriter, r *http.Request) {
		got := sha256.Sum256([]byte(sentToken(r.Header)))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="dnsfleet control"`)
			httpjson.Error(w, http.StatusUnauthorized, "this needs the control token, as bearer or X-Auth-Token")
			return
		}
		next(w, r)
	}
}

// sentToken is the bearer token, or X-Auth-Token where there is none.
func sentToken(h http.Header) string {
	if scheme, token, found := strings.Cut(h.Get("Authorization"), " "); found && strings.EqualFold(scheme, "bearer") {
		return strings.TrimSpace(token)
	}
	return h.Get("X-Auth-Token")
}
