// Package signin decides who may use the web API: one admin password, and sessions that every primary of the fleet
// knows because they are in the store.
package signin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"dnsfleet/internal/fleet"
)

const (
	// sessionTTL is how long a session lasts without use.
	sessionTTL = 12 * time.Hour
	// renewEvery is how often a session in use is given its whole TTL again.
	renewEvery = time.Hour
	// trustFor is how long a session counts without asking the store: so much later a sign-out elsewhere arrives here.
	trustFor = 5 * time.Second
	// cookieAge is how long a browser keeps the cookie; whether it is still worth anything the store says.
	cookieAge    = 30 * 24 * time.Hour
	storeTimeout = 3 * time.Second
	maxSessions  = 10_000
)

// ErrWrongPassword says that the password is not the admin's.
var ErrWrongPassword = errors.New("wrong password")

// TooManyError says that passwords were tried too often from one network, or from all together.
type TooManyError struct{ RetryAfter time.Duration }

// Error is one sentence for the person who waits.
func (e *TooManyError) Error() string { return "too many attempts to sign in, wait a little" }

// Sessions is the part of the store that keeps sessions.
type Sessions interface {
	SaveSession(ctx context.Context, id string, data []byte, ttl time.Duration) error
	Session(ctx context.Context, id string) ([]byte, error)
	DeleteSession(ctx context.Context, id string) error
}

// Gate signs people in and out and recognises them. Safe for concurrent use.
type Gate struct {
	store Sessions
	hash  func(context.Context) (string, error)
	log   *slog.Logger
	limit *limiter

	mu    sync.Mutex // guards known
	known map[string]session
}

// session is what this process knows of a session, so that a store that is away signs nobody out.
type session struct {
	checked time.Time // when the store last knew it
	asked   time.Time // when the store was last asked
	saved   time.Time // when this process last renewed it; zero = never
	unsaved bool      // made while the store was away
}

// NewGate makes a Gate. hash tells the admin password's hash; its error means that it is not known now. A nil hash makes
// the gate open: everybody counts as signed in.
func NewGate(store Sessions, hash func(context.Context) (string, error), log *slog.Logger) *Gate {
	return &Gate{store: store, hash: hash, log: log, limit: newLimiter(), known: map[string]session{}}
}

// SignIn checks the password and gives w the cookie of a new session. Its errors are ErrWrongPassword, *TooManyError
// and fleet.ErrUnavailable. How long it takes does not depend on the password.
func (g *Gate) SignIn(w http.ResponseWriter, r *http.Request, password string) error {
	if g.hash == nil {
		return nil
	}
	from := clientAddr(r)
	if wait, ok := g.limit.take(from); !ok {
		return &TooManyError{RetryAfter: wait}
	}
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	hash, err := g.hash(ctx)
	if err != nil {
		return fmt.Errorf("admin password: %w: %w", fleet.ErrUnavailable, err)
	}
	if !matches(hash, password) {
		g.log.WarnContext(ctx, "sign-in refused", "from", from)
		return ErrWrongPassword
	}
	g.limit.forgive(from)

	raw := make([]byte, 32)
	rand.Read(raw) // documented never to fail
	id := base64.RawURLEncoding.EncodeToString(raw)
	now := time.Now()
	s := session{checked: now, asked: now, saved: now}
	switch err := g.store.SaveSession(ctx, sessionKey(id), []byte("{}"), sessionTTL); {
	case errors.Is(err, fleet.ErrUnavailable): // people sign in when things are broken: this primary remembers alone
		s.unsaved = true
	case err != nil:
		return fmt.Errorf("save session: %w", err)
	}
	g.remember(sessionKey(id), s)
	http.SetCookie(w, cookie(r, id, int(cookieAge.Seconds())))
	return nil
}

// SignOut ends the session of r and takes the cookie from w's browser. An error means that the store could not be told
// and other primaries know the session until it ends by itself.
func (g *Gate) SignOut(w http.ResponseWriter, r *http.Request) error {
	http.SetCookie(w, cookie(r, "", -1))
	c, err := r.Cookie(cookieName(r))
	if err != nil {
		return nil // no cookie, no session
	}
	key := sessionKey(c.Value)
	g.forget(key)
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	if err := g.store.DeleteSession(ctx, key); err != nil {
		return fmt.Errorf("sign out: %w", err)
	}
	return nil
}

// SignedIn reports whether r has a session. An error means that nobody can tell now.
func (g *Gate) SignedIn(r *http.Request) (bool, error) {
	if g.hash == nil {
		return true, nil
	}
	c, err := r.Cookie(cookieName(r))
	if err != nil || c.Value == "" || len(c.Value) > 128 {
		return false, nil // no cookie, no session
	}
	key, now := sessionKey(c.Value), time.Now()
	s, known := g.recall(key)
	if known && now.Sub(s.asked) < trustFor {
		return true, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	_, err = g.store.Session(ctx, key)
	s.asked = now
	switch {
	case err == nil || (errors.Is(err, fleet.ErrNotFound) && s.unsaved):
		s.checked = now
		if s.unsaved || now.Sub(s.saved) >= renewEvery {
			if err := g.store.SaveSession(ctx, key, []byte("{}"), sessionTTL); err != nil {
				g.log.WarnContext(ctx, "session not renewed", "err", err)
			} else {
				s.saved, s.unsaved = now, false
			}
		}
		g.remember(key, s)
		return true, nil
	case errors.Is(err, fleet.ErrNotFound):
		g.forget(key)
		return false, nil
	case known && now.Sub(s.checked) < sessionTTL:
		g.remember(key, s)
		return true, nil
	case known:
		g.forget(key)
		return false, nil
	default:
		return false, fmt.Errorf("session: %w", err)
	}
}

func (g *Gate) recall(key string) (session, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s, known := g.known[key]
	return s, known
}

func (g *Gate) remember(key string, s session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for old := range g.known { // bounded: any may go, it is only asked for again
		if len(g.known) < maxSessions {
			break
		}
		delete(g.known, old)
	}
	g.known[key] = s
}

func (g *Gate) forget(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.known, key)
}

// sessionKey is the name under which the store keeps a session: who reads the store cannot use it as a cookie.
func sessionKey(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

// cookieName has the prefix that binds a cookie to its host where HTTPS allows for it.
func cookieName(r *http.Request) string {
	if r.TLS != nil {
		return "__Host-dnsfleet"
	}
	return "dnsfleet"
}

func cookie(r *http.Request, id string, maxAge int) *http.Cookie {
	return &http.Cookie{ //nolint:gosec // Secure where there is HTTPS; on plain HTTP a browser would drop the cookie
		Name: cookieName(r), Value: id, Path: "/", MaxAge: maxAge,
		HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteLaxMode,
	}
}

func clientAddr(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr()
}
