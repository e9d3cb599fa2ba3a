package replica_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/syncapi"
	"dnsfleet/internal/syncapi/replica"
)

// policySource is a primary of one policy document.
type policySource struct {
	mu      sync.Mutex // guards the following
	doc     []byte     // nil = no policy yet
	hash    string
	fault   error // of Config
	noWait  error // of Wait
	hasty   bool  // Wait answers at once, with what it has
	lies    bool  // Wait tells of a policy that Config does not have
	changed chan struct{}
	pulls   []time.Time
	waits   []time.Duration
}

func newPolicySource() *policySource { return &policySource{changed: make(chan struct{})} }

func (s *policySource) put(hash string, doc []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doc, s.hash = doc, hash
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *policySource) Config(_ context.Context, hash string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pulls = append(s.pulls, time.Now())
	switch {
	case s.fault != nil:
		return nil, s.fault
	case s.doc == nil:
		return nil, fmt.Errorf("primary: %w", &syncapi.StatusError{Status: 404, Message: "there is no policy yet"})
	case s.hash == hash:
		return nil, nil
	}
	return s.doc, nil
}

func (s *policySource) Wait(ctx context.Context, hash string, wait time.Duration) (syncapi.WaitReply, error) {
	end := time.NewTimer(wait)
	defer end.Stop()
	s.mu.Lock()
	s.waits = append(s.waits, wait)
	s.mu.Unlock()
	for {
		s.mu.Lock()
		current, changed, err, hasty := s.hash, s.changed, s.noWait, s.hasty
		if s.lies {
			current = "lie"
		}
		s.mu.Unlock()
		if err != nil || hasty || current != hash {
			return syncapi.WaitReply{PolicyHash: current}, err
		}
		select {
		case <-changed:
		case <-end.C:
			return syncapi.WaitReply{PolicyHash: current}, nil
		case <-ctx.Done():
			return syncapi.WaitReply{}, ctx.Err()
		}
	}
}

// applier notes what it was given.
type applier struct {
	mu        sync.Mutex // guards the following
	docs      []fleet.PolicyDoc
	at        []time.Time
	fault     error
	unapplied []string
}

func (a *applier) Apply(_ context.Context, doc fleet.PolicyDoc) ([]string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fault != nil {
		return nil, a.fault
	}
	a.docs, a.at = append(a.docs, doc), append(a.at, time.Now())
	return a.unapplied, nil
}

func docOf(revision int64, deny ...string) (hash string, body []byte) {
	p := fleet.DefaultPolicy()
	p.Deny = append(p.Deny, deny...)
	doc := fleet.NewPolicyDoc(p, revision, time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC))
	body, err := json.Marshal(doc)
	if err != nil {
		panic(err)
	}
	return doc.Hash, body
}

type following struct {
	source   *policySource
	applier  *applier
	follower *replica.Follower
	log      *bytes.Buffer
	file     string
	stop     func()
}

func follow(t *testing.T, change ...func(*following, *replica.FollowerOptions)) *following {
	t.Helper()
	f := &following{source: newPolicySource(), applier: &applier{}, log: new(bytes.Buffer), file: filepath.Join(t.TempDir(), "data", "policy.json")}
	o := replica.FollowerOptions{Source: f.source, Applier: f.applier, File: f.file, Log: slog.New(slog.NewTextHandler(f.log, nil))}
	for _, c := range change {
		c(f, &o)
	}
	f.follower = replica.NewFollower(o)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.follower.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	t.Cleanup(f.stop)
	return f
}

