package redisurl_test

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store/redis/redisurl"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, url string
		want      redisurl.Target
	}{
		{"a host alone", "redis://box", redisurl.Target{Addrs: []string{"box:6379"}}},
		{"port and database", "redis://box:7000/3", redisurl.Target{Addrs: []string{"box:7000"}, DB: 3}},
		{"a slash at the end", "redis://box:7000/", redisurl.Target{Addrs: []string{"box:7000"}}},
		{"a password alone", "redis://:s%40cret@box", redisurl.Target{Addrs: []string{"box:6379"}, Password: "s@cret"}},
		{"user and password", "rediss://me:a:b@box", redisurl.Target{TLS: true, Addrs: []string{"box:6379"}, Username: "me", Password: "a:b"}},
		{"an IPv6 address", "redis://[2001:db8::1]:7000", redisurl.Target{Addrs: []string{"[2001:db8::1]:7000"}}},
		{"an IPv6 address without port", "redis://[2001:db8::1]", redisurl.Target{Addrs: []string{"[2001:db8::1]:6379"}}},
		{
			"sentinels", "redis+sentinel://:pw@one,two:26380/mymaster/2?sentinel_password=x%26y",
			redisurl.Target{Kind: redisurl.Sentinel, Addrs: []string{"one:26379", "two:26380"}, Password: "pw", Master: "mymaster", DB: 2, SentinelPassword: "x&y"},
		},
		{"a cluster", "redis+cluster://a:1,b:2", redisurl.Target{Kind: redisurl.Cluster, Addrs: []string{"a:1", "b:2"}}},
		{"a cluster with TLS", "rediss+cluster://a", redisurl.Target{Kind: redisurl.Cluster, TLS: true, Addrs: []string{"a:6379"}}},
	} {
		got, err := redisurl.Parse(c.url)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	for name, url := range map[string]string{
		"no scheme":                "box:6379",
		"another scheme":           "http://:geheim@box",
		"an unknown kind":          "redis+ring://:geheim@box",
		"half a kind":              "redis+://:geheim@box",
		"no host":                  "redis://:geheim@",
		"no port after a colon":    "redis://:geheim@box:",
		"a port that is none":      "redis://:geheim@box:http",
		"a port too high":          "redis://:geheim@box:65536",
		"several hosts":            "redis://:geheim@a,b",
		"a host missing":           "redis+cluster://:geheim@a,,b",
		"a database that is none":  "redis://:geheim@box/mine",
		"a database on a cluster":  "redis+cluster://:geheim@box/1",
		"sentinels without master": "redis+sentinel://:geheim@box",
		"a bad escape":             "redis://:geheim%zz@box",
		"an unknown parameter":     "redis://:geheim@box?ssl=1",
	} {
		_, err := redisurl.Parse(url)
		if !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%s: got %v, want %v", name, err, fleet.ErrInvalid)
		} else if strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: the error tells the password: %v", name, err)
		}
	}
}

// FuzzParse: whatever is read names at least one host:port that can be dialled, and an error never repeats what
// stands before the last @.
func FuzzParse(f *testing.F) {
	for _, url := range []string{
		"redis://box", "rediss://u:p@box:1/2", "redis+sentinel://a,b:2/m/1?sentinel_password=x", "redis+cluster://[::1]:7,b", "redis://:@/", "redis://a@b@c",
	} {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		target, err := redisurl.Parse(url)
		if err != nil {
			if !errors.Is(err, fleet.ErrInvalid) {
				t.Errorf("got error %v, want %v", err, fleet.ErrInvalid)
			}
			return
		}
		if len(target.Addrs) == 0 {
			t.Errorf("%q: no host", url)
		}
		for _, addr := range target.Addrs {
			host, port, err := net.SplitHostPort(addr)
			if err != nil || host == "" || port == "" {
				t.Errorf("%q: host %q is no host:port: %v", url, addr, err)
			}
		}
	})
}
