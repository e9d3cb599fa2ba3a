package redis_test

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store/redis"
	"dnsfleet/internal/store/storetest/redistest"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := raw(t, server)
	s := open(t, options(server.URL()))
	r := newReport("box-1", "boot1", 7, 10)
	for _, size := range fleet.Sizes() {
		slice := minuteSlice("boot1", 2*time.Hour)
		slice.Size, slice.Start = size, time.Now().UTC().Add(-90*time.Minute).Truncate(size.Duration())
		r.Slices = append(r.Slices, slice)
	}
	save(t, s, r)
	token, secret := fleet.NewToken("t", nil, false, time.Now())
	for _, err := range []error{
		s.CreateToken(t.Context(), token),
		s.SaveSession(t.Context(), "abc", []byte("x"), time.Minute),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Authorize(t.Context(), secret, "box-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutPolicy(t.Context(), fleet.DefaultPolicy(), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetDefault(t.Context(), "a", "b"); err != nil {
		t.Fatal(err)
	}

	bucket := fmt.Sprintf("fleet:{b%02d}:", crc32.ChecksumIEEE([]byte("box-1"))%64)
	expires := map[string]bool{
		bucket + "stats:box-1": true, bucket + "instance:box-1": false, bucket + "seen": false,
		bucket + "slices:1m:box-1": false, bucket + "slices:10m:box-1": false, bucket + "slices:1h:box-1": false,
		"fleet:{tokens}": false, "fleet:{tokens}:held": false, "fleet:{policy}:current": false, "fleet:{settings}": false,
		"fleet:session:abc": true,
	}
	keys, err := client.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if _, known := expires[key]; !known {
			t.Errorf("unexpected key %s", key)
		}
	}
	for key, want := range expires {
		if !slices.Contains(keys, key) {
			t.Errorf("key %s is missing", key)
			continue
		}
		left, err := client.PTTL(t.Context(), key).Result()
		if err != nil || (left > 0) != want || left > time.Minute {
			t.Errorf("%s: got PTTL %s, %v; want one: %v", key, left, err, want)
		}
	}

	stats, err := client.HGetAll(t.Context(), bucket+"stats:box-1").Result()
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"boot_id": "^boot1$", "seq": "^7$", "received_at": `^\d{13}$`, "name": "^box-1$", "response_distribution": `"blocked":10.*"total":10`,
		"blocklist": `^\{`, "cache": `^\{`, "cache_refresh": `^\{`, "response_time": `^\{`, "upstreams": `^(\[|null)`,
	} {
		if !regexp.MustCompile(want).MatchString(stats[field]) {
			t.Errorf("stats field %s: got %q, want %s", field, stats[field], want)
		}
	}
	start := fmt.Sprintf("%d:boot1", r.Slices[0].Start.Unix())
	if has, err := client.HExists(t.Context(), bucket+"slices:1m:box-1", start).Result(); err != nil || !has {
		t.Errorf("slices hash: field %s is missing (%v)", start, err)
	}
}

func TestATombstoneExpiresAndARegistryRowDoesNot(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := raw(t, server)
	s := open(t, options(server.URL()))
	key := fmt.Sprintf("fleet:{b%02d}:instance:r1", crc32.ChecksumIEEE([]byte("r1"))%64)
	ttl := func(what string, want bool) {
		t.Helper()
		if left, err := client.PTTL(t.Context(), key).Result(); err != nil || (left > 0) != want {
			t.Errorf("%s: got PTTL %s, %v; want one: %v", what, left, err, want)
		}
	}
	save(t, s, newReport("r1", "boot1", 1, 1))
	ttl("a registry row", false)
	if err := s.Forget(t.Context(), "r1"); err != nil {
		t.Fatal(err)
	}
	ttl("a tombstone", true)
	if keys, err := client.Keys(t.Context(), "*").Result(); err != nil || !slices.Equal(keys, []string{key}) {
		t.Errorf("forgotten: got keys %v, %v, want the tombstone alone", keys, err)
	}
	save(t, s, newReport("r1", "boot2", 1, 1))
	ttl("a registry row after a tombstone", false)
}

