package redis_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store/redis"
	"dnsfleet/internal/store/storetest"
	"dnsfleet/internal/store/storetest/redistest"
)

// unavailableWithin is the longest that a caller may wait for an answer from a Redis that gives none.
const unavailableWithin = 4 * time.Second

func options(url string) redis.Options {
	return redis.Options{URL: url, Prefix: "fleet", StatsTTL: time.Minute, History: 24 * time.Hour}
}

func newReport(id, boot string, seq, blocked uint64) fleet.Report {
	r := fleet.Report{InstanceID: id, Name: id, BootID: boot, Seq: seq, SentAt: time.Now(), StartedAt: time.Now(), IntervalSeconds: 10}
	r.ResponseDistribution.Outcomes[fleet.Blocked] = blocked
	return r
}

func minuteSlice(boot string, back time.Duration) fleet.Slice {
	return fleet.Slice{Size: fleet.Minute, Start: time.Now().UTC().Add(-back).Truncate(time.Minute), BootID: boot, Upstreams: []fleet.UpstreamSlice{}}
}

func save(t *testing.T, s *redis.Store, r fleet.Report) fleet.Saved {
	t.Helper()
	saved, err := s.SaveReport(t.Context(), r, fleet.RoleReplica, "t1")
	if err != nil {
		t.Fatalf("SaveReport: %v", err)
	}
	return saved
}

func find(t *testing.T, s *redis.Store, ids ...string) []fleet.Instance {
	t.Helper()
	found, err := s.Instances(t.Context(), ids...)
	if err != nil {
		t.Fatalf("Instances: %v", err)
	}
	return found
}

// raw is a client that looks at what the store wrote.
func raw(t *testing.T, server *redistest.Server) *goredis.Client {
	t.Helper()
	c := goredis.NewClient(&goredis.Options{Addr: server.Addr(), MaxRetries: -1})
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close raw client: %v", err)
		}
	})
	return c
}

func eventually(t *testing.T, what string, within time.Duration, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s", what, within)
		case <-tick.C:
		}
	}
}

func TestAnUnreachableServerIsUnavailable(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := open(t, options(server.URL()))
	save(t, s, newReport("r1", "boot1", 1, 10))
	server.Kill()
	storetest.Unavailable(t, s, unavailableWithin)
	server.Restart()
	eventually(t, "store serves again", 10*time.Second, func() bool {
		found, err := s.Instances(t.Context())
		return err == nil && len(found) == 1
	})
}

func TestAHangingServerIsUnavailable(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := open(t, options(server.URL()))
	save(t, s, newReport("r1", "boot1", 1, 10))
	server.Pause()
	storetest.Unavailable(t, s, unavailableWithin)
	server.Resume()
	eventually(t, "store serves again", 10*time.Second, func() bool {
		_, err := s.Now(t.Context())
		return err == nil
	})
}

func TestAStoreOpensBeforeItsServer(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Stop()
	s := open(t, options(server.URL()))
	if _, err := s.Now(t.Context()); err == nil {
		t.Fatal("a server that is not there answered")
	}
	if got := s.Warnings(t.Context()); len(got) != 1 || !strings.Contains(got[0], "could not be checked") {
		t.Errorf("warnings: got %q, want one that nothing could be checked", got)
	}
	server.Restart()
	save(t, s, newReport("r1", "boot1", 1, 10))
}

