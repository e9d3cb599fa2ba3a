package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store"
)

// token creates a token and returns its secret.
func token(t *testing.T, s store.Store, name string, anyInstance bool, instances ...string) (fleet.Token, string) {
	t.Helper()
	made, secret := fleet.NewToken(name, instances, anyInstance, now(t, s))
	if err := s.CreateToken(t.Context(), made); err != nil {
		t.Fatalf("CreateToken(%s): %v", name, err)
	}
	return made, secret
}

func tokenRules(t *testing.T, b Backend) {
	s := b.open(t)
	fresh, freshSecret := token(t, s, "fresh", false)
	_, taken := token(t, s, "taken", false)
	_, bound := token(t, s, "bound", false, "b1", "b2")
	_, anyone := token(t, s, "any", true)
	_, anyBound := token(t, s, "any and bound", true, "b3")
	revoked, revokedSecret := token(t, s, "revoked", false, "old")
	if err := s.RevokeToken(t.Context(), revoked.ID); err != nil {
		t.Fatal(err)
	}
	_, shared := token(t, s, "shared on purpose", false, "b1")
	unknown, unknownSecret := fleet.NewToken("unknown", nil, false, now(t, s))

	for _, c := range []struct {
		name, secret, instance string
		want                   error
	}{
		{"a new token binds to the first instance", freshSecret, "r1", nil},
		{"and speaks for it again", freshSecret, "r1", nil},
		{"and for no other", freshSecret, "r2", fleet.ErrNotYours},
		{"a new token cannot take an instance that another holds", taken, "r1", fleet.ErrNotYours},
		{"nor one that another was bound to beforehand", taken, "b1", fleet.ErrNotYours},
		{"but one that only a revoked token held", taken, "old", nil},
		{"a bound token speaks for each of its instances", bound, "b1", nil},
		{"the other one too", bound, "b2", nil},
		{"and for no other", bound, "b9", fleet.ErrNotYours},
		{"an open token speaks for any instance", anyone, "a1", nil},
		{"and another", anyone, "a2", nil},
		{"but not for one that another token holds", anyone, "r1", fleet.ErrNotYours},
		{"an open token speaks for those that it was bound to", anyBound, "b3", nil},
		{"another open token does not", anyone, "b3", fleet.ErrNotYours},
		{"two tokens may be bound to one instance beforehand", shared, "b1", nil},
		{"a revoked token is refused", revokedSecret, "old", fleet.ErrRevokedToken},
		{"an unknown token is refused", unknownSecret, "r1", fleet.ErrUnknownToken},
		{"a wrong secret with a known id is refused", fresh.ID + ".wrong", "r1", fleet.ErrUnknownToken},
		{"a revoked token's id with a wrong secret tells nothing", revoked.ID + ".wrong", "old", fleet.ErrUnknownToken},
		{"the public id alone is no secret", fresh.ID, "r1", fleet.ErrUnknownToken},
		{"nothing is no secret", "", "r1", fleet.ErrUnknownToken},
		{"nor is another token's secret part", unknown.ID + freshSecret[len(fresh.ID):], "r1", fleet.ErrUnknownToken},
	} {
		got, err := s.Authorize(t.Context(), c.secret, c.instance)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got error %v, want %v", c.name, err, c.want)
		}
		if c.want == nil && got.ID != fleet.TokenID(c.secret) {
			t.Errorf("%s: got token %q, want %q", c.name, got.ID, fleet.TokenID(c.secret))
		}
	}
}

