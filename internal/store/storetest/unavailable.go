package storetest

import (
	"errors"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store"
)

// Unavailable checks that every method of a store that cannot be reached answers fleet.ErrUnavailable within a time.
// exempt names methods that can do without it.
func Unavailable(t *testing.T, s store.Store, within time.Duration, exempt ...string) {
	t.Helper()
	ctx := t.Context()
	_, secret := fleet.NewToken("t", nil, false, time.Now())
	r := fleet.Report{InstanceID: "r1", BootID: "boot1", Seq: 1, SentAt: time.Now()}
	calls := map[string]func() error{
		"Now":           func() error { _, err := s.Now(ctx); return err },
		"SaveReport":    func() error { _, err := s.SaveReport(ctx, r, fleet.RoleReplica, "t1"); return err },
		"Instances":     func() error { _, err := s.Instances(ctx); return err },
		"Instances(id)": func() error { _, err := s.Instances(ctx, "r1"); return err },
		"Seen":          func() error { _, _, err := s.Seen(ctx, time.Time{}); return err },
		"Slices":        func() error { _, err := s.Slices(ctx, "r1", fleet.Minute, time.Time{}, time.Now()); return err },
		"Forget":        func() error { return s.Forget(ctx, "r1") },
		"CreateToken":   func() error { return s.CreateToken(ctx, fleet.Token{ID: "t1"}) },
		"Tokens":        func() error { _, err := s.Tokens(ctx); return err },
		"Authorize":     func() error { _, err := s.Authorize(ctx, secret, "r1"); return err },
		"RotateToken":   func() error { _, err := s.RotateToken(ctx, "t1"); return err },
		"RevokeToken":   func() error { return s.RevokeToken(ctx, "t1") },
		"Policy":        func() error { _, err := s.Policy(ctx); return err },
		"PutPolicy":     func() error { _, err := s.PutPolicy(ctx, fleet.DefaultPolicy(), ""); return err },
		"SetDefault":    func() error { _, err := s.SetDefault(ctx, "a", "b"); return err },
		"SaveSession":   func() error { return s.SaveSession(ctx, "s1", nil, time.Minute) },
		"Session":       func() error { _, err := s.Session(ctx, "s1"); return err },
		"DeleteSession": func() error { return s.DeleteSession(ctx, "s1") },
	}
	for _, name := range exempt {
		delete(calls, name)
	}
	type answer struct {
		name string
		err  error
		took time.Duration
	}
	answers := make(chan answer, len(calls))
	for name, call := range calls {
		go func() {
			start := time.Now()
			err := call()
			answers <- answer{name, err, time.Since(start)}
		}()
	}
	for range calls {
		a := <-answers
		if !errors.Is(a.err, fleet.ErrUnavailable) {
			t.Errorf("%s: got error %v, want %v", a.name, a.err, fleet.ErrUnavailable)
		}
		if a.took > within {
			t.Errorf("%s: took %s, want at most %s", a.name, a.took, within)
		}
	}
}
