package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// TestSlicesGoAgainAfterRedisForgotThem takes Redis back to where it was a minute ago, as a restart from an older file does:
// the counters heal by themselves, and the slices that were acknowledged meanwhile are sent again.
func TestSlicesGoAgainAfterRedisForgotThem(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	minute := time.Now().UTC().Truncate(time.Minute)
	sent := load(t, f.dns("r1"), "r1", 6, 4, 5)
	f.viewsAgree(10*time.Second, "the queries arrive", primaries, func(v view) error {
		r, err := v.find("r1")
		return errors.Join(err, same("r1", r.Lifetime, sent))
	})
	client := redis.NewClient(&redis.Options{Addr: f.redis.Addr()})
	t.Cleanup(func() { client.Close() })
	before := dump(t, client)

	stored := func() error { return f.minuteHolds("r1", minute, sent) }
	eventually(t, 90*time.Second, "the minute is stored", stored)
	restore(t, client, before)
	if stored() == nil {
		t.Fatal("the minute is still there: Redis has not forgotten it")
	}
	eventually(t, 45*time.Second, "the minute is stored again", stored)
	f.viewsAgree(10*time.Second, "the counters are as before", primaries, func(v view) error {
		r, err := v.find("r1")
		return errors.Join(err, same("r1", r.Lifetime, sent))
	})
}

// minuteHolds says what is wrong with the instance's history of the minute and the one after it, into which the last of the
// queries may have fallen.
func (f *fleetUnderTest) minuteHolds(id string, minute time.Time, want counts) error {
	query := url.Values{"size": {"1m"}, "from": {minute.Format(time.RFC3339)}, "to": {minute.Add(2 * time.Minute).Format(time.RFC3339)}}
	body, err := get(f.t.Context(), "http://"+f.web("p1")+"/api/instances/"+id+"/history?"+query.Encode(), "")
	if err != nil {
		return err
	}
	var h history
	if err := json.Unmarshal(body, &h); err != nil {
		return err
	}
	sum := counts{}
	for _, p := range h.Points {
		sum = sum.add(p.Outcomes)
	}
	return same(fmt.Sprint("history of ", minute), sum, want)
}

type dumped struct {
	value string
	ttl   time.Duration
}

func dump(t *testing.T, client *redis.Client) map[string]dumped {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	keys, err := client.Keys(ctx, "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]dumped{}
	for _, key := range keys {
		value, err := client.Dump(ctx, key).Result()
		if errors.Is(err, redis.Nil) {
			continue // it has expired
		}
		if err != nil {
			t.Fatal(err)
		}
		ttl, err := client.PTTL(ctx, key).Result()
		if err != nil {
			t.Fatal(err)
		}
		all[key] = dumped{value, max(ttl, 0)}
	}
	return all
}

// restore makes the database what it was, in one step.
func restore(t *testing.T, client *redis.Client, all map[string]dumped) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.FlushAll(ctx)
		for key, d := range all {
			p.Restore(ctx, key, d.ttl, d.value)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
