package bench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store/redis"
	"dnsfleet/internal/store/storetest/redistest"
	"dnsfleet/internal/syncapi"
)

// pushers is how many instances push at the same time.
const pushers = 8

// BenchmarkPush is a push of about 4 KiB with one minute slice: token, check, one script, reply. Bare is a net/http
// handler that reads the same bytes and keeps them with one HSET and PEXPIRE by go-redis.
func BenchmarkPush(b *testing.B) {
	server := redistest.Start(b, "--appendfsync", "everysec")
	store, err := redis.Open(b.Context(), redis.Options{URL: server.URL(), StatsTTL: 15 * time.Minute, History: 24 * time.Hour})
	check(b, err)
	b.Cleanup(func() { store.Close() })
	sync := syncapi.NewServer(syncapi.ServerOptions{Store: store})
	ours := httptest.NewServer(sync.Handler())
	b.Cleanup(ours.Close)

	client := goredis.NewClient(&goredis.Options{Addr: server.Addr()})
	b.Cleanup(func() { client.Close() })
	bare := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			_, err = client.Pipelined(r.Context(), func(p goredis.Pipeliner) error {
				key := "bare:" + r.Header.Get(syncapi.InstanceHeader)
				p.HSet(r.Context(), key, "report", body)
				p.PExpire(r.Context(), key, 15*time.Minute)
				return nil
			})
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		io.WriteString(w, `{"ok":true}`)
	}))
	b.Cleanup(bare.Close)

	fleetOfPushers := make([]*pusher, pushers)
	for i := range fleetOfPushers {
		fleetOfPushers[i] = newPusher(b, store, i)
	}
	run := func(url string) func(n int) {
		return func(n int) { pushAll(b, fleetOfPushers, url, n) }
	}
	compare(b, 800, run(ours.URL), run(bare.URL))
	b.ReportMetric(float64(len(fleetOfPushers[0].body())), "bytes/push")
}

// pusher is an instance that pushes.
type pusher struct {
	id, secret    string
	seq           uint64
	before, after []byte // of the JSON around seq
}

func newPusher(b *testing.B, store *redis.Store, i int) *pusher {
	b.Helper()
	token, secret := fleet.NewToken(fmt.Sprint("pusher ", i), nil, false, time.Now())
	check(b, store.CreateToken(b.Context(), token))
	started := time.Now().UTC().Truncate(time.Minute)
	rng := rand.New(rand.NewPCG(uint64(i), 1))
	body, err := json.Marshal(report(instanceID(i), "boot", 1, time.Now().UTC(), slice(rng, fleet.Minute, started.Add(-time.Minute), "boot")))
	check(b, err)
	before, after, found := bytes.Cut(body, []byte(`"seq":1,`))
	if !found {
		b.Fatal("a report without its seq")
	}
	return &pusher{id: instanceID(i), secret: secret, before: append(before, `"seq":`...), after: append([]byte{','}, after...)}
}

// body is the next push. Only its seq is written anew, so that the client's work is the same small part of both sides.
func (p *pusher) body() []byte {
	p.seq++
	return slices.Concat(p.before, strconv.AppendUint(nil, p.seq, 10), p.after)
}

// pushAll makes n pushes, spread over all pushers, which work at the same time.
func pushAll(b *testing.B, all []*pusher, url string, n int) {
	b.Helper()
	var running sync.WaitGroup
	for _, p := range all {
		running.Go(func() {
			for range n / len(all) {
				if err := post(b.Context(), url, p.id, p.secret, p.body()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
}

var httpClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: pushers}, Timeout: 30 * time.Second}

func post(ctx context.Context, url, id, secret string, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/sync/stats", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set(syncapi.InstanceHeader, id)
	request.Header.Set(syncapi.TokenHeader, secret)
	response, err := httpClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, answer)
	}
	return err
}
