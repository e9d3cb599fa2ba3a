package storetest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store"
)

func withDeny(name string) fleet.Policy {
	p := fleet.DefaultPolicy()
	p.Deny = []string{name}
	return p
}

func policy(t *testing.T, b Backend) {
	s, other := b.open(t), b.open(t)
	_, err := s.Policy(t.Context())
	wantErr(t, "no policy yet", err, fleet.ErrNotFound)
	_, err = s.PutPolicy(t.Context(), withDeny("a.example"), "some hash")
	wantErr(t, "replace what is not there", err, fleet.ErrConflict)

	first, err := s.PutPolicy(t.Context(), withDeny("a.example"), "")
	if err != nil || first.Revision != 1 || first.Hash != withDeny("a.example").Hash() || first.UpdatedAt.IsZero() {
		t.Fatalf("first policy: got %+v, %v", first, err)
	}
	read := func(what string, want fleet.PolicyDoc) {
		t.Helper()
		got, err := other.Policy(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		compare(t, what, got, want)
	}
	read("first policy", first)

	_, err = other.PutPolicy(t.Context(), withDeny("b.example"), "")
	wantErr(t, "a second first policy", err, fleet.ErrConflict)
	read("after the conflict", first)

	second, err := other.PutPolicy(t.Context(), withDeny("b.example"), first.Hash)
	if err != nil || second.Revision != 2 {
		t.Fatalf("second policy: got %+v, %v", second, err)
	}
	_, err = s.PutPolicy(t.Context(), withDeny("c.example"), first.Hash)
	wantErr(t, "replace what was replaced meanwhile", err, fleet.ErrConflict)
	for what, hash := range map[string]string{"the current hash": second.Hash, "an older hash, as a repeated call has": first.Hash} {
		same, err := s.PutPolicy(t.Context(), withDeny("b.example"), hash)
		if err != nil {
			t.Errorf("the same policy with %s: %v", what, err)
		}
		compare(t, "the same policy with "+what, same, second)
	}
	read("at last", second)
}

func policyRace(t *testing.T, b Backend) {
	handles := []store.Store{b.open(t), b.open(t)}
	var mu sync.Mutex
	var winners []fleet.PolicyDoc
	won := race(t, 6, fleet.ErrConflict, func(i int) error {
		doc, err := handles[i%2].PutPolicy(t.Context(), withDeny(fmt.Sprintf("p%d.example", i)), "")
		if err == nil {
			mu.Lock()
			winners = append(winners, doc)
			mu.Unlock()
		}
		return err
	})
	if won != 1 {
		t.Fatalf("%d primaries think that their seed is the policy, want 1", won)
	}
	for i, s := range handles {
		got, err := s.Policy(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		compare(t, fmt.Sprintf("policy of primary %d", i), got, winners[0])
	}
}

func settingsRace(t *testing.T, b Backend) {
	handles := []store.Store{b.open(t), b.open(t)}
	got := make([]string, 6)
	race(t, len(got), nil, func(i int) (err error) {
		got[i], err = handles[i%2].SetDefault(t.Context(), "admin_password_hash", fmt.Sprintf("hash %d", i))
		return err
	})
	for i, value := range got {
		if value == "" || value != got[0] {
			t.Errorf("primary %d got %q, primary 0 got %q", i, value, got[0])
		}
	}
	if other, err := handles[1].SetDefault(t.Context(), "another", "x"); err != nil || other != "x" {
		t.Errorf("another name: got %q, %v, want x", other, err)
	}
}

func sessions(t *testing.T, b Backend) {
	s, other := b.open(t), b.open(t)
	_, err := s.Session(t.Context(), "s1")
	wantErr(t, "unknown session", err, fleet.ErrNotFound)
	for id, ttl := range map[string]time.Duration{"s1": time.Minute, "short": 150 * time.Millisecond, "over": 0} {
		if err := s.SaveSession(t.Context(), id, []byte("\x00data of "+id), ttl); err != nil {
			t.Fatal(err)
		}
	}
	if data, err := other.Session(t.Context(), "s1"); err != nil || string(data) != "\x00data of s1" {
		t.Errorf("session: got %q, %v", data, err)
	}
	_, err = s.Session(t.Context(), "over")
	wantErr(t, "session without life", err, fleet.ErrNotFound)
	eventually(t, "session expires", 10*time.Second, func() bool {
		_, err := other.Session(t.Context(), "short")
		return err != nil
	})
	_, err = s.Session(t.Context(), "short")
	wantErr(t, "expired session", err, fleet.ErrNotFound)
	for range 2 {
		if err := other.DeleteSession(t.Context(), "s1"); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	_, err = s.Session(t.Context(), "s1")
	wantErr(t, "deleted session", err, fleet.ErrNotFound)
}

// listen watches s until the test ends and returns a function that waits for a hint.
func listen(t *testing.T, s store.Store) (expect func(what string, want fleet.Hint)) {
	t.Helper()
	hints := make(chan fleet.Hint, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Watch(ctx, func(h fleet.Hint) { hints <- h }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Watch: got %v, want nil when its context ends", err)
		}
	})
	return func(what string, want fleet.Hint) {
		t.Helper()
		late := time.After(2 * time.Second) // a view follows a push within 2 s on every primary
		for {
			select {
			case got := <-hints:
				if got == want {
					return
				}
			case <-late:
				t.Fatalf("%s: no hint %+v within 2s", what, want)
			}
		}
	}
}

func watch(t *testing.T, b Backend) {
	watched, other := b.open(t), b.open(t)
	at := now(t, other)
	expect := listen(t, watched)
	expect("at the start anything may have changed", fleet.Hint{})
	push(t, other, report(t, other, "r1", "boot1", 1, 1))
	expect("a report", fleet.Hint{InstanceID: "r1"})
	push(t, other, report(t, other, "r1", "boot1", 1, 1, minute(at, -1, "boot1", 1)))
	expect("a slice", fleet.Hint{InstanceID: "r1"})
	made, _ := token(t, other, "t", false)
	expect("a new token", fleet.Hint{Tokens: true})
	if err := other.RevokeToken(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	expect("a revoked token", fleet.Hint{Tokens: true})
	if _, err := other.PutPolicy(t.Context(), fleet.DefaultPolicy(), ""); err != nil {
		t.Fatal(err)
	}
	expect("a policy", fleet.Hint{Policy: true})
	if err := other.Forget(t.Context(), "r1"); err != nil {
		t.Fatal(err)
	}
	expect("a forgotten instance", fleet.Hint{InstanceID: "r1"})
	push(t, watched, report(t, watched, "r2", "boot1", 1, 1))
	expect("a report through the same handle", fleet.Hint{InstanceID: "r2"})
}

func watchEnds(t *testing.T, b Backend) {
	s := b.open(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Watch(ctx, func(fleet.Hint) {}) }()
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("got %v, want nil", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("Watch goes on 5s after its context has ended")
	}
}

func cancelled(t *testing.T, b Backend) {
	s := b.open(t)
	r := report(t, s, "r1", "boot1", 1, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.SaveReport(ctx, r, fleet.RoleReplica, "t1")
	wantErr(t, "SaveReport", err, context.Canceled)
	_, err = s.Instances(ctx)
	wantErr(t, "Instances", err, context.Canceled)
}
