package bench_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store/redis"
	"dnsfleet/internal/store/storetest/redistest"
	"dnsfleet/internal/view"
	"dnsfleet/internal/webapi"
)

// BenchmarkView is GET /api/instances/stats over a fleet in which nobody reports meanwhile; what a report costs the view is
// measured beside package view. Bare is a net/http handler that fetches the same bytes from Redis and writes them.
func BenchmarkView(b *testing.B) {
	for _, size := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprintf("instances=%d", size), func(b *testing.B) {
			server := redistest.Start(b, "--appendonly", "no")
			store, err := redis.Open(b.Context(), redis.Options{URL: server.URL(), StatsTTL: time.Hour, History: 24 * time.Hour})
			check(b, err)
			b.Cleanup(func() { store.Close() })
			fill(b, store, size)
			api := serveView(b, store)
			for _, page := range []struct {
				name, query string
				ops         int
			}{{"first-page", "", max(20, 2000/min(size, 500))}, {"all", "?limit=10000", max(2, 2000/size)}} {
				b.Run(page.name, func(b *testing.B) {
					measureView(b, server.Addr(), api+"/api/instances/stats"+page.query, page.ops, min(size, 500))
				})
			}
		})
	}
}

// fill makes every instance report once with six minutes of slices.
func fill(b *testing.B, store *redis.Store, size int) {
	b.Helper()
	work := make(chan int)
	var workers sync.WaitGroup
	for w := range 8 {
		workers.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 2))
			for i := range work {
				now := time.Now().UTC()
				var minutes []fleet.Slice
				for m := 6; m > 0; m-- {
					minutes = append(minutes, slice(rng, fleet.Minute, now.Truncate(time.Minute).Add(-time.Duration(m)*time.Minute), "boot"))
				}
				if _, err := store.SaveReport(b.Context(), report(instanceID(i), "boot", 1, now, minutes...), fleet.RoleReplica, "t1"); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := range size {
		work <- i
	}
	close(work)
	workers.Wait()
}

// serveView serves the web API over the store and returns its URL once the view is loaded.
func serveView(b *testing.B, store *redis.Store) string {
	b.Helper()
	v := view.New(view.Options{Store: store})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	check(b, v.Reload(b.Context(), fleet.Hint{}))
	api, err := webapi.New(webapi.Options{View: v, Store: store, History: 24 * time.Hour, Open: true, Release: "bench"})
	check(b, err)
	server := httptest.NewServer(api.Handler())
	b.Cleanup(server.Close)
	return server.URL
}

func measureView(b *testing.B, redisAddr, url string, ops, rows int) {
	b.Helper()
	body, err := fetch(b.Context(), url)
	check(b, err)
	if got := strings.Count(string(body), `"last_updated"`); got < rows {
		b.Fatalf("got %d rows, want %d", got, rows)
	}
	client := goredis.NewClient(&goredis.Options{Addr: redisAddr})
	b.Cleanup(func() { client.Close() })
	check(b, client.Set(b.Context(), "bare", body, 0).Err())
	bare := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		bytes, err := client.Get(r.Context(), "bare").Bytes()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(bytes)
	}))
	b.Cleanup(bare.Close)
	get := func(url string) func(n int) {
		return func(n int) {
			for range n {
				if _, err := fetch(b.Context(), url); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	compare(b, ops, get(url), get(bare.URL))
	b.ReportMetric(float64(len(body))/float64(strings.Count(string(body), `"token_id"`)), "bytes/row")
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept-Encoding", "identity")
	response, err := httpClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", response.Status, body)
	}
	return body, err
}

// BenchmarkMemory is what one instance with a day of slices takes in Redis, by Redis' own account.
func BenchmarkMemory(b *testing.B) {
	server := redistest.Start(b, "--appendonly", "no")
	store, err := redis.Open(b.Context(), redis.Options{URL: server.URL(), StatsTTL: time.Hour, History: 24 * time.Hour})
	check(b, err)
	b.Cleanup(func() { store.Close() })
	client := goredis.NewClient(&goredis.Options{Addr: server.Addr()})
	b.Cleanup(func() { client.Close() })
	rng := rand.New(rand.NewPCG(1, 3))
	now := time.Now().UTC()
	seq := uint64(0)
	for _, size := range fleet.Sizes() {
		for start := now.Add(-min(size.Keep(), 24*time.Hour)).Truncate(size.Duration()).Add(size.Duration()); start.Before(now.Add(-size.Duration())); start = start.Add(size.Duration()) {
			seq++
			_, err := store.SaveReport(b.Context(), report(instanceID(0), "boot", seq, now, slice(rng, size, start, "boot")), fleet.RoleReplica, "t1")
			check(b, err)
		}
	}
	for b.Loop() {
		keys, err := client.Keys(b.Context(), "*"+instanceID(0)).Result()
		check(b, err)
		var bytes int64
		for _, key := range keys {
			n, err := client.MemoryUsage(b.Context(), key, 0).Result()
			check(b, err)
			bytes += n
		}
		if len(keys) < 5 {
			b.Fatalf("got keys %q, want stats, instance and three of slices", keys)
		}
		b.ReportMetric(float64(bytes)/1024, "KiB/instance")
		b.ReportMetric(0, "ns/op")
	}
}