func TestFormerBootsAreRememberedWithinBounds(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := raw(t, server)
	s := open(t, options(server.URL()))
	for _, c := range []struct {
		name         string
		count        int
		ended        time.Duration // how long ago the seeded boots ended
		want         int           // how many are left after two more boots, one of which has ended
		oldestIsLost bool
	}{
		{"few old ones are all kept", 1000, 200 * 24 * time.Hour, 1001, false},
		{"of many old ones 1024 are kept", 2000, 200 * 24 * time.Hour, 1024, true},
		{"many recent ones are kept", 2000, 24 * time.Hour, 2001, false},
		{"but not without bound", 5000, 24 * time.Hour, 4096, true},
	} {
		id := strings.ReplaceAll(c.name, " ", "-")
		key := fmt.Sprintf("fleet:{b%02d}:instance:%s", crc32.ChecksumIEEE([]byte(id))%64, id)
		save(t, s, newReport(id, "first", 1, 1))
		var fields []any
		for i := range c.count {
			fields = append(fields, fmt.Sprintf("boot:old%d", i), fmt.Sprintf("e%d", time.Now().Add(-c.ended).UnixMilli()+int64(i)))
		}
		if err := client.HSet(t.Context(), key, fields...).Err(); err != nil {
			t.Fatal(err)
		}
		save(t, s, newReport(id, "second", 1, 1))
		names, err := client.HKeys(t.Context(), key).Result()
		if err != nil {
			t.Fatal(err)
		}
		boots := slices.DeleteFunc(names, func(f string) bool { return !strings.HasPrefix(f, "boot:") })
		if len(boots) != c.want {
			t.Errorf("%s: got %d, want %d", c.name, len(boots), c.want)
		}
		if !slices.Contains(boots, "boot:first") || slices.Contains(boots, "boot:old0") == c.oldestIsLost {
			t.Errorf("%s: the newest is kept: %v, the oldest is lost: %v, want true, %v", c.name,
				slices.Contains(boots, "boot:first"), !slices.Contains(boots, "boot:old0"), c.oldestIsLost)
		}
	}
}

func TestWhatOthersWroteCostsOnlyItsOwnInstance(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := raw(t, server)
	s := open(t, options(server.URL()))
	key := func(kind, id string) string {
		return fmt.Sprintf("fleet:{b%02d}:%s:%s", crc32.ChecksumIEEE([]byte(id))%64, kind, id)
	}
	minute := minuteSlice("boot1", time.Minute)
	for _, id := range []string{"good", "broken-row", "other-type", "broken-report", "broken-slice"} {
		r := newReport(id, "boot1", 1, 1)
		r.Slices = []fleet.Slice{minute}
		save(t, s, r)
	}
	slice := fmt.Sprintf("%d:boot1", minute.Start.Unix())
	for _, err := range []error{
		client.HSet(t.Context(), key("instance", "broken-row"), "cur:blocked", "many").Err(),
		client.Del(t.Context(), key("instance", "other-type")).Err(),
		client.Set(t.Context(), key("instance", "other-type"), "a string", 0).Err(),
		client.HSet(t.Context(), key("stats", "broken-report"), "cache", "{").Err(),
		client.HSet(t.Context(), key("slices:1m", "broken-slice"), slice, "nonsense").Err(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]bool{} // whether it has a report
	for _, in := range find(t, s) {
		got[in.ID] = in.Report != nil
	}
	want := map[string]bool{"good": true, "broken-report": false, "broken-slice": true}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	_, err := s.SaveReport(t.Context(), newReport("other-type", "boot1", 2, 1), fleet.RoleReplica, "t1")
	if err == nil || errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("push to a key of another type: got %v, want an error that is not %v: waiting does not cure it", err, fleet.ErrUnavailable)
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		args []string
		want []string // parts of the warnings
	}{
		{"append-only and noeviction are fine", nil, nil},
		{"snapshots are fine too", []string{"--appendonly", "no", "--save", "60 1"}, nil},
		{"a server that evicts", []string{"--maxmemory-policy", "allkeys-lru"}, []string{"allkeys-lru"}},
		{"a server that keeps nothing", []string{"--appendonly", "no"}, []string{"nothing on disk"}},
		{"both", []string{"--appendonly", "no", "--maxmemory-policy", "volatile-ttl"}, []string{"volatile-ttl", "nothing on disk"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := open(t, options(redistest.Start(t, c.args...).URL())).Warnings(t.Context())
			if len(got) != len(c.want) {
				t.Fatalf("got %q, want %d warnings", got, len(c.want))
			}
			for i, part := range c.want {
				if !strings.Contains(got[i], part) {
					t.Errorf("got %q, want one with %q", got[i], part)
				}
			}
		})
	}
}

func TestTheDialerIsUsed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := options("redis://redis.fleet.example:6379")
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr != "redis.fleet.example:6379" {
			return nil, fmt.Errorf("asked for %s", addr)
		}
		return new(net.Dialer).DialContext(ctx, network, server.Addr())
	}
	save(t, open(t, o), newReport("r1", "boot1", 1, 1))
}

func TestRedissChecksTheCertificate(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(nil) // its certificate is from nobody
	defer server.Close()
	_, err := open(t, options("rediss://"+server.Listener.Addr().String())).Now(t.Context())
	if !errors.Is(err, fleet.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got error %v, want %v because of the certificate", err, fleet.ErrUnavailable)
	}
}

func TestOpenRefusesABadURL(t *testing.T) {
	t.Parallel()
	if _, err := redis.Open(t.Context(), options("http://x")); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("got %v, want %v", err, fleet.ErrInvalid)
	}
}
