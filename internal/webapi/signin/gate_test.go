package signin_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/webapi/signin"
)

const password = "open sesame"

// sessions is a store of sessions that can be away.
type sessions struct {
	away  bool
	until map[string]time.Time
	saves int
	reads int
}

func (s *sessions) SaveSession(_ context.Context, id string, _ []byte, ttl time.Duration) error {
	if s.away {
		return fleet.ErrUnavailable
	}
	s.saves++
	s.until[id] = time.Now().Add(ttl)
	return nil
}

func (s *sessions) Session(_ context.Context, id string) ([]byte, error) {
	s.reads++
	if s.away {
		return nil, fleet.ErrUnavailable
	}
	if until, known := s.until[id]; known && time.Now().Before(until) {
		return []byte("{}"), nil
	}
	return nil, fleet.ErrNotFound
}

func (s *sessions) DeleteSession(_ context.Context, id string) error {
	if s.away {
		return fleet.ErrUnavailable
	}
	delete(s.until, id)
	return nil
}

// door is a gate with its store, and a browser in front of it.
type door struct {
	*signin.Gate

	store *sessions
	from  string
}

func newDoor(t *testing.T) *door {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	store := &sessions{until: map[string]time.Time{}}
	gate := signin.NewGate(store, func(context.Context) (string, error) { return string(hash), nil }, slog.New(slog.DiscardHandler))
	return &door{gate, store, "192.0.2.1:4711"}
}

func (d *door) request(cookie *http.Cookie) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = d.from
	if cookie != nil {
		r.AddCookie(cookie)
	}
	return r
}

func (d *door) signIn(t *testing.T) *http.Cookie {
	t.Helper()
	w := httptest.NewRecorder()
	if err := d.SignIn(w, d.request(nil), password); err != nil {
		t.Fatalf("sign in: %v", err)
	}
	return w.Result().Cookies()[0]
}

func (d *door) expect(t *testing.T, cookie *http.Cookie, want bool) {
	t.Helper()
	if got, err := d.SignedIn(d.request(cookie)); err != nil || got != want {
		t.Errorf("signed in: got %v, %v; want %v", got, err, want)
	}
}

func TestASessionLastsWhileItIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		cookie := d.signIn(t)
		for range 30 * 24 {
			time.Sleep(time.Hour)
			d.expect(t, cookie, true)
		}
		if d.store.saves > 1+30*24 {
			t.Errorf("got %d saves in 720 hours, want at most one an hour", d.store.saves)
		}
		time.Sleep(12*time.Hour + time.Minute)
		d.expect(t, cookie, false)
	})
}

func TestTheStoreIsNotAskedForEachRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		cookie := d.signIn(t)
		for range 1000 {
			time.Sleep(10 * time.Millisecond)
			d.expect(t, cookie, true)
		}
		if d.store.reads > 3 {
			t.Errorf("got %d reads in ten seconds, want one in five", d.store.reads)
		}
	})
}

func TestASignOutElsewhereArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		cookie := d.signIn(t)
		clear(d.store.until)
		time.Sleep(5 * time.Second)
		d.expect(t, cookie, false)
	})
}

func TestAStoreThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		before := d.signIn(t)
		d.store.away = true
		during := d.signIn(t)
		for range 11 {
			time.Sleep(time.Hour)
			d.expect(t, before, true)
			d.expect(t, during, true)
		}
		if _, err := d.SignedIn(d.request(&http.Cookie{Name: "dnsfleet", Value: "unknown"})); !errors.Is(err, fleet.ErrUnavailable) {
			t.Errorf("an unknown session: got %v, want that nobody can tell", err)
		}
		d.store.away = false
		d.expect(t, during, true)
		time.Sleep(10 * time.Second)
		d.expect(t, during, true)
		if len(d.store.until) != 2 {
			t.Errorf("got %d sessions in the store, want the one made meanwhile too", len(d.store.until))
		}

		d.store.away = true
		time.Sleep(13 * time.Hour)
		d.expect(t, before, false)
		if err := d.SignOut(httptest.NewRecorder(), d.request(during)); !errors.Is(err, fleet.ErrUnavailable) {
			t.Errorf("sign out: got %v, want that others were not told", err)
		}
	})
}

func TestAttemptsAreBoundedByNetworkAndTogether(t *testing.T) {
	try := func(d *door, from string) error {
		d.from = from
		return d.SignIn(httptest.NewRecorder(), d.request(nil), "guess")
	}
	until := func(d *door, from string) (attempts int) {
		for attempts < 200 && errors.Is(try(d, from), signin.ErrWrongPassword) {
			attempts++
		}
		return attempts
	}
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		if got := until(d, "192.0.2.1:1"); got != 10 {
			t.Errorf("got %d attempts of one address, want 10", got)
		}
		var wait *signin.TooManyError
		if err := try(d, "192.0.2.1:2"); !errors.As(err, &wait) || wait.RetryAfter <= 0 || wait.RetryAfter > 6*time.Second {
			t.Errorf("got %v, want to be told to wait at most 6 s", err)
		}
		if got := until(d, "[::ffff:192.0.2.1]:3"); got != 0 {
			t.Errorf("got %d attempts of the same address written as IPv6, want none", got)
		}
		if got := until(d, "192.0.2.2:1"); got != 10 {
			t.Errorf("got %d attempts of another address, want 10", got)
		}
		if got := until(d, "[2001:db8::1]:1") + until(d, "[2001:db8::2]:1"); got != 10 {
			t.Errorf("got %d attempts of one IPv6 network, want 10", got)
		}
		time.Sleep(6 * time.Second)
		if got := until(d, "192.0.2.1:1"); got != 1 {
			t.Errorf("got %d attempts after six seconds, want one more", got)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		total := 0
		for i := range 100 {
			total += until(d, fmt.Sprintf("198.51.100.%d:1", i))
		}
		if total != 60 {
			t.Errorf("got %d attempts from 100 addresses, want 60 together", total)
		}
		time.Sleep(time.Minute)
		for i := range 10_000 { // memory stays bounded, and so do the attempts
			if err := try(d, fmt.Sprintf("[2001:db8:%x::1]:1", i)); err == nil {
				t.Fatal("a guess was right")
			}
		}
		time.Sleep(time.Second)
		d.from = "203.0.113.1:1"
		d.signIn(t)
	})
}

func TestGarbageIsNoSession(t *testing.T) {
	d := newDoor(t)
	for _, value := range []string{"", "x", strings.Repeat("x", 129), strings.Repeat("a", 43)} {
		d.expect(t, &http.Cookie{Name: "dnsfleet", Value: value}, false)
	}
	d.expect(t, nil, false)
	if d.store.reads > 2 {
		t.Errorf("got %d reads, want none for what cannot be a session", d.store.reads)
	}
}
