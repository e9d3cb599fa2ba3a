package syncapi

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"unicode/utf8"

	"dnsfleet/internal/fleet"
)

const maxSentence = 300 // bytes of a refusal, which may quote what was sent

// caller is who calls; a handler runs only for one that the store knows. The zero value is a stranger.
type caller struct {
	instance string
	tokenID  string // "" until the store said that the token may speak for instance
	secret   string // kept for the second look of a long poll, and to keep it out of answers and logs
}

type callerKey struct{}

func callerFrom(ctx context.Context) caller {
	c, known := ctx.Value(callerKey{}).(*caller)
	if !known {
		return caller{}
	}
	return *c
}

// redact cuts text to a bounded length and takes the caller's secret out of it: a field that is quoted in a refusal may
// hold it by mistake.
func (c caller) redact(text string) string {
	if c.secret != "" {
		text = strings.ReplaceAll(text, c.secret, "[redacted]")
	}
	if len(text) <= maxSentence {
		return text
	}
	end := maxSentence
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}

// authenticated lets only those through whose token may speak for the instance that they name.
func (s *Server) authenticated(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := &caller{secret: secretOf(r)}
		// Even a refusal must know the secret, to keep it out of what it says.
		ctx := context.WithValue(r.Context(), callerKey{}, who)
		r = r.WithContext(ctx)
		if who.secret == "" {
			s.unauthorized(w, r, http.StatusUnauthorized, "a token is required, as bearer or in "+TokenHeader)
			return
		}
		instance := r.Header.Get(InstanceHeader)
		if !fleet.ValidID(instance) || instance == who.secret {
			s.unauthorized(w, r, http.StatusBadRequest, InstanceHeader+" must be the id of the calling instance")
			return
		}
		who.instance = instance // claimed so far
		if len(who.secret) > MaxToken {
			s.unauthorized(w, r, http.StatusUnauthorized, fleet.ErrUnknownToken.Error())
			return
		}
		bounded, cancel := context.WithTimeout(ctx, storeTimeout)
		token, err := s.store.Authorize(bounded, who.secret, instance)
		cancel()
		if err != nil {
			s.denied(w, r, err)
			return
		}
		who.tokenID = token.ID
		next(w, r)
	})
}

// denied answers a failed Authorize.
func (s *Server) denied(w http.ResponseWriter, r *http.Request, err error) {
	for condition, status := range map[error]int{
		fleet.ErrUnknownToken: http.StatusUnauthorized,
		fleet.ErrRevokedToken: http.StatusUnauthorized,
		fleet.ErrNotYours:     http.StatusForbidden,
	} {
		if errors.Is(err, condition) {
			s.unauthorized(w, r, status, condition.Error())
			return
		}
	}
	s.fail(w, r, err)
}

func (s *Server) unauthorized(w http.ResponseWriter, r *http.Request, status int, sentence string) {
	s.counts.unauthorized.Add(1)
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="dnsfleet"`)
	}
	s.refuse(w, r, status, sentence)
}

// secretOf is the token of a request, "" where there is none. A proxy in front may have taken the Authorization header
// for itself, so only a bearer there hides TokenHeader.
func secretOf(r *http.Request) string {
	scheme, bearer, found := strings.Cut(r.Header.Get("Authorization"), " ")
	if found && strings.EqualFold(scheme, "bearer") {
		return strings.TrimSpace(bearer)
	}
	return strings.TrimSpace(r.Header.Get(TokenHeader))
}