func TestFollowerFollows(t *testing.T) {
	t.Run("the policy there is, then each change within a moment", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			first, body := docOf(1)
			f := follow(t, func(f *following, _ *replica.FollowerOptions) { f.source.put(first, body) })
			rest(time.Millisecond)
			if s := f.follower.Stats(); s.Hash != first || s.Revision != 1 || s.Applied != 1 || s.Unapplied == nil || len(s.Unapplied) != 0 || s.LastSuccess.IsZero() {
				t.Errorf("stats at the start are %+v", s)
			}
			rest(5 * time.Minute)
			second, body := docOf(2, "ads.example")
			f.source.put(second, body)
			rest(250 * time.Millisecond)
			if s := f.follower.Stats(); s.Hash != second || s.Revision != 2 {
				t.Errorf("stats 250 ms after a change are %+v", s)
			}
			f.stop()
			if n := len(f.applier.docs); n != 2 {
				t.Errorf("applied %d policies, want each once", n)
			}
			if n := len(f.source.pulls); n > 8 {
				t.Errorf("%d pulls in five minutes, want about one a minute", n)
			}
			if got := f.source.waits; slices.Min(got) < time.Second || slices.Max(got) > 33*time.Second || slices.Min(got) == slices.Max(got) {
				t.Errorf("waits are %v, want about 30 s with jitter", got)
			}
		})
	})
	t.Run("a new fleet's first policy", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := follow(t)
			rest(10 * time.Minute)
			if s := f.follower.Stats(); s.Failures != 0 || s.Hash != "" {
				t.Errorf("stats without a policy are %+v", s)
			}
			hash, body := docOf(1)
			f.source.put(hash, body)
			rest(250 * time.Millisecond)
			if s := f.follower.Stats(); s.Hash != hash {
				t.Errorf("stats are %+v, want the first policy", s)
			}
		})
	})
	t.Run("a primary without long poll, at its interval", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			hash, body := docOf(1)
			f := follow(t, func(f *following, o *replica.FollowerOptions) {
				f.source.put(hash, body)
				f.source.noWait = &syncapi.StatusError{Status: 404, Message: "no such path"}
				o.Interval = 20 * time.Second
			})
			rest(10 * time.Minute)
			second, body := docOf(2, "ads.example")
			f.source.put(second, body)
			rest(22 * time.Second)
			if s := f.follower.Stats(); s.Hash != second || s.Failures != 0 {
				t.Errorf("stats one interval after a change are %+v", s)
			}
			f.stop()
			for i, at := range f.source.pulls[1:] {
				within(t, "a gap between pulls", at.Sub(f.source.pulls[i]), 18*time.Second, 22*time.Second)
			}
		})
	})
	t.Run("and tells what this release cannot do", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			body := []byte(`{"revision":9,"hash":"newer","updated_at":"2026-03-14T09:00:00Z","policy":{"deny":["ads.example"],"groups":[{}],
			"upstreams":[{"address":"9.9.9.9","pin":"x"}],"block_mode":"sinkhole"}}`)
			f := follow(t, func(f *following, _ *replica.FollowerOptions) {
				f.source.put("newer", body)
				f.applier.unapplied = []string{"deny[0]"}
			})
			rest(time.Second)
			f.stop()
			s := f.follower.Stats()
			if want := []string{"block_mode", "deny[0]", "groups", "upstreams[0].pin"}; !slices.Equal(s.Unapplied, want) || s.Hash != "newer" {
				t.Errorf("unapplied of %s is %q, want %q", s.Hash, s.Unapplied, want)
			}
			if got := f.applier.docs[0].Policy.Deny; !slices.Equal(got, []string{"ads.example"}) {
				t.Errorf("applied deny %q", got)
			}
			// What this release cannot read waits on disk for one that can.
			if saved, err := os.ReadFile(f.file); err != nil || !bytes.Equal(saved, body) {
				t.Errorf("saved %s, %v", saved, err)
			}
		})
	})
}

