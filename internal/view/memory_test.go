package view_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/view"
)

const ttl = 15 * time.Minute

// memory is a store of instances that forgets nothing and can be told to fail.
type memory struct {
	mu        sync.Mutex // guards the following
	skew      time.Duration
	instances map[string]fleet.Instance
	tokens    []fleet.Token
	policy    fleet.PolicyDoc
	faults    map[string]error // by method
	silent    bool             // hints are lost
	hint      func(fleet.Hint)
	calls     map[string]int
}

func newMemory() *memory {
	return &memory{instances: map[string]fleet.Instance{}, faults: map[string]error{}, calls: map[string]int{}}
}

func (m *memory) now() time.Time { return time.Now().Add(m.skew).Round(0) }

func (m *memory) enter(method string) error {
	m.calls[method]++
	return m.faults[method]
}

func (m *memory) Instances(_ context.Context, ids ...string) ([]fleet.Instance, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter("Instances"); err != nil {
		return nil, err
	}
	var out []fleet.Instance
	for id, in := range m.instances {
		if len(ids) > 0 && !slices.Contains(ids, id) {
			continue
		}
		if !m.now().Before(in.ExpiresAt) {
			in.Report = nil
		}
		out = append(out, in)
	}
	return out, nil
}

func (m *memory) Seen(_ context.Context, since time.Time) (map[string]time.Time, time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter("Seen"); err != nil {
		return nil, time.Time{}, err
	}
	seen := map[string]time.Time{}
	for id, in := range m.instances {
		if !in.LastSeen.Before(since) {
			seen[id] = in.LastSeen
		}
	}
	return seen, m.now(), nil
}

func (m *memory) Watch(ctx context.Context, hint func(fleet.Hint)) error {
	m.mu.Lock()
	if err := m.enter("Watch"); err != nil {
		m.mu.Unlock()
		return err
	}
	m.hint = hint
	m.mu.Unlock()
	<-ctx.Done()
	return nil
}

func (m *memory) Tokens(context.Context) ([]fleet.Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter("Tokens"); err != nil {
		return nil, err
	}
	return slices.SortedFunc(slices.Values(m.tokens), func(a, b fleet.Token) int { return cmp.Compare(a.ID, b.ID) }), nil
}

func (m *memory) Policy(context.Context) (fleet.PolicyDoc, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter("Policy"); err != nil {
		return fleet.PolicyDoc{}, err
	}
	if m.policy.Hash == "" {
		return fleet.PolicyDoc{}, fleet.ErrNotFound
	}
	return m.policy, nil
}

// change does what it is told and hints at it, unless hints are lost.
func (m *memory) change(h fleet.Hint, do func()) {
	m.mu.Lock()
	do()
	hint := m.hint
	if m.silent {
		hint = nil
	}
	m.mu.Unlock()
	if hint != nil {
		hint(h)
	}
}

// push stores what in says now.
func (m *memory) push(in fleet.Instance) {
	m.change(fleet.Hint{InstanceID: in.ID}, func() {
		in.LastSeen = m.now()
		in.ExpiresAt = in.LastSeen.Add(ttl)
		m.instances[in.ID] = in
	})
}

func (m *memory) fail(err error, methods ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, method := range methods {
		m.faults[method] = err
	}
}

func (m *memory) called(method string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls[method]
}

// instance is a replica that reports every ten seconds.
func instance(id string, counts fleet.Outcomes) fleet.Instance {
	return fleet.Instance{
		ID: id, Name: "name of " + id, Role: fleet.RoleReplica, DNS: true, TokenID: "token-" + id, BootID: "boot", Seq: 1, Current: counts,
		Report: &fleet.Report{
			InstanceID: id, Name: "name of " + id, IntervalSeconds: 10, SentAt: time.Now(), Release: "1.0.0", PolicyHash: "h",
			ResponseDistribution: fleet.Distribution{Outcomes: counts}, Blocklist: fleet.BlocklistStats{Lists: []fleet.ListStats{}},
		},
	}
}

// follow runs a view on m until the test ends, and waits until it has loaded. It is for use in a synctest bubble.
func follow(t *testing.T, m *memory, local view.LocalSource) *view.View {
	t.Helper()
	v := view.New(view.Options{Store: m, Local: local})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
	})
	time.Sleep(100 * time.Millisecond)
	synctest.Wait()
	return v
}

func stats(t *testing.T, v *view.View, q fleet.ViewQuery) fleet.View {
	t.Helper()
	out, err := v.Stats(q)
	if err != nil {
		t.Fatalf("stats: %v", err)
	}
	return out
}

// rows tells the replicas in short: "id status".
func rows(out fleet.View) []string {
	short := []string{}
	for _, r := range out.Replicas {
		short = append(short, fmt.Sprintf("%s %s", r.Key(), r.Status))
	}
	return short
}

// parts tells which parts the view is missing, but for the query log that this release does not have.
func parts(out fleet.View) []string {
	named := []string{}
	for _, e := range out.Errors {
		if e.Part != "queries" {
			named = append(named, e.Part)
		}
	}
	return named
}