func tokenLife(t *testing.T, b Backend) {
	s := b.open(t)
	second, secret := token(t, s, "second", false)
	first, _ := token(t, s, "first", true, "a", "b")
	wantErr(t, "create the same token again with another name", s.CreateToken(t.Context(), fleet.Token{ID: first.ID, Name: "x", CreatedAt: first.CreatedAt}), fleet.ErrConflict)
	list := func() []fleet.Token {
		t.Helper()
		all, err := s.Tokens(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range all {
			all[i].CreatedAt = all[i].CreatedAt.Truncate(1e6) // a store may keep only milliseconds
		}
		return all
	}
	first.CreatedAt, second.CreatedAt = first.CreatedAt.Truncate(1e6), second.CreatedAt.Truncate(1e6)
	compare(t, "tokens by name", list(), []fleet.Token{first, second})

	used, err := s.Authorize(t.Context(), secret, "r1")
	if err != nil || used.FirstUsedAt.IsZero() {
		t.Fatalf("first use: got %+v, %v, want a time of first use", used, err)
	}
	again, err := s.Authorize(t.Context(), secret, "r1")
	if err != nil || !again.FirstUsedAt.Truncate(1e6).Equal(used.FirstUsedAt.Truncate(1e6)) {
		t.Errorf("second use: got first used at %s, %v, want %s", again.FirstUsedAt, err, used.FirstUsedAt)
	}
	if got := list()[1]; got.FirstUsedAt.IsZero() || !got.Binds("r1") {
		t.Errorf("used token: got %+v, want it bound to r1", got)
	}

	rotated, err := s.RotateToken(t.Context(), second.ID)
	if err != nil {
		t.Fatalf("rotate: %v", err)
	}
	_, err = s.Authorize(t.Context(), secret, "r1")
	wantErr(t, "old secret", err, fleet.ErrUnknownToken)
	if got, err := s.Authorize(t.Context(), rotated, "r1"); err != nil || got.RotatedAt.IsZero() || got.ID != second.ID {
		t.Errorf("new secret: got %+v, %v", got, err)
	}
	for range 2 {
		if err := s.RevokeToken(t.Context(), second.ID); err != nil {
			t.Errorf("revoke: %v", err)
		}
	}
	_, err = s.Authorize(t.Context(), rotated, "r1")
	wantErr(t, "revoked", err, fleet.ErrRevokedToken)
	if got := list()[1]; !got.Revoked() || got.Name != "second" {
		t.Errorf("revoked token: got %+v, want it still listed", got)
	}
	_, err = s.RotateToken(t.Context(), second.ID)
	wantErr(t, "rotate a revoked token", err, fleet.ErrRevokedToken)
	_, err = s.RotateToken(t.Context(), "nobody")
	wantErr(t, "rotate an unknown token", err, fleet.ErrNotFound)
	wantErr(t, "revoke an unknown token", s.RevokeToken(t.Context(), "nobody"), fleet.ErrNotFound)
}

// race runs n functions at once and counts those that end without error; others must end with want.
func race(t *testing.T, n int, want error, run func(i int) error) (won int) {
	t.Helper()
	errs := make([]error, n)
	var group sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		group.Go(func() {
			<-start
			errs[i] = run(i)
		})
	}
	close(start)
	group.Wait()
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, want) {
			t.Errorf("got error %v, want %v", err, want)
		}
	}
	return won
}

func tokenRace(t *testing.T, b Backend) {
	handles := []store.Store{b.open(t), b.open(t)}
	for round := range 10 {
		made, secret := token(t, handles[0], "raced", false)
		won := race(t, 6, fleet.ErrNotYours, func(i int) error {
			_, err := handles[i%2].Authorize(t.Context(), secret, fmt.Sprintf("i%d-%d", round, i))
			return err
		})
		if won != 1 {
			t.Errorf("round %d: %d instances hold token %s, want exactly 1", round, won, made.ID)
		}
	}
}

func instanceRace(t *testing.T, b Backend) {
	handles := []store.Store{b.open(t), b.open(t)}
	for round := range 10 {
		var secrets []string
		for range 6 {
			_, secret := token(t, handles[0], "raced", false)
			secrets = append(secrets, secret)
		}
		won := race(t, len(secrets), fleet.ErrNotYours, func(i int) error {
			_, err := handles[i%2].Authorize(t.Context(), secrets[i], fmt.Sprintf("i%d", round))
			return err
		})
		if won != 1 {
			t.Errorf("round %d: %d tokens hold the instance, want exactly 1", round, won)
		}
	}
}

func tokenNotCached(t *testing.T, b Backend) {
	primary, command := b.open(t), b.open(t)
	made, secret := fleet.NewToken("new", nil, false, now(t, primary))
	_, err := primary.Authorize(t.Context(), secret, "r1")
	wantErr(t, "before it is created", err, fleet.ErrUnknownToken)
	if err := command.CreateToken(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	if _, err := primary.Authorize(t.Context(), secret, "r1"); err != nil {
		t.Errorf("right after it is created: %v", err)
	}
	if err := command.RevokeToken(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	_, err = primary.Authorize(t.Context(), secret, "r1")
	wantErr(t, "right after it is revoked", err, fleet.ErrRevokedToken)
}