func TestFollowerKeepsTheLastGoodPolicy(t *testing.T) {
	good, goodBody := docOf(1)
	away := func(f *following, _ *replica.FollowerOptions) {
		f.source.fault = errors.New("connection refused")
		f.source.noWait = f.source.fault
	}
	saved := func(body []byte) func(*following, *replica.FollowerOptions) {
		return func(f *following, o *replica.FollowerOptions) {
			o.File = f.file
			if err := os.MkdirAll(filepath.Dir(f.file), 0o700); err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(f.file, body, 0o600); err != nil {
				t.Error(err)
			}
		}
	}
	t.Run("on disk, for the owner's eyes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := follow(t, func(f *following, _ *replica.FollowerOptions) { f.source.put(good, goodBody) })
			rest(time.Second)
			f.stop()
			info, err := os.Stat(f.file)
			if err != nil {
				t.Fatal(err)
			}
			if got := info.Mode().Perm(); got != 0o600 {
				t.Errorf("mode is %o, want 600", got)
			}
			if left, err := os.ReadDir(filepath.Dir(f.file)); err != nil || len(left) != 1 {
				t.Errorf("the folder holds %v, %v, want the policy alone", left, err)
			}
		})
	})
	t.Run("and applies it at the start, before a primary answers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := follow(t, away, saved(goodBody))
			rest(time.Millisecond)
			if s := f.follower.Stats(); s.Hash != good || s.Revision != 1 {
				t.Errorf("stats are %+v, want the saved policy", s)
			}
			rest(time.Hour)
			f.stop()
			if n := len(f.applier.docs); n != 1 {
				t.Errorf("applied %d times, want once", n)
			}
			if n := len(f.source.pulls); n < 100 || n > 300 {
				t.Errorf("%d pulls in an hour of outage, want one each 15 to 30 s", n)
			}
			for i, most := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
				within(t, "a gap between retries", f.source.pulls[i+1].Sub(f.source.pulls[i]), most/2, most)
			}
			if got := strings.Count(f.log.String(), "policy sync failed"); got != 1 {
				t.Errorf("logged the outage %d times, want once", got)
			}
		})
	})
	t.Run("and asks for it by its hash", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := follow(t, saved(goodBody), func(f *following, _ *replica.FollowerOptions) { f.source.put(good, goodBody) })
			rest(time.Minute)
			f.stop()
			if n := len(f.applier.docs); n != 1 {
				t.Errorf("applied %d times, want once: the primary's is the same", n)
			}
		})
	})
	for name, body := range map[string][]byte{"cut short": goodBody[:100], "empty": {}, "of zeros": make([]byte, 4096), "without a policy": []byte(`{"hash":"x"}`)} {
		t.Run("a file that is "+name+" is passed over", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := follow(t, saved(body), func(f *following, _ *replica.FollowerOptions) { f.source.put(good, goodBody) })
				rest(time.Second)
				f.stop()
				if s := f.follower.Stats(); s.Hash != good || !strings.Contains(f.log.String(), "saved policy not applied") {
					t.Errorf("stats are %+v and the log is %s", s, f.log)
				}
				if got, err := os.ReadFile(f.file); err != nil || !bytes.Equal(got, goodBody) {
					t.Errorf("the file was not replaced: %v", err)
				}
			})
		})
	}
	t.Run("while a newer one cannot be read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := follow(t, func(f *following, _ *replica.FollowerOptions) { f.source.put(good, goodBody) })
			rest(time.Second)
			f.source.put("bad", []byte(`{"revision":2,"hash":"bad","policy":[`))
			rest(10 * time.Minute)
			if s := f.follower.Stats(); s.Hash != good || s.InARow == 0 || !strings.Contains(s.LastError, "read policy") {
				t.Errorf("stats are %+v, want the old policy and the reason", s)
			}
			next, body := docOf(3, "ads.example")
			f.source.put(next, body)
			rest(31 * time.Second)
			f.stop()
			if s := f.follower.Stats(); s.Hash != next || s.InARow != 0 || s.LastError != "" {
				t.Errorf("stats are %+v, want the next policy and no error", s)
			}
			if n := len(f.source.pulls); n > 60 {
				t.Errorf("%d pulls in ten minutes", n)
			}
		})
	})
	t.Run("while a newer one cannot be applied, which is tried again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := follow(t, func(f *following, _ *replica.FollowerOptions) { f.source.put(good, goodBody) })
			rest(time.Second)
			f.applier.mu.Lock()
			f.applier.fault = errors.New("no such list")
			f.applier.mu.Unlock()
			next, body := docOf(2, "ads.example")
			f.source.put(next, body)
			rest(5 * time.Minute)
			if s := f.follower.Stats(); s.Hash != good || !strings.Contains(s.LastError, "apply policy revision 2: no such list") {
				t.Errorf("stats are %+v, want the old policy and the reason", s)
			}
			if saved, err := os.ReadFile(f.file); err != nil || !bytes.Equal(saved, goodBody) {
				t.Errorf("the file holds another policy than the one in force: %v", err)
			}
			f.applier.mu.Lock()
			f.applier.fault = nil
			f.applier.mu.Unlock()
			rest(31 * time.Second)
			f.stop()
			if s := f.follower.Stats(); s.Hash != next {
				t.Errorf("stats are %+v, want the next policy", s)
			}
		})
	})
	t.Run("where the primary has lost its own", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := follow(t, func(f *following, _ *replica.FollowerOptions) { f.source.put(good, goodBody) })
			rest(time.Second)
			f.source.put("", nil)
			rest(10 * time.Minute)
			f.stop()
			if s := f.follower.Stats(); s.Hash != good || !strings.Contains(s.LastError, "there is no policy yet") {
				t.Errorf("stats are %+v, want the old policy and the reason", s)
			}
			if n := len(f.source.pulls); n > 60 {
				t.Errorf("%d pulls in ten minutes", n)
			}
		})
	})
}