// TestRefusalsAreUnavailable has a server answer, but with a refusal, and checks that a refused push left nothing.
func TestRefusalsAreUnavailable(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := raw(t, server)
	s := open(t, options(server.URL()))
	for _, c := range []struct{ name, setting, bad, good string }{
		{"out of memory", "maxmemory", "1", "0"},
		{"a replica that must not be written to", "", "", ""},
	} {
		if c.setting != "" {
			if err := client.ConfigSet(t.Context(), c.setting, c.bad).Err(); err != nil {
				t.Fatal(err)
			}
		} else if err := client.ReplicaOf(t.Context(), "127.0.0.1", "1").Err(); err != nil {
			t.Fatal(err)
		}
		r := newReport("r1", "boot1", 1, 10)
		r.Slices = []fleet.Slice{minuteSlice("boot1", time.Minute)}
		_, err := s.SaveReport(t.Context(), r, fleet.RoleReplica, "t1")
		if err == nil || !strings.Contains(err.Error(), fleet.ErrUnavailable.Error()) {
			t.Errorf("%s: got error %v, want %v", c.name, err, fleet.ErrUnavailable)
		}
		if n, err := client.DBSize(t.Context()).Result(); err != nil || n != 0 {
			t.Errorf("%s: got %d keys, %v, want none of the refused push", c.name, n, err)
		}
		if c.setting != "" {
			if err := client.ConfigSet(t.Context(), c.setting, c.good).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestPasswords(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--requirepass", "geheim@1")
	right := open(t, options("redis://:geheim%401@"+server.Addr()+"/3"))
	save(t, right, newReport("r1", "boot1", 1, 10))
	for _, url := range []string{"redis://:falsch@" + server.Addr(), "redis://" + server.Addr()} {
		_, err := open(t, options(url)).Now(t.Context())
		if err == nil || !strings.Contains(err.Error(), fleet.ErrUnavailable.Error()) {
			t.Errorf("wrong password: got error %v, want %v", err, fleet.ErrUnavailable)
		} else if strings.Contains(err.Error(), "falsch") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

// TestNothingAcknowledgedIsLost kills the server in the middle of pushes and looks for each that was answered.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := open(t, options(server.URL()))
	const instances = 8
	acknowledged := make([]uint64, instances)
	var group sync.WaitGroup
	for i := range instances {
		group.Go(func() {
			for seq := uint64(1); ; seq++ {
				id := fmt.Sprintf("r%d", i)
				if _, err := s.SaveReport(t.Context(), newReport(id, "boot1", seq, seq*100), fleet.RoleReplica, "t1"); err != nil {
					return
				}
				acknowledged[i] = seq
				if i == 0 && seq == 50 {
					server.Kill()
				}
			}
		})
	}
	group.Wait()
	server.Restart()
	found := find(t, s)
	if len(found) != instances {
		t.Fatalf("got %d instances, want %d", len(found), instances)
	}
	for _, in := range found {
		var i int
		if _, err := fmt.Sscanf(in.ID, "r%d", &i); err != nil {
			t.Fatal(err)
		}
		// The last push may have been stored without its answer getting through.
		if in.Seq < acknowledged[i] || in.Seq > acknowledged[i]+1 || in.Current[fleet.Blocked] != in.Seq*100 {
			t.Errorf("%s: got seq %d with %d, acknowledged was %d", in.ID, in.Seq, in.Current[fleet.Blocked], acknowledged[i])
		}
	}
}

func TestAServerThatLostItsDataIsFilledAgain(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := open(t, options(server.URL()))
	r := newReport("r1", "boot1", 1, 10)
	r.Slices = []fleet.Slice{minuteSlice("boot1", 3*time.Minute), minuteSlice("boot1", 2*time.Minute)}
	end := r.Slices[1].End()
	if saved := save(t, s, r); len(saved.SlicesUntil) != 1 || !saved.SlicesUntil[0].Until.Equal(end) {
		t.Fatalf("until: got %v, want %s", saved.SlicesUntil, end)
	}
	if err := raw(t, server).FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	lost := newReport("r1", "boot1", 2, 12)
	if saved := save(t, s, lost); saved.Result != fleet.Stored || len(saved.SlicesUntil) != 0 {
		t.Errorf("after the loss: got %+v, want stored, and no slices", saved)
	}
	r.Seq = 3
	if saved := save(t, s, r); len(saved.SlicesUntil) != 1 || !saved.SlicesUntil[0].Until.Equal(end) {
		t.Errorf("sent again: until: got %v, want %s", saved.SlicesUntil, end)
	}
}

func TestAWatchSurvivesARestart(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := open(t, options(server.URL()))
	hints := make(chan fleet.Hint, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Watch(ctx, func(h fleet.Hint) { hints <- h }) }()
	expect := func(what string, want fleet.Hint) {
		t.Helper()
		late := time.After(10 * time.Second)
		for {
			select {
			case got := <-hints:
				if got == want {
					return
				}
			case <-late:
				t.Fatalf("%s: no hint %+v", what, want)
			}
		}
	}
	expect("at the start", fleet.Hint{})
	server.Kill()
	server.Restart()
	expect("after the reconnect", fleet.Hint{})
	save(t, s, newReport("r1", "boot1", 1, 1))
	expect("a push after the reconnect", fleet.Hint{InstanceID: "r1"})
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Watch: got %v, want nil", err)
	}
}

func TestAFailoverKeepsTheFleet(t *testing.T) {
	t.Parallel()
	set := redistest.StartSentinels(t, 3)
	s := open(t, options(set.URL()))
	save(t, s, newReport("r1", "boot1", 1, 10))
	save(t, s, newReport("r1", "boot2", 1, 5))
	set.WaitReplicated()
	set.Master.Kill()
	eventually(t, "pushes go on after the master died", 30*time.Second, func() bool {
		saved, err := s.SaveReport(t.Context(), newReport("r1", "boot2", 2, 7), fleet.RoleReplica, "t1")
		return err == nil && (saved.Result == fleet.Stored || saved.Result == fleet.Duplicate)
	})
	if got := find(t, s, "r1"); len(got) != 1 || got[0].Lifetime()[fleet.Blocked] != 17 {
		t.Errorf("after the failover: got %+v, want r1 with a lifetime of 17", got)
	}
}