func TestFollowerIsNoBurden(t *testing.T) {
	hash, body := docOf(1)
	for name, change := range map[string]func(*policySource){
		"answers a wait at once":                  func(s *policySource) { s.hasty = true },
		"tells of a policy that it does not have": func(s *policySource) { s.lies = true },
		"refuses to let it wait":                  func(s *policySource) { s.noWait = &syncapi.StatusError{Status: 503, Message: "full"} },
		"knows no wait":                           func(s *policySource) { s.noWait = &syncapi.StatusError{Status: 405, Message: "no"} },
		"knows no wait and has no policy":         func(s *policySource) { s.noWait, s.doc, s.hash = &syncapi.StatusError{Status: 404}, nil, "" },
	} {
		t.Run("to a primary that "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := follow(t, func(f *following, _ *replica.FollowerOptions) {
					f.source.put(hash, body)
					change(f.source)
				})
				rest(10 * time.Minute)
				f.stop()
				if p, w := len(f.source.pulls), len(f.source.waits); p > 60 || w > 650 {
					t.Errorf("%d pulls and %d waits in ten minutes", p, w)
				}
			})
		})
	}
	t.Run("at a stop that finds it waiting", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := follow(t, func(f *following, _ *replica.FollowerOptions) { f.source.put(hash, body) })
			rest(time.Minute)
			stopped := time.Now()
			f.stop()
			within(t, "the stop", time.Since(stopped), 0, 0)
		})
	})
	synctest.Test(t, func(t *testing.T) {
		// A folder that cannot be written costs the saved copy, not the policy.
		f := follow(t, func(f *following, o *replica.FollowerOptions) {
			blocker := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(blocker, nil, 0o600); err != nil {
				t.Error(err)
			}
			o.File = filepath.Join(blocker, "policy.json")
			f.source.put(hash, body)
		})
		rest(time.Second)
		f.stop()
		if s := f.follower.Stats(); s.Hash != hash || !strings.Contains(f.log.String(), "policy not saved") {
			t.Errorf("stats are %+v and the log is %s", s, f.log)
		}
	})
}
